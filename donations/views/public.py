"""What the readers' pages have in common: no cookie, and forms that are taken from our own pages only."""

from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt

View = Callable[..., HttpResponse]


class SeeOther(HttpResponseRedirect):
    """303: whatever brought the reader here, the next request is a GET."""

    status_code = 303


def from_our_own_pages(view: View) -> View:
    """Take a POST only from a page of this site, by the Origin and Sec-Fetch-Site that browsers send.

    Readers have no cookie that a foreign page could misuse, so a token would guard nothing; this keeps other sites
    from filling our forms in a reader's browser. A client that sends neither header is no browser.
    """

    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method == "POST" and not _is_our_own(request):
            return render(request, "donations/foreign_form.html", status=403)
        return view(request, *args, **kwargs)

    return csrf_exempt(checked)


def _is_our_own(request: HttpRequest) -> bool:
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
        return False
    origin = request.headers.get("Origin")
    if origin is None:
        return True
    return origin in {settings.CSRF_TRUSTED_ORIGINS[0], f"{request.scheme}://{request.get_host()}"} and bool(
        urlsplit(origin).netloc
    )
