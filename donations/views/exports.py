"""Finance's files for staff: `/staff/exports/`, and a file each below it. Every download is recorded."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import chain, islice
from typing import cast

from django.conf import settings
from django.contrib.auth.decorators import login_required, user_passes_test
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_http_methods, require_safe

from donations import exports
from donations.forms import ExportForm
from donations.models import ExportRecord
from donations.periods import Month
from donations.selectors.finance import FILES, Selection

log = logging.getLogger(__name__)
LATEST = 10
FIRST_CHUNKS = 2  # the header, and the first page
BROKEN_OFF = b"THIS FILE IS NOT COMPLETE. It broke off here: take nothing from it, and download it again.\r\n"


@dataclass(frozen=True, slots=True)
class Period:
    """A period that is often wanted."""

    name: str
    start: date
    end: date


def may_export(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Whether a signed-in user is of the staff and may take finance's files. Raises PermissionDenied else."""
    if isinstance(user, User) and user.is_staff and user.has_perm("donations.add_exportrecord"):
        return True
    raise PermissionDenied


@cache_control(no_store=True)
@require_safe
@login_required(login_url="admin:login")
@user_passes_test(may_export)
def page(request: HttpRequest) -> HttpResponse:
    """Choose a campaign and a period; the latest downloads."""
    asked = {name: request.GET[name] for name in ExportForm.base_fields if name in request.GET}
    return _page(request, ExportForm(initial=asked))


@cache_control(no_store=True)
@require_http_methods(["GET", "HEAD", "POST"])
@login_required(login_url="admin:login")
@user_passes_test(may_export)
def download(request: HttpRequest, file: str) -> HttpResponseBase:
    """One file, streamed; who took it is recorded first. What is wrong with the choice is said beside it.

    Who had to sign in on the way comes by GET, without the choice, and is led to where it is made.
    """
    if file not in FILES:
        raise Http404("There is no such file.")
    if request.method != "POST":
        return redirect("staff-exports")
    form = ExportForm(request.POST)
    if not form.is_valid():
        return _page(request, form, status=422)
    selection = Selection(
        campaign=form.cleaned_data["campaign"].pk if form.cleaned_data["campaign"] else "",
        start=form.cleaned_data["start"],
        end=form.cleaned_data["end"],
        livemode=settings.LIVEMODE,
    )
    chunks = exports.stream(FILES[file], selection)
    return send(chunks, request=request, file=file, selection=selection, name=_name(file, selection))


def send(
    chunks: Iterable[bytes], *, request: HttpRequest, file: str, selection: Selection, name: str
) -> HttpResponseBase:
    """A file as a download of this name, `.csv` aside; who took it is recorded first.

    What fails at once is an error of the site, and no file. What fails later is said in the file's last line: the
    server ends the answer as if it were whole.
    """
    rest = iter(chunks)
    begun = list(islice(rest, FIRST_CHUNKS))
    ExportRecord.objects.create(
        file=file,
        campaign=selection.campaign,
        period_start=selection.start,
        period_end=selection.end,
        requested_by=cast(User, request.user),
    )
    response = StreamingHttpResponse(chain(begun, _to_its_end(rest, file)), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}{"" if settings.LIVEMODE else "-test"}.csv"'
    return response


def _to_its_end(chunks: Iterator[bytes], file: str) -> Iterator[bytes]:
    try:
        yield from chunks
    except Exception:
        log.exception("a download of %s broke off", file)
        yield BROKEN_OFF
        raise


def _name(file: str, selection: Selection) -> str:
    parts = [file, selection.campaign, selection.start, selection.end and f"before-{selection.end}"]
    return "-".join(str(part) for part in parts if part)


def _page(request: HttpRequest, form: ExportForm, status: int = 200) -> HttpResponse:
    month = Month.of(timezone.now(), "UTC")
    year = month.year
    context = {
        "form": form,
        "periods": [
            Period(month.label, month.first_day, month.next.first_day),
            Period(month.previous.label, month.previous.first_day, month.first_day),
            Period(str(year), date(year, 1, 1), date(year + 1, 1, 1)),
            Period(str(year - 1), date(year - 1, 1, 1), date(year, 1, 1)),
        ],
        "files": FILES.values(),
        "latest": ExportRecord.objects.select_related("requested_by")[:LATEST],
    }
    return render(request, "donations/staff/exports.html", context, status=status)
