"""What Stripe's lists become: events of the types that would have told of the same."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from donations.processors.stripe import StripeProcessor, lists

SINCE = datetime(2024, 11, 1, tzinfo=UTC)
NOON = 1_731_931_200
SESSION = {
    "id": "cs_test_1",
    "object": "checkout.session",
    "created": NOON,
    "expires_at": NOON + 86_400,
    "mode": "payment",
}
CARD = {"latest_charge": {"created": NOON + 60, "payment_method_details": {"type": "card"}}}
DEBIT = {
    "latest_charge": {
        "created": NOON + 60,
        "payment_method_details": {"type": "sepa_debit"},
        "balance_transaction": {"created": NOON + 500_000},
    }
}
COMPLETED, FAILED = "checkout.session.completed", "checkout.session.async_payment_failed"


def told(step: str, *objects: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Type, id and time of the events that a list of these objects becomes."""
    page = lists.sweep(
        lambda path, parameters: {"data": list(objects), "has_more": False},
        step,
        since=SINCE,
        after="",
        livemode=False,
    )
    bodies = [json.loads(sighting.body) for sighting in page.sightings]
    assert [body["id"] for body in bodies] == [sighting.event_id for sighting in page.sightings]
    return [(body["type"], body["id"].split(":", 2)[2], body["created"]) for body in bodies]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"status": "open", "payment_status": "unpaid"}, []),
        ({"status": "expired"}, [("checkout.session.expired", "cs_test_1:expired", NOON + 86_400)]),
        (
            {"status": "complete", "payment_status": "paid", "payment_intent": {"id": "pi_1", **CARD}},
            [(COMPLETED, "cs_test_1:paid", NOON + 60)],
        ),
        (
            {"status": "complete", "payment_status": "paid", "payment_intent": {"id": "pi_1", **DEBIT}},
            [(COMPLETED, "cs_test_1:paid", NOON + 500_000)],
        ),
        (
            {
                "status": "complete",
                "payment_status": "unpaid",
                "payment_intent": {"id": "pi_1", "status": "processing"},
            },
            [(COMPLETED, "cs_test_1:unpaid", NOON)],
        ),
        (
            {
                "status": "complete",
                "payment_status": "unpaid",
                "payment_intent": {"id": "pi_1", "status": "requires_payment_method"},
            },
            [(FAILED, "cs_test_1:failed", NOON)],
        ),
        ({"status": "complete", "mode": "subscription"}, [(COMPLETED, "cs_test_1:complete", NOON)]),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_a_checkout_is_told_of_as_its_event_would_have(fields: dict[str, Any], wanted: list[Any]) -> None:
    assert told("checkouts", SESSION | fields) == wanted


def test_a_refund_that_came_back_is_dated_by_the_movement_that_brought_it_back() -> None:
    refund = {"id": "re_1", "object": "refund", "created": NOON, "status": "failed"}
    back = {"id": "txn_2", "object": "balance_transaction", "created": NOON + 900}
    wanted = [("refund.updated", "re_1:failed", NOON + 900)]
    assert told("refunds", refund | {"failure_balance_transaction": back}) == wanted
    moved = back | {"source": refund | {"failure_balance_transaction": "txn_2"}}
    assert told("transactions", moved)[:1] == wanted
    out = {"id": "txn_1", "created": NOON, "source": refund | {"failure_balance_transaction": "txn_2"}}
    assert [kind for kind, _, _ in told("transactions", out)] == ["sweep.balance_transaction"]


def test_each_state_of_a_dispute_and_of_a_payout_is_told_of_once() -> None:
    disputes = [
        {"id": "du_1", "created": NOON, "status": status, "balance_transactions": [{}] * moved}
        for status, moved in (("lost", 1), ("won", 2), ("won", 3))
    ]
    assert [identity for _, identity, _ in told("disputes", *disputes)] == ["du_1:lost.1", "du_1:won.2", "du_1:won.3"]
    payouts = [
        {"id": "po_1", "created": NOON, "status": "paid", "reconciliation_status": status, "arrival_date": NOON}
        for status in ("in_progress", "completed")
    ]
    assert len({identity for _, identity, _ in told("payouts", *payouts)}) == 2


def test_what_is_not_needed_of_an_expanded_object_is_left_out() -> None:
    billing = {"billing_details": {"email": "reader@example.org"}}
    session = SESSION | {"status": "complete", "payment_status": "paid"}
    charge = CARD["latest_charge"] | billing
    page = lists.sweep(
        lambda path, parameters: {
            "data": [session | {"payment_intent": {"id": "pi_1", "latest_charge": charge}}],
            "has_more": False,
        },
        "checkouts",
        since=SINCE,
        after="",
        livemode=False,
    )
    assert b"reader@example.org" not in page.sightings[0].body
    assert json.loads(page.sightings[0].body)["data"]["object"]["payment_intent"] == "pi_1"


def test_every_type_that_a_list_becomes_is_read() -> None:
    refund, dispute = {"id": "re_1", "created": NOON}, {"id": "du_1", "created": NOON}
    kinds = {kind for step, one in (("refunds", refund), ("disputes", dispute)) for kind, _, _ in told(step, one)}
    kinds |= {kind for kind, _, _ in told("transactions", {"id": "txn_1", "created": NOON})}
    kinds |= {kind for kind, _, _ in told("payouts", {"id": "po_1", "created": NOON})}
    invoice = {"id": "in_1", "created": NOON, "status": "paid"}
    payment = {"id": "inpay_1", "created": NOON, "status": "paid", "invoice": invoice, "status_transitions": {}}
    kinds |= {kind for kind, _, _ in told("invoice_payments", payment)}
    assert kinds <= StripeProcessor.reads
    assert len(kinds) == 6
