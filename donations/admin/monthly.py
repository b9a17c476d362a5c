"""Monthly gifts: where each stands, what it has brought, and what failed. Donors change them at the processor."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html

from donations.admin.gifts import MOST_EVENTS, event_line, reference_in
from donations.admin.people import donor_term, donors_of
from donations.admin.reading import ModeFilter, ReadOnlyAdmin, link_to, may_see_donors, moment, page_of
from donations.charts import amount_text
from donations.models import Gift, GiftState, InboxEvent, OutboxMessage, RecurringGift
from donations.models.recurring import MONTH, Terms
from donations.selectors.dashboard import tier_name
from donations.selectors.invoices import PAID, UNCOLLECTIBLE, VOID, Standing, standings

MOST_GIFTS = 100
FAILING = "failing"
TROUBLES = {"failed": "not paid", "action_required": "the bank asks the donor to confirm it"}


class StatusFilter(admin.SimpleListFilter):
    """By the processor's word; and all those together that somebody has to see to."""

    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        words = [(str(value), str(label)) for value, label in RecurringGift.Status.choices]
        return [(FAILING, "past due or unpaid"), *words]

    def queryset(self, request: HttpRequest, queryset: QuerySet[RecurringGift]) -> QuerySet[RecurringGift]:
        chosen = self.value()
        if chosen == FAILING:
            return queryset.filter(status__in=RecurringGift.FAILING)
        return queryset.filter(status=chosen) if chosen in RecurringGift.Status.values else queryset


@admin.register(RecurringGift)
class RecurringGiftAdmin(ReadOnlyAdmin):
    """Arrangements at the processor. Each of their payments is a gift of its own."""

    list_display = ("created_at", "amount_shown", "status", "cancel_at", "who", "campaign_slug", "mode", "reference")
    list_filter = ("campaign", StatusFilter, ModeFilter)
    allowed_lookups = frozenset({"campaign__slug__exact", "status", "livemode__exact"})
    ordering = ("-pk",)  # a reference begins with its moment
    search_fields = ("reference",)

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        searched = "a monthly gift’s reference, or the id of its subscription or checkout"
        addresses = "; or the donor’s email address" if may_see_donors(request.user) else ""
        changelist: Any = super().get_changelist_instance(request)
        changelist.search_help_text = f"Search by {searched}{addresses}, written in full."
        return changelist

    def found(self, request: HttpRequest, term: str) -> QuerySet[Any]:
        named = Q(pk=term) | Q(checkout_id=term) | Q(subscription=term)
        if may_see_donors(request.user):
            named |= Q(donor__in=donors_of(term))
        return RecurringGift.objects.filter(named).values("pk")

    def impersonal(self, request: HttpRequest, term: str) -> str:
        return donor_term(request, term)

    @admin.display(description="each month")
    def amount_shown(self, recurring: RecurringGift) -> str:
        terms = recurring.terms
        amount = amount_text(terms.total, terms.currency)
        return amount if terms.interval == MONTH else f"{amount} {terms.often}"

    @admin.display(description="shown as")
    def who(self, recurring: RecurringGift) -> str:
        return "anonymous" if recurring.anonymous or not recurring.public_name else recurring.public_name

    # ---- the page of one

    def get_fieldsets(self, request: HttpRequest, obj: RecurringGift | None = None) -> Any:
        """Who gives is for those who may see donors; others see what the donor shows to the public."""
        personal = may_see_donors(request.user)
        who: tuple[str, ...] = ("donor_link", "public_name", "who", "message") if personal else ("who",)
        if not personal and obj is not None and not obj.anonymous:
            who += ("message",)
        stands = ("status", "asks_now", "heard_at", "cancel_at", "ended_at", "subscription", "checkout_id", "refusal")
        asked = ("campaign_slug", "amount_asked", "tier_shown", "created_at", "source", "mode")
        return (
            ("Where it stands", {"fields": stands}),
            ("What was asked for", {"fields": asked}),
            ("Who gives", {"fields": who}),
        )

    @admin.display(description="amount")
    def amount_asked(self, recurring: RecurringGift) -> str:
        return _in_words(recurring.asked)

    @admin.display(description="asks now")
    def asks_now(self, recurring: RecurringGift) -> str:
        """The processor's word, which may have been changed there since; nothing where it never began or is over."""
        if not recurring.subscription or recurring.status in RecurringGift.OVER:
            return "–"
        if recurring.now_amount is None:
            return "not told as a fixed sum: what was asked for is shown"
        return _in_words(recurring.terms)

    @admin.display(description="tier")
    def tier_shown(self, recurring: RecurringGift) -> str:
        return tier_name(recurring.tier, recurring.currency)

    @admin.display(description="donor")
    def donor_link(self, recurring: RecurringGift) -> str:
        """Fields are shown to those who may see donors alone, so it is a link."""
        donor = recurring.donor
        return format_html('<a href="{}">{}</a> {}', page_of(donor), donor, donor.email) if donor else "–"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """By its reference as it reads or as Django writes it in addresses."""
        return super().change_view(request, quote(reference_in(object_id)), form_url, extra_context)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        recurring: RecurringGift = kwargs["obj"]
        events = list(_events_of(recurring))
        context["events"] = [event_line(event, request.user) for event in events]
        context["troubles"] = _trouble_lines(events)
        gifts = recurring.gifts.select_related("state").order_by("-created_at")[:MOST_GIFTS]
        context["gifts"] = [_gift_line(gift, request.user) for gift in gifts]
        return super().render_change_form(request, context, *args, **kwargs)


def _in_words(terms: Terms) -> str:
    amount = f"{amount_text(terms.amount, terms.currency)} {terms.often}"
    if not terms.fee_cover:
        return amount
    return f"{amount}, and {amount_text(terms.fee_cover, terms.currency)} for the processor’s fee"


def _events_of(recurring: RecurringGift) -> QuerySet[InboxEvent]:
    """What was told of it, the latest ones; the body is left where it is."""
    events = InboxEvent.objects.filter(gift_reference=recurring.pk).defer("body", "body_sha256")
    events = events.exclude(gift_reference="")  # said so that SQLite takes the index, which holds no ""
    return events.order_by("-received_at", "-pk")[:MOST_EVENTS]


def _trouble_lines(events: list[InboxEvent]) -> list[dict[str, Any]]:
    """Invoices that were not paid as they should: what was paid since, and whether the donor was written to."""
    invoices = {event.subject for event in events if (event.facts or {}).get("trouble")}
    stand = standings(invoices)
    kinds = OutboxMessage.OF_TROUBLE
    letters = {(mail.kind, mail.subject_id): mail for mail in _letters(invoices)}
    return [
        {
            "at": event.created,
            "what": TROUBLES[event.facts["trouble"]],
            "invoice": event.subject,
            "letter": _letter_words(letters.get((str(kinds[event.facts["trouble"]]), event.subject))),
            "since": _since(stand[event.subject]),
        }
        for event in events
        if event.facts and event.facts.get("trouble")
    ]


def _since(standing: Standing) -> str:
    words = {
        PAID: "paid since",
        VOID: "called off since: not asked for any more",
        UNCOLLECTIBLE: "written off, not paid",
    }
    return words.get(standing.status, "paid in part" if standing.paid else "not paid yet")


def _letters(invoices: set[str]) -> QuerySet[OutboxMessage]:
    return OutboxMessage.objects.filter(kind__in=OutboxMessage.OF_TROUBLE.values(), subject_id__in=invoices)


def _letter_words(letter: OutboxMessage | None) -> str:
    """Only where it went; what a mail server says may name the address."""
    return str(letter.get_state_display()) if letter else "none"


def _gift_line(gift: Gift, user: Any) -> dict[str, Any]:
    state: GiftState | None = getattr(gift, "state", None)
    return {
        "link": link_to(gift, user, gift.pk),
        "amount": amount_text(gift.total, gift.currency),
        "status": state.get_status_display() if state else "pending",
        "month": state.campaign_month if state else "–",
        "confirmed_at": moment(state.confirmed_at if state else None),
    }
