"""The inbox: what needs a person first, and the page on which a person decides."""

import json
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.views.decorators.http import require_http_methods

from donations import inbox, processors, watching
from donations.admin.reading import (
    ModeFilter,
    ReadOnlyAdmin,
    link_to,
    may_see_donors,
    moment,
    page_of,
    pretty,
    scrolled,
)
from donations.models import Gift, InboxEvent

State = InboxEvent.State
NEEDS_A_PERSON = (State.QUARANTINED, State.WRONG_MODE, State.WAITING)


# What to do about an event that cannot be accepted, by the kind of its fact.
GIVE_BACK = (
    "All movements of a gift are in its currency and of its mode, so this payment cannot be booked as this gift’s. "
    "Refund it in the processor’s dashboard; or keep it, and enter what it is worth as an adjustment of the campaign. "
    "Then dismiss it."
)
PUT_RIGHT = (
    "All movements of a gift are in its currency and of its mode, so this cannot be booked as one. Enter what it is "
    "worth in the gift’s currency as an adjustment, with the movement’s number as its reference: of the gift where "
    "money was taken, of the campaign where it came back. Then dismiss it."
)
UNKNOWN = (
    "Nothing in it can be booked. Look for it in the processor’s dashboard; where money moved, enter an adjustment. "
    "Then dismiss it. What a later version can read is booked when it is replayed."
)
INSTEAD = {"paid": GIVE_BACK, "invoice_paid": GIVE_BACK, "refund": PUT_RIGHT, "dispute": PUT_RIGHT}


class StateFilter(admin.SimpleListFilter):
    """By state; unless told, what needs a person. A search looks everywhere."""

    title = "state"
    parameter_name = "state__exact"  # the dashboard links to it
    everything = "all"

    def __init__(self, request: HttpRequest, params: Any, model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        self.is_search = bool(request.GET.get("q"))

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(value), str(label)) for value, label in State.choices] + [(self.everything, "all")]

    def choices(self, changelist: Any) -> Any:
        """The first choice is what needs a person, where Django has all."""
        for position, choice in enumerate(super().choices(changelist)):
            yield {**choice, "display": "what needs a person"} if position == 0 else choice

    def queryset(self, request: HttpRequest, queryset: QuerySet[InboxEvent]) -> QuerySet[InboxEvent]:
        chosen = self.value()
        if chosen in State.values:
            return queryset.filter(state=chosen)
        if chosen == self.everything or self.is_search:
            return queryset
        return queryset.filter(state__in=NEEDS_A_PERSON)


class DecisionForm(forms.Form):
    """A reason, and which button was pressed."""

    reason = forms.CharField(
        required=False,
        max_length=300,
        widget=forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"}),
        help_text="It stays in the event’s history.",
    )
    decision = forms.ChoiceField(choices=[("accept", "Accept"), ("dismiss", "Dismiss"), ("replay", "Replay")])


@admin.register(InboxEvent)
class InboxEventAdmin(ReadOnlyAdmin):
    """What we were told. It is never edited; people with the right to change it decide what becomes of it."""

    list_display = ("received_at", "state", "short_reason", "type", "mode")
    list_filter = (StateFilter, ModeFilter)
    allowed_lookups = frozenset({"state__exact", "livemode__exact"})
    ordering = ("-pk",)
    search_fields = ("event_id",)
    search_help_text = "Search by the id of an event, its object or its payment, or by a gift’s reference, in full."

    def get_queryset(self, request: HttpRequest) -> QuerySet[InboxEvent]:
        """Without the body, which holds personal data and is long."""
        return super().get_queryset(request).defer("body", "body_sha256", "facts")

    def found(self, request: HttpRequest, term: str) -> QuerySet[Any]:
        event = Q(processor__in=[*processors.PROCESSORS], event_id=term)
        about = Q(subject=term) | Q(payment=term) | Q(gift_reference=term)
        return InboxEvent.objects.filter(event | about).values("pk")

    @admin.display(description="reason")
    def short_reason(self, event: InboxEvent) -> str:
        return event.reason if len(event.reason) <= 100 else event.reason[:99] + "…"

    # ---- the page of one event

    def get_fieldsets(self, request: HttpRequest, obj: InboxEvent | None = None) -> Any:
        """The body, with what donors wrote, is for those who may see donors."""
        stands = ("state", "reason", "received_at", "attempts", "next_try_at", "waiting_since", "settled_at")
        told = ("type", "event_id", "processor", "origin", "mode", "created", "subject", "payment", "gift_shown")
        sections: list[Any] = [
            ("Where it stands", {"fields": stands}),
            ("What it is", {"fields": told}),
        ]
        if obj is not None and obj.decision:
            decided = ("decision", "decision_reason", "decided_by", "decided_at")
            sections.append(("What was decided", {"fields": decided}))
        sections.append(("What it says", {"fields": ("facts_shown",)}))
        if may_see_donors(request.user):
            sections.append(("As it was received, with personal data", {"fields": ("body_shown",)}))
        return sections

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        event: InboxEvent = kwargs["obj"]
        gift = Gift.objects.filter(pk=event.gift_reference).first() if event.gift_reference else None
        event.gift_link = link_to(gift, request.user) if gift else event.gift_reference or "–"  # type: ignore[attr-defined]
        context["may_decide"] = may_decide(request)
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="gift")
    def gift_shown(self, event: InboxEvent) -> str:
        return str(getattr(event, "gift_link", event.gift_reference))

    @admin.display(description="facts")
    def facts_shown(self, event: InboxEvent) -> str:
        if event.facts is None:
            return "None: it moves no money and changes no gift, or it was not understood."
        return scrolled(pretty(event.facts), "Facts")

    @admin.display(description="body")
    def body_shown(self, event: InboxEvent) -> str:
        if event.body is None:
            return "It was erased."
        return scrolled(readable(bytes(event.body)), "Body")

    # ---- deciding

    def get_urls(self) -> list[URLPattern]:
        decide = path(
            "<path:object_id>/decide/", self.admin_site.admin_view(self.decide_view), name="donations_inboxevent_decide"
        )
        return [decide, *super().get_urls()]

    def decide_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show what can be decided of an event, and have it decided."""
        return _decide_page(request, self, object_id)


def may_decide(request: HttpRequest) -> bool:
    """Whether a person may see events and decide about them."""
    return bool(request.user.has_perms(["donations.view_inboxevent", "donations.change_inboxevent"]))


def readable(body: bytes) -> str:
    """A body as people read it: JSON with its lines broken, anything else as it is."""
    text = body.decode("utf-8", "replace")
    try:
        return pretty(json.loads(text))
    except (ValueError, RecursionError):
        return text


@require_http_methods(["GET", "HEAD", "POST"])
def _decide_page(request: HttpRequest, room: InboxEventAdmin, object_id: str) -> HttpResponse:
    if not may_decide(request):
        raise PermissionDenied
    event = room.get_object(request, unquote(object_id))
    if event is None:
        raise Http404("There is no such event.")
    if request.method != "POST":
        return _decision_form_page(room, request, event, DecisionForm())
    form = DecisionForm(request.POST)
    if form.is_valid():
        trace = _trace(event, form.cleaned_data["decision"], form.cleaned_data["reason"])
        try:
            _decide(request, event, form.cleaned_data["decision"], form.cleaned_data["reason"])
        except inbox.CannotDecide as refusal:
            form.add_error("reason" if _wants_a_reason(form) else None, ValidationError(str(refusal)))
            event.refresh_from_db()
        else:
            room.log_change(request, event, trace)
            watching.look_at_troubles()  # the banner of the next page is of after the decision
            return HttpResponseRedirect(page_of(event))
    return _decision_form_page(room, request, event, form, status=422)


def _trace(event: InboxEvent, decision: str, reason: str) -> str:
    """What the event's history keeps of a decision. A replay clears a dismissal: the history tells whose it was."""
    undone = ""
    if decision == "replay" and event.decision == "dismiss":
        undone = (
            f" It had been dismissed by {event.decided_by} on {moment(event.decided_at)}: “{event.decision_reason}”."
        )
    return f"Decided: {decision}.{f' Reason: “{reason.strip()}”.' if reason.strip() else ''}{undone}"


def _wants_a_reason(form: DecisionForm) -> bool:
    return form.cleaned_data["decision"] == "dismiss" and not form.cleaned_data["reason"].strip()


def _decide(request: HttpRequest, event: InboxEvent, decision: str, reason: str) -> None:
    """Do it, and say what came of it. Raises CannotDecide."""
    user: Any = request.user
    if decision == "accept":
        inbox.accept(event, user=user, reason=reason)
        messages.success(request, "It is accepted and booked, with its own dates.")
    elif decision == "dismiss":
        inbox.dismiss(event, user=user, reason=reason)
        messages.success(request, "It is dismissed. Nothing was booked.")
    else:
        inbox.replay(event)
        event.refresh_from_db()
        why = f": {event.reason}" if event.reason else ""
        settled = event.state not in {State.READY, *NEEDS_A_PERSON}
        level = messages.SUCCESS if settled else messages.WARNING
        messages.add_message(request, level, f"It was read again. It is now {event.get_state_display()}{why}.")


def _decision_form_page(
    room: InboxEventAdmin, request: HttpRequest, event: InboxEvent, form: DecisionForm, status: int = 200
) -> HttpResponse:
    gift = Gift.objects.filter(pk=event.gift_reference).first() if event.gift_reference else None
    is_quarantined = event.state == State.QUARANTINED
    if is_quarantined:
        form.fields["reason"].help_text = "It stays with the event. To dismiss, you must give one."
    context = {
        **room.admin_site.each_context(request),
        "opts": room.opts,
        "title": "Decide about an event",
        "event": event,
        "subject": event,
        "back": page_of(event),
        "form": form,
        "is_quarantined": is_quarantined,
        "instead": INSTEAD.get((event.facts or {}).get("kind", ""), UNKNOWN),
        "facts": [
            ("Event", f"{event.event_id}, {event.type}"),
            ("State", event.get_state_display()),
            ("Reason", event.reason or "–"),
            ("Received", event.received_at),
            ("Gift", link_to(gift, request.user) if gift else event.gift_reference or "–"),
        ],
        "says": pretty(event.facts) if event.facts else "",
    }
    return TemplateResponse(request, "admin/donations/inboxevent/decide.html", context, status=status)
