"""Rooms in which things are looked at and never edited, by superusers either."""

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.utils import flatten, quote
from django.contrib.admin.views.main import ERROR_FLAG, PAGE_VAR, SEARCH_VAR
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import ForeignKey, Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import cached_property
from django.utils.html import format_html

Person = User | AnonymousUser | Any
MOST_COUNTED = 2000


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # Django's class takes no parameters when it runs
    """Pages of the latest rows. It counts no further than they reach: the whole history is never counted."""

    @cached_property
    def reached(self) -> int:
        rows = self.object_list
        if isinstance(rows, QuerySet):
            return rows.order_by()[: MOST_COUNTED + 1].count()
        return len(rows)

    @cached_property
    def count(self) -> int:
        return min(self.reached, MOST_COUNTED)

    @property
    def is_bounded(self) -> bool:
        """Whether there are more rows than are counted and shown."""
        return self.reached > MOST_COUNTED


class ModeFilter(admin.SimpleListFilter):
    """Test or live."""

    title = "mode"
    parameter_name = "livemode__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("0", "test"), ("1", "live")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(livemode=self.value() == "1") if self.value() in {"0", "1"} else queryset


class CannotSearch(Exception):
    """A search that leads nowhere; its text says why."""


class LinkingByRight(admin.ModelAdmin):  # type: ignore[type-arg]  # Django's class takes no parameters when it runs
    """Pages whose links to other rows are for those who may see them; Django links whatever has a page."""

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        form = context["adminform"]
        names = {name for name in form.readonly_fields if self._is_link(name)}
        shown = {name: self._link_shown(name, request.user) for name in names}
        form.readonly_fields = [*form.readonly_fields, *shown.values()]
        form.fieldsets = [
            (title, {**options, "fields": [shown.get(name, name) for name in flatten(options["fields"])]})
            for title, options in form.fieldsets
        ]
        return super().render_change_form(request, context, *args, **kwargs)

    def _is_link(self, name: Any) -> bool:
        return any(isinstance(field, ForeignKey) and field.name == name for field in self.opts.fields)

    def _link_shown(self, name: str, user: Person) -> Callable[[Any], str]:
        """A field of the page, called like the one whose place it takes."""

        def shown(row: Any) -> str:
            return link_to(getattr(row, name), user)

        shown.__name__ = name
        return admin.display(description=self.opts.get_field(name).verbose_name)(shown)  # type: ignore[union-attr]


class ReadOnlyAdmin(LinkingByRight):
    """Lists and pages of what the application alone writes: nobody adds, changes or deletes it here.

    An address may filter by `allowed_lookups` alone. Django would allow every field of the model, and answer so, letter
    by letter, what the page itself does not show.
    """

    actions = None
    list_per_page = 50
    list_max_show_all = 50
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by: ClassVar[tuple[str, ...]] = ()
    allowed_lookups: ClassVar[frozenset[str]] = frozenset()

    class Media:
        css: ClassVar = {"all": ["donations/admin.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Only the right to view counts; Django would let those look who may change, though nobody changes here."""
        return bool(request.user.has_perm(f"{self.opts.app_label}.view_{self.opts.model_name}"))

    @admin.display(description="campaign")
    def campaign_slug(self, row: Any) -> str:
        """A list has no room for the name."""
        return str(row.campaign_id)

    @admin.display(description="mode")
    def mode(self, row: Any) -> str:
        return "–" if row.livemode is None else "live" if row.livemode else "test"

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup in self.allowed_lookups

    # ---- searching: what is typed is posted, since addresses of pages are kept by browsers, proxies and logs

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list; a search that was posted leads to it, by a term that names nobody."""
        posted = request.method == "POST" and SEARCH_VAR in request.POST
        if posted and not self.has_view_permission(request):
            raise PermissionDenied
        typed = (request.POST if posted else request.GET).get(SEARCH_VAR, "").strip().replace("\x00", "")
        if posted:
            return self._lead_to(request, typed)
        if typed and self.is_personal(typed):
            messages.warning(request, "Type it into the search field: it does not belong in the address of a page.")
            return HttpResponseRedirect(_same_list(request, ""))
        return super().changelist_view(request, extra_context)

    def _lead_to(self, request: HttpRequest, typed: str) -> HttpResponse:
        term = ""
        try:
            term = self.impersonal(request, typed) if self.is_personal(typed) else typed
        except CannotSearch as refusal:
            messages.warning(request, str(refusal))
        return HttpResponseRedirect(_same_list(request, term))

    def is_personal(self, term: str) -> bool:
        """Whether a search term may name a person."""
        return "@" in term

    def impersonal(self, request: HttpRequest, term: str) -> str:
        """The term that stands for a personal one. Raises CannotSearch."""
        raise CannotSearch("Nothing is found here by an email address.")

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist: Any = super().get_changelist_instance(request)
        changelist.search_action = _same_list(request, "")
        return changelist

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Those that the term names exactly: each search is a few look-ups in an index."""
        term = search_term.strip().replace("\x00", "") if self.search_fields else ""
        return (queryset.filter(pk__in=self.found(request, term)) if term else queryset), False

    def found(self, request: HttpRequest, term: str) -> Iterable[Any] | QuerySet[Any]:
        """The primary keys of what a search term names."""
        raise NotImplementedError


def _same_list(request: HttpRequest, term: str) -> str:
    """The address of this list with its filters, from its first page on, and with another search term."""
    query = request.GET.copy()
    for name in (SEARCH_VAR, PAGE_VAR, ERROR_FLAG):
        query.pop(name, None)
    if term:
        query[SEARCH_VAR] = term
    return f"{request.path}?{query.urlencode()}" if query else request.path


def may_see_donors(user: Person) -> bool:
    """Whether somebody may see donors' personal data."""
    return bool(user.has_perm("donations.view_donor"))


def link_to(row: Model | None, user: Person, text: str = "") -> str:
    """A link to a row's page, for those who may see it; its text alone for others."""
    if row is None:
        return "–"
    shown = text or str(row)
    meta = row._meta
    if not user.has_perm(f"{meta.app_label}.view_{meta.model_name}"):
        return shown
    return format_html('<a href="{}">{}</a>', page_of(row), shown)


def page_of(row: Model) -> str:
    """The address of a row's page."""
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[quote(str(row.pk))])


def pretty(value: object) -> str:
    """JSON as people read it. Half of a pair of surrogates, which no page can hold, stays escaped as in JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def scrolled(text: str, name: str) -> str:
    """A long text in a box that scrolls, by the keyboard too."""
    return format_html('<pre tabindex="0" role="region" aria-label="{}">{}</pre>', name, text)


def month_in(month: str, zone: str) -> str:
    """A campaign month with the zone that it is one of: times beside it are UTC, and may be of another month there."""
    return "–" if not month else month if zone == "UTC" else f"{month}, in {zone}"


def moment(instant: datetime | None) -> str:
    """An instant as the rest of the admin writes it."""
    return date_format(timezone.localtime(instant), "DATETIME_FORMAT") if instant else "–"
