"""Projections of the ledger: sole writer of totals and of gifts' states, functions of entries and facts.

A gift counts what we still hold of it, without its fee cover: see `states`. It is a function of the set of entries, so
any order of deliveries ends in the same sums.

    states    what became of each gift, and what is set aside of it for refunds
    totals    what all gifts and followers of a month and of a day come to
"""

from collections.abc import Iterable

from django.db import connection, transaction

from donations import bulk
from donations.models import CampaignMonth, DailyRollup, Gift, GiftState, MonthTotal
from donations.projections import states
from donations.projections.drifts import Drift
from donations.projections.states import CheckoutNews, hold_gift, release_refund, reserve_refund, state_drift
from donations.projections.totals import Deltas, confirm_follower, rebuild_totals, total_drift

__all__ = [
    "CheckoutNews",
    "Drift",
    "apply",
    "confirm_follower",
    "drift",
    "hold_gift",
    "rebuild",
    "rebuild_totals",
    "release_refund",
    "reserve_refund",
    "state_drift",
    "total_drift",
]


def apply(*, gifts: Iterable[Gift], news: Iterable[CheckoutNews] = ()) -> None:
    """Bring these gifts' states and all totals up to date. Call it in the booking transaction, gifts locked.

    Gifts come with their campaign selected.
    """
    by_reference = {gift.pk: gift for gift in gifts}
    if not by_reference:
        return
    deltas, renewed = Deltas(), states.renew(by_reference, news)
    for each in renewed:
        if each.before:
            deltas.add(each.before, -1)
        deltas.add(each.after, 1)
    _open_months((each.after for each in renewed), by_reference)
    deltas.write()


def _open_months(changed: Iterable[GiftState], gifts: dict[str, Gift]) -> None:
    """A month's goal is settled when its first money is booked: a later change of the default leaves it alone."""
    campaigns = {
        (state.campaign_id, state.campaign_month): gifts[state.gift_id].campaign
        for state in changed
        if state.status == GiftState.Status.CONFIRMED
    }
    rows = [(*where, campaigns[where].default_goal_minor, "[]") for where in sorted(campaigns)]
    bulk.insert(CampaignMonth, ("campaign_id", "month", "goal", "scale"), rows, then="ON CONFLICT DO NOTHING")


def rebuild() -> None:
    """Make every state and total anew from the ledger, the facts that stand and the followers, in one transaction."""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            tables = ", ".join(model._meta.db_table for model in (GiftState, MonthTotal, DailyRollup))
            bulk.run(f"LOCK TABLE {tables} IN EXCLUSIVE MODE", [])
        states.rebuild_states()
        rebuild_totals()


def drift() -> list[Drift]:
    """Where what is stored differs from what the ledger says. Zero rows that nothing contributes to are no drift."""
    return [*states.all_state_drift(), *total_drift()]
