"""Donors and followers, to be looked at by those who may."""

import re
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join

from donations.admin.reading import CannotSearch, ModeFilter, ReadOnlyAdmin, may_see_donors, moment, page_of
from donations.models import Donor, Follower

MOST_GIFTS = 50
MOST_NAMESAKES = 100
DONOR_TERM = re.compile(r"donor:([0-9]{1,18}(?:,[0-9]{1,18})*)", re.ASCII)


def donors_of(term: str) -> QuerySet[Donor]:
    """The donors of a term as `donor_term` writes it; none for any other."""
    match = DONOR_TERM.fullmatch(term)
    return Donor.objects.filter(pk__in=[int(number) for number in match[1].split(",")] if match else [])


def donor_term(request: HttpRequest, typed: str) -> str:
    """What stands for a donor's address or name in the address of a page: `donor:12`. Raises CannotSearch.

    An address in whatever case it is typed, by the index of addresses; a name in full.
    """
    if not may_see_donors(request.user):
        raise CannotSearch("Only those who may see donors can search by their addresses or names.")
    named = Donor.objects.filter(email=typed.lower()) if "@" in typed else Donor.objects.filter(name__iexact=typed)
    numbers = named.order_by("pk").values_list("pk", flat=True)[:MOST_NAMESAKES]
    if not numbers:
        raise CannotSearch("No donor has this address or name. It must be written in full.")
    return f"donor:{','.join(str(number) for number in numbers)}"


@admin.register(Donor)
class DonorAdmin(ReadOnlyAdmin):
    """Who gave or follows: personal data, for those who write to donors."""

    list_display = ("email", "name", "created_at")
    ordering = ("-pk",)
    search_fields = ("email",)
    search_help_text = "Search by an email address or a name, written in full."
    fields = ("email", "name", "created_at", "gifts_shown")

    def is_personal(self, term: str) -> bool:
        return not DONOR_TERM.fullmatch(term)

    def impersonal(self, request: HttpRequest, term: str) -> str:
        return donor_term(request, term)

    def found(self, request: HttpRequest, term: str) -> QuerySet[Any]:
        return donors_of(term).values("pk")

    @admin.display(description="latest gifts")
    def gifts_shown(self, donor: Donor) -> str:
        """Their references; whoever may not see gifts is stopped at the gift's own page."""
        gifts = donor.gifts.order_by("-created_at")[:MOST_GIFTS]
        rows = ((page_of(gift), gift.pk, moment(gift.created_at)) for gift in gifts)
        return format_html_join("", '<div><a href="{}">{}</a> {}</div>', rows) or "–"


@admin.register(Follower)
class FollowerAdmin(ReadOnlyAdmin):
    """Who follows. Managers see that somebody does, and those who may see donors see who."""

    list_filter = ("campaign", ModeFilter)
    allowed_lookups = frozenset({"campaign__slug__exact", "livemode__exact"})
    ordering = ("-pk",)

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        who = ("donor_shown",) if may_see_donors(request.user) else ()
        return ("follower", *who, "campaign_slug", "created_at", "confirmed_at", "month_shown", "mode")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Follower]:
        related = ("donor",) if may_see_donors(request.user) else ()
        return super().get_queryset(request).prefetch_related(*related)

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return ("donor__email",) if may_see_donors(request.user) else ()

    def is_personal(self, term: str) -> bool:
        return not DONOR_TERM.fullmatch(term)

    def impersonal(self, request: HttpRequest, term: str) -> str:
        return donor_term(request, term)

    def found(self, request: HttpRequest, term: str) -> QuerySet[Any]:
        if not may_see_donors(request.user):
            return Follower.objects.filter(Q(pk__in=[])).values("pk")
        return Follower.objects.filter(donor__in=donors_of(term)).values("pk")

    def get_fields(self, request: HttpRequest, obj: Follower | None = None) -> tuple[str, ...]:
        who = ("donor_shown",) if may_see_donors(request.user) else ()
        return (*who, "campaign", "source", "created_at", "confirmed_at", "month_shown", "mode")

    @admin.display(description="confirmed month, in the campaign’s zone")
    def month_shown(self, follower: Follower) -> str:
        return follower.confirmed_month or "–"

    @admin.display(description="follower")
    def follower(self, follower: Follower) -> str:
        return f"Follower {follower.pk}"

    @admin.display(description="donor")
    def donor_shown(self, follower: Follower) -> str:
        if follower.donor is None:
            return "erased"
        return format_html('<a href="{}">{}</a>', page_of(follower.donor), follower.donor.email)
