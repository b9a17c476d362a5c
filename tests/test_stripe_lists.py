"""What Stripe's lists become: events of the types that would have told of the same."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from donations.processors.base import SWEEP, Page
from donations.processors.stripe import StripeProcessor, lists

Json = dict[str, Any]
SINCE = datetime(2024, 11, 1, tzinfo=UTC)
NOON = 1_731_931_200
SESSION = {
    "id": "cs_test_1",
    "object": "checkout.session",
    "created": NOON,
    "expires_at": NOON + 86_400,
    "mode": "payment",
}
CARD: Json = {"latest_charge": {"created": NOON + 60, "payment_method_details": {"type": "card"}}}
DEBIT: Json = {
    "latest_charge": {
        "created": NOON + 60,
        "payment_method_details": {"type": "sepa_debit"},
        "balance_transaction": {"created": NOON + 500_000},
    }
}
COMPLETED, FAILED = "checkout.session.completed", "checkout.session.async_payment_failed"


class Api:
    """What the processor has at each path, and what it was asked for."""

    def __init__(self, paths: Json) -> None:
        self.paths = paths
        self.asked: list[tuple[str, Json]] = []

    def __call__(self, path: str, parameters: Json) -> Json:
        self.asked.append((path, parameters))
        found: Json = self.paths[path]
        return found


def listed(*objects: Json, more: bool = False) -> Json:
    return {"object": "list", "data": list(objects), "has_more": more}


def swept(step: str, *objects: Json, more: bool = False, after: str = "", livemode: bool = False) -> Page:
    """The page that a list of these objects becomes."""
    return lists.sweep(
        lambda path, parameters: listed(*objects, more=more), step, since=SINCE, after=after, livemode=livemode
    )


def bodies(page: Page) -> list[Json]:
    return [json.loads(sighting.body) for sighting in page.sightings]


def told(step: str, *objects: Json) -> list[tuple[str, str, int]]:
    """Type, id and time of the events that a list of these objects becomes."""
    page = swept(step, *objects)
    found = bodies(page)
    assert [(body["id"], body["type"]) for body in found] == [(s.event_id, s.type) for s in page.sightings]
    return [(body["type"], body["id"].split(":", 2)[2], body["created"]) for body in found]


def subjects(page: Page) -> list[Json]:
    """The objects that the events of a page are about."""
    return [body["data"]["object"] for body in bodies(page)]


# ---- what is asked for


DAYS_BACK = {"refunds": 30, "disputes": 120, "payouts": 14}


@pytest.mark.parametrize("step", SWEEP)
def test_a_step_asks_for_its_period_in_full_pages_and_goes_on_after_the_last_object(step: str) -> None:
    """What becomes of refunds, disputes and payouts is told long after they were made: they are asked for again."""
    path = lists.LISTS[step][0]
    api = Api({path: listed()})
    begin = int((SINCE - timedelta(days=DAYS_BACK.get(step, 0))).timestamp())
    assert lists.sweep(api, step, since=SINCE, after="", livemode=False) == Page((), 0, "")
    lists.sweep(api, step, since=SINCE, after="x_1", livemode=False)
    [(first, asked), (second, onward)] = api.asked
    assert first == second == path
    assert (asked["created"], asked["limit"]) == ({"gte": begin}, 100)
    assert onward == asked | {"starting_after": "x_1"}
    assert asked.keys() - {"created", "limit", "expand", "status", "delivery_success"} == set()


def test_there_is_no_other_step() -> None:
    assert lists.LISTS.keys() == set(SWEEP)
    with pytest.raises(KeyError):
        swept("customers")


def test_a_page_tells_how_many_objects_it_had_and_where_to_go_on() -> None:
    payouts = [{"id": f"po_{number}", "created": NOON, "status": "paid"} for number in (3, 2)]
    page = swept("payouts", *payouts, more=True)
    assert (page.listed, page.cursor, len(page.sightings)) == (2, "po_2", 2)
    assert swept("payouts", *payouts).cursor == ""
    assert swept("payouts", more=True) == Page((), 0, "")
    silent = swept("checkouts", SESSION | {"status": "open"}, more=True)
    assert silent == Page((), 1, "cs_test_1")


def test_an_event_of_the_list_of_events_is_itself() -> None:
    event = {"id": "evt_1", "object": "event", "type": "payout.paid", "created": NOON, "livemode": True}
    [sighting] = swept("events", event).sightings
    assert (sighting.origin, sighting.event_id, sighting.type) == ("events_api", "evt_1", "payout.paid")
    assert json.loads(sighting.body) == event


@pytest.mark.parametrize("livemode", [False, True])
def test_an_object_stands_in_the_envelope_of_an_event(livemode: bool) -> None:
    dispute = {"id": "du_1", "object": "dispute", "created": NOON, "status": "lost"}
    page = swept("disputes", dispute, livemode=livemode)
    [sighting] = page.sightings
    assert (sighting.origin, sighting.event_id) == ("sweep", "sweep:charge.dispute.updated:du_1:lost.0")
    assert bodies(page) == [
        {
            "id": "sweep:charge.dispute.updated:du_1:lost.0",
            "object": "event",
            "type": "charge.dispute.updated",
            "created": NOON,
            "livemode": livemode,
            "data": {"object": dispute},
        }
    ]


# ---- what is looked up


def looked_up(api: Api, kind: str, identity: str, *, after: str = "") -> Page:
    return lists.look_up(api, kind, identity, after=after, livemode=True)


@pytest.mark.parametrize(
    ("kind", "subject", "path", "expand", "wanted"),
    [
        ("refund", {"id": "re_1"}, "/v1/refunds/re_1", ["failure_balance_transaction"], "refund.updated"),
        ("dispute", {"id": "du_1"}, "/v1/disputes/du_1", None, "charge.dispute.updated"),
        ("invoice", {"id": "in_1", "status": "paid"}, "/v1/invoices/in_1", None, "invoice.paid"),
        ("subscription", {"id": "sub_1"}, "/v1/subscriptions/sub_1", None, "customer.subscription.updated"),
        (
            "balance_transaction",
            {"id": "txn_1"},
            "/v1/balance_transactions/txn_1",
            ["source"],
            "sweep.balance_transaction",
        ),
    ],
)
def test_one_object_is_asked_for_and_becomes_its_event(
    kind: str, subject: Json, path: str, expand: list[str] | None, wanted: str
) -> None:
    api = Api({path: subject | {"created": NOON}})
    page = looked_up(api, kind, subject["id"])
    assert api.asked == [(path, {"expand": expand} if expand else {})]
    assert (page.listed, page.cursor) == (1, "")
    [body] = bodies(page)
    assert (body["type"], body["livemode"], body["data"]["object"]["id"]) == (wanted, True, subject["id"])
    assert "payout" not in body["data"]


def test_what_a_payout_carried_is_a_list_of_movements_that_name_it() -> None:
    """The movement alone names the payout: what moved is told of as by any other list."""
    refund = {"id": "re_1", "object": "refund", "created": NOON, "status": "succeeded", "payment_intent": "pi_1"}
    moved = {"id": "txn_2", "created": NOON + 1, "source": refund}
    plain = {"id": "txn_1", "created": NOON, "source": "ch_1"}
    api = Api({"/v1/balance_transactions": listed(moved, plain, more=True)})
    page = looked_up(api, "payout", "po_1", after="txn_3")
    wanted = {"payout": "po_1", "expand": ["data.source"], "limit": 100, "starting_after": "txn_3"}
    assert api.asked == [("/v1/balance_transactions", wanted)]
    assert (page.listed, page.cursor) == (2, "txn_1")
    assert [(s.event_id, body["data"].get("payout")) for s, body in zip(page.sightings, bodies(page), strict=True)] == [
        ("sweep:refund.updated:re_1:succeeded", None),
        ("sweep:sweep.balance_transaction:txn_2:po_1", "po_1"),
        ("sweep:sweep.balance_transaction:txn_1:po_1", "po_1"),
    ]
    assert {body["livemode"] for body in bodies(page)} == {True}


def test_a_payment_is_told_by_its_checkout_or_else_by_the_invoice_that_it_paid() -> None:
    session = SESSION | {"status": "complete", "payment_status": "paid", "payment_intent": {"id": "pi_1", **CARD}}
    api = Api({"/v1/checkout/sessions": listed(session)})
    page = looked_up(api, "payment", "pi_1")
    [(path, asked)] = api.asked
    assert (path, asked["payment_intent"], asked["limit"]) == ("/v1/checkout/sessions", "pi_1", 100)
    assert asked["expand"] == ["data.payment_intent.latest_charge.balance_transaction"]
    assert asked.keys() == {"expand", "limit", "payment_intent"}
    assert [(body["type"], body["created"], body["livemode"]) for body in bodies(page)] == [
        (COMPLETED, NOON + 60, True)
    ]
    payment = {"id": "inpay_1", "created": NOON, "status": "paid", "invoice": {"id": "in_1", "created": NOON}}
    api = Api({"/v1/checkout/sessions": listed(), "/v1/invoice_payments": listed(payment)})
    page = looked_up(api, "payment", "pi_1")
    [_, (path, asked)] = api.asked
    assert path == "/v1/invoice_payments"
    assert asked["payment"] == {"type": "payment_intent", "payment_intent": "pi_1"}
    assert (asked["expand"], asked["limit"]) == (["data.invoice"], 100)
    # Whatever its status: an invoice that is open, too, says that the payment is ours.
    assert asked.keys() == {"expand", "limit", "payment"}
    assert [(body["type"], body["livemode"]) for body in bodies(page)] == [
        ("invoice.finalized", True),
        ("invoice_payment.paid", True),
    ]
    api = Api({"/v1/checkout/sessions": listed(), "/v1/invoice_payments": listed()})
    assert looked_up(api, "payment", "pi_1") == Page((), 0, "")


def test_nothing_else_is_looked_up() -> None:
    with pytest.raises(KeyError):
        looked_up(Api({}), "customer", "cus_1")


# ---- what the objects become


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
        (
            {
                "status": "complete",
                "payment_status": "unpaid",
                "payment_intent": {"id": "pi_1", "status": "canceled"},
            },
            [(FAILED, "cs_test_1:failed", NOON)],
        ),
        (
            {"status": "complete", "payment_status": "unpaid", "payment_intent": "pi_1"},
            [(COMPLETED, "cs_test_1:unpaid", NOON)],
        ),
        (
            {"status": "complete", "payment_status": "no_payment_required", "payment_intent": None},
            [(COMPLETED, "cs_test_1:no_payment_required", NOON)],
        ),
        (
            {"status": "complete", "mode": "subscription", "payment_status": "unpaid", "payment_intent": None},
            [(COMPLETED, "cs_test_1:complete", NOON)],
        ),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_a_checkout_is_told_of_as_its_event_would_have(fields: Json, wanted: list[Any]) -> None:
    assert told("checkouts", SESSION | fields) == wanted


@pytest.mark.parametrize(
    ("charge", "seconds"),
    [
        (None, 0),
        ("ch_1", 0),
        (CARD["latest_charge"] | {"balance_transaction": {"created": NOON + 500_000}}, 60),
        (DEBIT["latest_charge"] | {"balance_transaction": "txn_1"}, 60),
        (DEBIT["latest_charge"] | {"payment_method_details": None}, 500_000),
        ({"created": NOON + 60}, 60),
    ],
    ids=["none", "an id", "a card", "not booked yet", "no method", "nothing else"],
)
def test_a_paid_checkout_is_dated_by_its_card_or_else_by_when_its_money_was_booked(charge: Any, seconds: int) -> None:
    fields = {"status": "complete", "payment_status": "paid", "payment_intent": {"id": "pi_1", "latest_charge": charge}}
    assert told("checkouts", SESSION | fields) == [(COMPLETED, "cs_test_1:paid", NOON + seconds)]


def test_a_payment_of_an_invoice_comes_after_its_invoice_and_is_dated_by_when_it_was_paid() -> None:
    invoice = {"id": "in_1", "created": NOON, "status": "paid"}
    payment = {"id": "inpay_1", "created": NOON, "status": "paid", "status_transitions": {"paid_at": NOON + 30}}
    page = swept("invoice_payments", payment | {"invoice": invoice})
    assert [(body["id"], body["created"]) for body in bodies(page)] == [
        ("sweep:invoice.paid:in_1:paid", NOON),
        ("sweep:invoice_payment.paid:inpay_1:paid", NOON + 30),
    ]
    assert subjects(page) == [invoice, payment | {"invoice": "in_1"}]
    for silent in ({"paid_at": None}, {}, None):
        alone = payment | {"invoice": "in_1", "status_transitions": silent}
        assert told("invoice_payments", alone) == [("invoice_payment.paid", "inpay_1:paid", NOON)]
    waiting = payment | {"status": "open", "invoice": invoice | {"status": "open"}}
    assert told("invoice_payments", waiting) == [("invoice.finalized", "in_1:open", NOON)]


def test_a_refund_names_its_payment_and_movements_by_their_ids_alone() -> None:
    refund = {"id": "re_1", "object": "refund", "created": NOON, "status": "succeeded", "amount": 500}
    written_out = {
        "payment_intent": {"id": "pi_1", "receipt_email": "reader@example.org"},
        "balance_transaction": {"id": "txn_1"},
        "failure_balance_transaction": None,
    }
    page = swept("refunds", refund | written_out)
    ids = {"payment_intent": "pi_1", "balance_transaction": "txn_1", "failure_balance_transaction": None}
    assert subjects(page) == [refund | ids]
    assert [body["created"] for body in bodies(page)] == [NOON]
    back = {"failure_balance_transaction": {"id": "txn_2", "created": NOON + 900}}
    assert subjects(swept("refunds", refund | {"status": "failed"} | back)) == [
        refund
        | {"status": "failed"}
        | {"payment_intent": None, "balance_transaction": None, "failure_balance_transaction": "txn_2"}
    ]


def test_a_movement_tells_of_what_moved_first_and_keeps_its_names_alone() -> None:
    """A name in the object that moved is personal; whose movement it is, is told by its ids."""
    personal = {"billing_details": {"email": "reader@example.org"}}
    charge = {"id": "ch_1", "object": "charge", "payment_intent": "pi_1", **personal}
    dispute = {"id": "du_1", "object": "dispute", "created": NOON - 5, "status": "lost", "balance_transactions": [{}]}
    payout = {"id": "po_1", "object": "payout", "created": NOON - 6, "status": "failed", "arrival_date": NOON}
    movement = {"id": "txn_1", "object": "balance_transaction", "amount": 2500, "created": NOON}
    seen = ("sweep.balance_transaction", "txn_1:seen", NOON)
    for source, first in (
        (charge, []),
        (dispute, [("charge.dispute.updated", "du_1:lost.1", NOON - 5)]),
        (payout, [("payout.updated", f"po_1:failed.None.{NOON}", NOON - 6)]),
    ):
        page = swept("transactions", movement | {"source": source})
        assert told("transactions", movement | {"source": source}) == [*first, seen]
        ids = {"id": source["id"], "object": source["object"], "payment_intent": source.get("payment_intent")}
        assert subjects(page)[-1] == movement | {"source": ids}
        assert b"reader@example.org" not in page.sightings[-1].body
    for plain in ("ch_1", None):
        page = swept("transactions", movement | {"source": plain})
        assert subjects(page) == [movement | {"source": plain}]
        assert told("transactions", movement | {"source": plain}) == [seen]


@pytest.mark.parametrize("status", ["pending", "succeeded", "failed", "canceled"])
def test_a_movement_tells_of_its_refund_unless_another_movement_brought_that_back(status: str) -> None:
    refund = {"id": "re_1", "object": "refund", "created": NOON - 9, "status": status, "balance_transaction": "txn_1"}
    seen = ("sweep.balance_transaction", "txn_1:seen", NOON)
    out = {"id": "txn_1", "created": NOON, "source": refund}
    came_back = status in {"failed", "canceled"}
    wanted = [] if came_back else [("refund.updated", f"re_1:{status}", NOON - 9)]
    assert told("transactions", out) == [*wanted, seen]
    back = {"id": "txn_2", "created": NOON, "source": refund | {"failure_balance_transaction": "txn_2"}}
    page = swept("transactions", back)
    assert [(body["id"], body["created"]) for body in bodies(page)] == [
        (f"sweep:refund.updated:re_1:{status}", NOON),
        ("sweep:sweep.balance_transaction:txn_2:seen", NOON),
    ]
    assert subjects(page)[0]["failure_balance_transaction"] == "txn_2"


def test_a_subscription_is_told_of_as_it_is_now() -> None:
    subscription = {"id": "sub_1", "object": "subscription", "created": NOON, "status": "past_due"}
    began = int(time.time())
    api = Api({"/v1/subscriptions/sub_1": subscription})
    [sighting] = looked_up(api, "subscription", "sub_1").sightings
    body = json.loads(sighting.body)
    assert began <= body["created"] <= time.time()
    assert sighting.event_id == f"sweep:customer.subscription.updated:sub_1:past_due.{body['created']}"
    assert body["data"] == {"object": subscription}


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
    assert [identity for _, identity, _ in told("payouts", *payouts)] == [
        f"po_1:paid.in_progress.{NOON}",
        f"po_1:paid.completed.{NOON}",
    ]


def test_what_is_not_needed_of_an_expanded_object_is_left_out() -> None:
    billing = {"billing_details": {"email": "reader@example.org"}}
    session = SESSION | {"status": "complete", "payment_status": "paid"}
    charge = CARD["latest_charge"] | billing
    page = swept("checkouts", session | {"payment_intent": {"id": "pi_1", "latest_charge": charge}})
    assert b"reader@example.org" not in page.sightings[0].body
    assert subjects(page) == [session | {"payment_intent": "pi_1"}]
    assert subjects(swept("checkouts", session | {"payment_intent": None})) == [session | {"payment_intent": None}]


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
