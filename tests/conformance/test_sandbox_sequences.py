"""The sandbox sends the events that Stripe sends, in their usual order, with the usual changes."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.openapi import Description
from tests.sandbox import Sandboxed

Json = dict[str, Any]
# The reference leaves out how some payments began.
BEGINNINGS = [
    "customer.created",
    "payment_method.attached",
    "payment_intent.created",
    "payment_intent.processing",
    "charge.pending",
]
# The reference tells of some things once, which Stripe tells of each time.
UNTOLD = {
    "05_subscription_first_payment": ["charge.updated"],
    "06_renewal": ["invoice.payment_succeeded"],
}


def card(box: Sandboxed) -> None:
    box.paid()


def delayed_succeeds(box: Sandboxed) -> None:
    box.control(f"payments/{box.paid(method='delayed')['payment_intent']}/settle")


def delayed_fails(box: Sandboxed) -> None:
    box.control(f"payments/{box.paid(method='delayed')['payment_intent']}/fail")


def expired(box: Sandboxed) -> None:
    box.checkout()
    box.later(24 * 3600 + 1)


def partial_then_full_refund(box: Sandboxed) -> None:
    payment = box.paid()["payment_intent"]
    for amount in (500, 2000):
        box.control("refunds", payment_intent=payment, amount=amount)
    box.later(10)


def refund_fails_later(box: Sandboxed) -> None:
    refund = box.control("refunds", payment_intent=box.paid()["payment_intent"], outcome="pending")
    box.control(f"refunds/{refund['id']}/succeed")
    box.control(f"refunds/{refund['id']}/fail")


def subscription_first_payment(box: Sandboxed) -> None:
    box.subscribed()


def without_payouts(box: Sandboxed) -> None:
    box.control("account", payouts="manual")


def renewal(box: Sandboxed) -> None:
    without_payouts(box)
    box.subscribed()
    box.advance("1mo")
    box.advance("2h")


def donor_cancels_at_period_end(box: Sandboxed) -> None:
    without_payouts(box)
    subscription = box.subscribed()["subscription"]
    box.api("POST", f"/v1/subscriptions/{subscription}", {"cancel_at_period_end": "true"})
    box.advance("1mo")


def dispute_lost(box: Sandboxed) -> None:
    dispute = box.control("disputes", payment_intent=box.paid()["payment_intent"])["id"]
    box.control(f"disputes/{dispute}/respond")
    box.control(f"disputes/{dispute}/lose")


def inquiry_closed(box: Sandboxed) -> None:
    dispute = box.control("disputes", payment_intent=box.paid()["payment_intent"], inquiry=True)["id"]
    box.control(f"disputes/{dispute}/close")


def payout(box: Sandboxed) -> None:
    box.paid(card="4000000000000077")
    box.advance("4d")


SEQUENCES: dict[str, tuple[Callable[[Sandboxed], None], int]] = {
    # name: what is done, how many events at the beginning are another sequence's
    "01_one_time_card": (card, 0),
    "02_delayed_method_succeeds": (delayed_succeeds, 0),
    "03_delayed_method_fails": (delayed_fails, 0),
    "04_expired": (expired, 0),
    "05_subscription_first_payment": (subscription_first_payment, 0),
    "06_renewal": (renewal, 14),
    "08_donor_cancels_at_period_end": (donor_cancels_at_period_end, 14),
    "09_partial_then_full_refund": (partial_then_full_refund, 5),
    "10_refund_fails_later": (refund_fails_later, 5),
    "11_dispute_lost": (dispute_lost, 5),
    "13_inquiry_closed_no_money_moved": (inquiry_closed, 5),
    "14_payout": (payout, 5),
}


def reference(stripe_says: Description, name: str) -> list[Json]:
    found: list[Json] = json.loads((stripe_says.folder / "events" / f"{name}.json").read_bytes())
    return found


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_same_events_in_the_same_order(stripe_says: Description, box: Sandboxed, name: str) -> None:
    do, skipped = SEQUENCES[name]
    do(box)
    wanted = [event["type"] for event in reference(stripe_says, name)]
    found = [event["type"] for event in box.all_events()][skipped:]
    if name == "09_partial_then_full_refund":
        # Both refunds learn their reference here; the reference tells of the first.
        assert found.pop() == "refund.updated"
    missing_beginnings = [kind for kind in BEGINNINGS if kind not in wanted]
    untold = [*missing_beginnings, *UNTOLD.get(name, [])]
    assert [kind for kind in found if kind not in untold] == wanted


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_same_things_are_said_to_have_changed(stripe_says: Description, box: Sandboxed, name: str) -> None:
    do, skipped = SEQUENCES[name]
    do(box)
    wanted, found = _changes(reference(stripe_says, name)), _changes(box.all_events()[skipped:])
    assert all(found[kind] >= fields for kind, fields in wanted.items())


def _changes(events: list[Json]) -> dict[str, set[str]]:
    """For each type, the fields that the first event of it says it changed."""
    changes: dict[str, set[str]] = {}
    for event in events:
        changes.setdefault(event["type"], set(event["data"].get("previous_attributes", {})))
    return changes


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_objects_have_the_same_states(stripe_says: Description, box: Sandboxed, name: str) -> None:
    do, skipped = SEQUENCES[name]
    do(box)
    wanted, found = _states(reference(stripe_says, name)), _states(box.all_events()[skipped:])
    assert wanted <= found
    assert {kind for kind, *_ in found - wanted} <= {*BEGINNINGS, *UNTOLD.get(name, [])}


def _states(events: list[Json]) -> set[tuple[str, str, str, bool]]:
    def state(subject: Json) -> tuple[str, str, bool]:
        return subject.get("status", ""), subject.get("payment_status", ""), bool(subject.get("balance_transaction"))

    return {(event["type"], *state(event["data"]["object"])) for event in events}
