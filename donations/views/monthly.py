"""A donor’s page of a monthly gift, by the link in its mails: where it stands, and the way to change or stop it."""

from datetime import datetime

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from donations import giving, money, periods
from donations.models import RecurringGift
from donations.processors.base import ProcessorRefused, ProcessorUnavailable
from donations.views.public import SeeOther, from_our_own_pages

Status = RecurringGift.Status
# The status is shown as the processor has it; this is what it means for the donor.
MEANING = {
    Status.PENDING: "The payment service has not told us yet that it has begun.",
    Status.EXPIRED: "It never began, and nothing was taken.",
    Status.INCOMPLETE: "Its first payment is still open. It begins when that arrives.",
    Status.TRIALING: "It has begun, and its first payment is yet to come.",
    Status.ACTIVE: "Thank you for giving each month.",
    Status.PAST_DUE: "The last payment did not go through. The payment service may try again in a few days; you can "
    "also pay by another card now.",
    Status.UNPAID: "The last payments did not go through, and no more are tried. To go on, change the card.",
    Status.PAUSED: "Nothing is taken while it is paused.",
    Status.INCOMPLETE_EXPIRED: "Its first payment never came. Nothing more is taken.",
    Status.CANCELED: "It is over. Nothing more is taken.",
}


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@from_our_own_pages
def manage(request: HttpRequest, token: str) -> HttpResponse:
    """The page of one monthly gift; its button leads on to the processor's own."""
    recurring = giving.recurring_of(token)
    if recurring is None:
        raise Http404("This address is not complete: open the link in the mail once more.")
    if request.method != "POST" or not _can_be_changed(recurring):
        return _page(request, recurring)
    try:
        return SeeOther(giving.portal_url(recurring))
    except ProcessorUnavailable:
        trouble = "The payment service does not answer just now. Nothing has changed: please try again in a moment."
    except ProcessorRefused:
        trouble = (
            "The payment service does not open its page for this gift. Nothing has changed. Please reply to one of our "
            "mails: we stop or change it for you."
        )
    return _page(request, recurring, trouble, status=503)


def _can_be_changed(recurring: RecurringGift) -> bool:
    return bool(recurring.subscription) and recurring.status not in RecurringGift.OVER


def _page(request: HttpRequest, recurring: RecurringGift, trouble: str = "", status: int = 200) -> HttpResponse:
    over, terms = recurring.status in RecurringGift.OVER, recurring.terms
    context = {
        "campaign": recurring.campaign,
        "amount": money.format_minor(terms.total, terms.currency),
        "often": terms.often,
        "status": recurring.get_status_display(),
        "meaning": MEANING[Status(recurring.status)],
        "since": _day(recurring, recurring.created_at),
        "ends": None if over else _day(recurring, recurring.cancel_at),
        "ended": _day(recurring, recurring.ended_at),
        "changeable": _can_be_changed(recurring),
        "trouble": trouble,
        "give_url": f"/give/{recurring.campaign_id}/?frequency=monthly" if over else "",
    }
    return render(request, "donations/manage.html", context, status=status)


def _day(recurring: RecurringGift, instant: datetime | None) -> object:
    """The day of an instant, where the campaign is."""
    return periods.local_date(instant, recurring.campaign.time_zone) if instant else None
