"""The sandbox's balance: fees, refunds, disputes and payouts, and that they add up."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox import Sandboxed, sandbox

Json = dict[str, Any]
DAY = 24 * 3600


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Sandboxed]:
    with sandbox(tmp_path) as running:
        yield running


def charge_of(box: Sandboxed, payment: str) -> Json:
    return box.one(f"charges/{box.one(f'payment_intents/{payment}')['latest_charge']}")


def movement_of(box: Sandboxed, payment: str) -> Json:
    return box.one(f"balance_transactions/{charge_of(box, payment)['balance_transaction']}")


def refused(box: Sandboxed, path: str, **body: Any) -> str:
    answer = box.http("POST", f"/_control/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    assert answer.status == 400, answer.text
    return str(answer.json["error"]["message"])


# ---- fees


@pytest.mark.parametrize("amount, fee", [(2500, 103), (50, 31), (1000, 59), (99_999_999, 2_900_030), (1017, 59)])
def test_a_payment_costs_its_fee_in_whole_minor_units(box: Sandboxed, amount: int, fee: int) -> None:
    moved = movement_of(box, box.paid(amount)["payment_intent"])
    assert (moved["type"], moved["reporting_category"]) == ("charge", "charge")
    assert (moved["amount"], moved["fee"], moved["net"]) == (amount, fee, amount - fee)
    assert [detail["amount"] for detail in moved["fee_details"]] == [fee]


def test_the_fee_is_what_the_account_says(box: Sandboxed) -> None:
    box.control("account", fee_basis_points=150, fee_fixed=25)
    assert movement_of(box, box.paid(10_000)["payment_intent"])["fee"] == 175
    assert "no setting" in refused(box, "account", colour="red")
    assert "whole number" in refused(box, "account", fee_fixed="-1")
    assert "sync, async" in refused(box, "account", capture="never")


def test_money_is_pending_until_it_is_available(box: Sandboxed) -> None:
    payment = box.paid()["payment_intent"]
    moved = movement_of(box, payment)
    assert (moved["status"], moved["available_on"] % DAY) == ("pending", 0)
    assert box.one("balance")["pending"] == [{"amount": 2397, "currency": "usd", "source_types": {"card": 2397}}]
    box.control("account", payouts="manual")
    box.clock.ahead += 2 * DAY
    assert movement_of(box, payment)["status"] == "available"
    assert [held["amount"] for held in box.one("balance")["available"]] == [2397]


@pytest.mark.parametrize(
    "settings, at_first, events",
    [
        ({"capture": "async"}, False, ["charge.updated"]),
        ({"capture": "async", "capture_after": 3600}, False, []),
        ({"capture": "sync"}, True, []),
    ],
)
def test_a_charge_learns_its_movement_as_told(
    box: Sandboxed, settings: Json, at_first: bool, events: list[str]
) -> None:
    box.control("account", **settings)
    payment = box.paid()["payment_intent"]
    first = next(event for event in box.events() if event["type"] == "charge.succeeded")
    assert bool(first["data"]["object"]["balance_transaction"]) == at_first
    assert [kind for kind in box.types() if kind == "charge.updated"] == events
    box.later(3601)
    assert charge_of(box, payment)["balance_transaction"]
    assert box.types().count("charge.updated") == (not at_first)


def test_a_bank_debit_is_a_payment_not_a_charge(box: Sandboxed) -> None:
    payment = box.paid(method="delayed")["payment_intent"]
    assert charge_of(box, payment)["balance_transaction"] is None
    box.control(f"payments/{payment}/settle")
    assert movement_of(box, payment)["type"] == "payment"
    refund = box.control("refunds", payment_intent=payment, amount=100)
    assert box.one(f"balance_transactions/{refund['balance_transaction']}")["type"] == "payment_refund"


@pytest.mark.parametrize(
    "currency, rate, told, amount, settled",
    [("eur", "1.08", 1.08, 2500, 2700), ("jpy", "0.0067", 0.67, 2500, 1675), ("usd", "9", None, 2500, 2500)],
)
def test_the_balance_may_be_held_in_another_currency(
    box: Sandboxed, currency: str, rate: str, told: float | None, amount: int, settled: int
) -> None:
    box.control("account", settlement_currency="usd", exchange_rate=rate)
    payment = box.control(f"sessions/{box.checkout(amount, currency)['id']}/pay")["payment_intent"]
    moved = movement_of(box, payment)
    assert (moved["currency"], moved["amount"]) == ("usd", settled)
    assert moved["exchange_rate"] == told
    assert moved["fee"] == (settled * 290 + 5000) // 10_000 + 30
    refund = box.control("refunds", payment_intent=payment)["id"]
    assert [one["net"] for one in box.listed("balance_transactions", source=refund)] == [-settled]
    box.advance("5d")
    assert {one["currency"] for one in box.listed("balance_transactions")} == {"usd"}
    assert "above 0" in refused(box, "account", exchange_rate="0")


def test_a_dispute_that_is_lost_after_all_takes_what_was_given_back_in_any_currency(box: Sandboxed) -> None:
    box.control("account", settlement_currency="usd", exchange_rate="2")
    payment = box.control(f"sessions/{box.checkout(2500, 'eur')['id']}/pay")["payment_intent"]
    dispute = box.control("disputes", payment_intent=payment)["id"]
    box.control(f"disputes/{dispute}/win", amount=1000)
    box.control(f"disputes/{dispute}/lose")
    moved = box.one(f"disputes/{dispute}")["balance_transactions"]
    assert [(one["amount"], one["currency"]) for one in moved] == [(-5000, "usd"), (2000, "usd"), (-2000, "usd")]


# ---- refunds


def test_a_refund_moves_money_and_its_failure_moves_it_back(box: Sandboxed) -> None:
    payment = box.paid()["payment_intent"]
    for amount in (500, 700, 800):
        box.control("refunds", payment_intent=payment, amount=amount)
    assert charge_of(box, payment)["amount_refunded"] == 2000
    refund = box.listed("refunds", payment_intent=payment)[0]["id"]
    failed = box.control(f"refunds/{refund}/fail")
    moved = box.listed("balance_transactions", source=refund)
    assert [(one["type"], one["amount"], one["fee"]) for one in moved] == [
        ("refund_failure", 800, 0),
        ("refund", -800, 0),
    ]
    assert failed["failure_balance_transaction"] == moved[0]["id"]
    assert charge_of(box, payment)["amount_refunded"] == 1200


@pytest.mark.parametrize(("currency", "odd", "whole"), [("isk", 1050, 1000), ("ugx", 101, 100), ("kwd", 1001, 1010)])
def test_a_refund_is_of_an_amount_that_its_currency_has(box: Sandboxed, currency: str, odd: int, whole: int) -> None:
    payment = box.control(f"sessions/{box.checkout(5000, currency)['id']}/pay")["payment_intent"]
    answer = box.api("POST", "/v1/refunds", {"payment_intent": payment, "amount": odd})
    found = answer.json["error"]
    assert (answer.status, found["code"], found["param"]) == (400, "invalid_charge_amount", "amount")
    for amount in (whole, 5000 - whole):
        assert box.api("POST", "/v1/refunds", {"payment_intent": payment, "amount": amount}).status == 200
    assert charge_of(box, payment)["refunded"] is True


def test_a_pending_refund_can_be_called_off(box: Sandboxed) -> None:
    payment = box.paid()["payment_intent"]
    refund = box.control("refunds", payment_intent=payment, outcome="pending")["id"]
    assert box.control(f"refunds/{refund}/cancel")["status"] == "canceled"
    assert charge_of(box, payment)["amount_refunded"] == 0
    assert "must be pending" in refused(box, f"refunds/{refund}/cancel")
    assert sum(one["net"] for one in box.listed("balance_transactions", source=refund)) == 0


def test_refunds_at_once_never_exceed_what_was_paid(box: Sandboxed) -> None:
    payment = box.paid(1000)["payment_intent"]
    answers: list[int] = []

    def refund() -> None:
        answers.append(box.api("POST", "/v1/refunds", {"payment_intent": payment, "amount": 300}).status)

    threads = [threading.Thread(target=refund) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] * 3 + [400] * 5
    assert charge_of(box, payment)["amount_refunded"] == 900


def test_a_disputed_charge_is_not_refunded_an_inquired_one_is(box: Sandboxed) -> None:
    payment, asked = (box.paid()["payment_intent"] for _ in range(2))
    box.control("disputes", payment_intent=payment)
    box.control("disputes", payment_intent=asked, inquiry=True)
    answer = box.api("POST", "/v1/refunds", {"payment_intent": payment})
    assert (answer.status, answer.json["error"]["code"]) == (400, "charge_disputed")
    assert box.api("POST", "/v1/refunds", {"payment_intent": asked}).status == 200


# ---- disputes


def moved_by(box: Sandboxed, dispute: str) -> list[tuple[str, int, int]]:
    found = box.one(f"disputes/{dispute}")["balance_transactions"]
    assert {one["id"] for one in found} == {one["id"] for one in box.listed("balance_transactions", source=dispute)}
    return [(one["reporting_category"], one["amount"], one["fee"]) for one in found]


WITHDRAWN = ("dispute", -2500, 1500)


@pytest.mark.parametrize(
    "steps, status, moved",
    [
        ([], "needs_response", [WITHDRAWN]),
        ([("respond", {})], "under_review", [WITHDRAWN]),
        ([("lose", {})], "lost", [WITHDRAWN]),
        ([("win", {})], "won", [WITHDRAWN, ("dispute_reversal", 2500, 0)]),
        ([("win", {"amount": 1000})], "won", [WITHDRAWN, ("dispute_reversal", 1000, 0)]),
        ([("win", {"return_fee": True})], "won", [WITHDRAWN, ("dispute_reversal", 2500, -1500)]),
        (
            [("win", {"sum": "10.00"}), ("lose", {})],
            "lost",
            [WITHDRAWN, ("dispute_reversal", 1000, 0), ("dispute", -1000, 0)],
        ),
    ],
)
def test_a_disputes_money(
    box: Sandboxed, steps: list[tuple[str, Json]], status: str, moved: list[tuple[str, int, int]]
) -> None:
    payment = box.paid()["payment_intent"]
    dispute = box.control("disputes", payment_intent=payment)["id"]
    for step, body in steps:
        box.control(f"disputes/{dispute}/{step}", **body)
    assert box.one(f"disputes/{dispute}")["status"] == status
    assert moved_by(box, dispute) == moved
    told = [kind.rpartition("funds_")[2] for kind in box.types() if "funds" in kind]
    assert told == ["withdrawn" if category == "dispute" else "reinstated" for category, *_ in moved]
    assert charge_of(box, payment)["disputed"]
    assert [one["id"] for one in box.listed("disputes", payment_intent=payment)] == [dispute]


def test_an_inquiry_moves_no_money_until_it_is_a_dispute(box: Sandboxed) -> None:
    dispute = box.control("disputes", payment_intent=box.paid()["payment_intent"], inquiry=True)["id"]
    assert moved_by(box, dispute) == []
    assert box.types()[-1] == "charge.dispute.created"
    box.control(f"disputes/{dispute}/respond")
    assert box.control(f"disputes/{dispute}/escalate")["status"] == "needs_response"
    assert moved_by(box, dispute) == [WITHDRAWN]
    assert box.types()[-2:] == ["charge.dispute.updated", "charge.dispute.funds_withdrawn"]


@pytest.mark.parametrize(
    "card, status", [("4000000000000259", "needs_response"), ("4000000000001976", "warning_needs_response")]
)
def test_some_cards_are_disputed_by_themselves(box: Sandboxed, card: str, status: str) -> None:
    box.paid(card=card)
    assert box.listed("disputes") == []
    box.later(5)
    assert [(one["status"], one["reason"]) for one in box.listed("disputes")] == [(status, "fraudulent")]


@pytest.mark.parametrize(
    "body", [{}, {"payment_intent": "pi_x"}, {"reason": "x"}, {"inquiry": "maybe"}, {"charge": "ch_x"}]
)
def test_what_can_not_be_disputed(box: Sandboxed, body: Json) -> None:
    answer = box.http("POST", "/_control/disputes", json.dumps(body).encode(), {"Content-Type": "application/json"})
    assert answer.status in (400, 404)


def test_a_dispute_goes_only_where_it_can(box: Sandboxed) -> None:
    payment = box.paid()["payment_intent"]
    assert "between 1 and 5000" in refused(box, "disputes", payment_intent=payment, amount=5001)
    dispute = box.control("disputes", payment_intent=payment)["id"]
    assert "disputed already" in refused(box, "disputes", payment_intent=payment)
    assert "inquiry" in refused(box, f"disputes/{dispute}/escalate")
    box.control(f"disputes/{dispute}/lose")
    for step in ("lose", "respond"):
        assert "has a status of `lost`" in refused(box, f"disputes/{dispute}/{step}")


def test_a_dispute_may_exceed_its_charge_and_be_won_after_it_was_lost(box: Sandboxed) -> None:
    payment = box.paid()["payment_intent"]
    dispute = box.control("disputes", payment_intent=payment, amount=2600)["id"]
    box.control(f"disputes/{dispute}/lose")
    box.control(f"disputes/{dispute}/win")
    told = box.api("GET", f"/v1/disputes/{dispute}").json
    assert told["status"] == "won"
    assert [one["amount"] for one in told["balance_transactions"]] == [-2600, 2600]
    assert "has a status of `won`" in refused(box, f"disputes/{dispute}/win")


# ---- payouts


def test_a_day_s_payout_holds_what_was_available(box: Sandboxed) -> None:
    first, second = box.paid()["payment_intent"], box.paid()["payment_intent"]
    box.control("refunds", payment_intent=first, amount=500)
    box.advance("2d")
    [payout] = box.listed("payouts")
    assert (payout["status"], payout["amount"], payout["automatic"]) == ("in_transit", 2 * 2397 - 500, True)
    assert box.listed("balance_transactions", payout=payout["id"]) == []
    box.advance("2d")
    paid = box.one(f"payouts/{payout['id']}")
    assert (paid["status"], paid["reconciliation_status"]) == ("paid", "completed")
    moved = box.listed("balance_transactions", payout=payout["id"])
    assert sum(one["net"] for one in moved) == 0
    assert sorted(one["type"] for one in moved) == ["charge", "charge", "payout", "refund"]
    assert {charge_of(box, payment)["balance_transaction"] for payment in (first, second)} < {m["id"] for m in moved}
    assert [one["type"] for one in box.listed("balance_transactions", payout=payout["id"], type="payout")] == ["payout"]
    assert [held["amount"] for held in box.one("balance")["available"]] == [0]


def test_a_payout_that_fails_after_it_was_paid_gives_its_money_back(box: Sandboxed) -> None:
    box.paid(card="4000000000000077")
    payout = box.control("payouts")["id"]
    box.control(f"payouts/{payout}/pay")
    failed = box.control(f"payouts/{payout}/fail")
    assert (failed["status"], failed["failure_code"]) == ("failed", "account_closed")
    back = box.one(f"balance_transactions/{failed['failure_balance_transaction']}")
    assert (back["type"], back["net"], back["source"]) == ("payout_failure", 2397, payout)
    again = box.control("payouts")["id"]
    box.control(f"payouts/{again}/pay")
    assert {one["id"] for one in box.listed("balance_transactions", payout=again)} > {back["id"]}
    assert [kind for kind in box.types() if kind.startswith("payout")] == [
        "payout.created",
        "payout.updated",
        "payout.paid",
        "payout.reconciliation_completed",
        "payout.failed",
        "payout.created",
        "payout.updated",
        "payout.paid",
        "payout.reconciliation_completed",
    ]


def test_a_held_payout_can_be_canceled_and_one_on_its_way_can_not(box: Sandboxed) -> None:
    box.paid(card="4000000000000077")
    held = box.control("payouts", hold=True)["id"]
    assert box.control(f"payouts/{held}/cancel")["status"] == "canceled"
    sent = box.control("payouts")["id"]
    assert "must be pending" in refused(box, f"payouts/{sent}/cancel")
    assert "insufficient funds" in refused(box, "payouts")
    assert [one["status"] for one in box.listed("payouts", status="canceled")] == ["canceled"]


def test_without_a_schedule_nothing_is_paid_out(box: Sandboxed) -> None:
    box.control("account", payouts="manual")
    box.paid()
    box.advance("2w")
    assert box.listed("payouts") == []


def test_more_refunds_than_payments_are_not_paid_out(box: Sandboxed) -> None:
    payment = box.paid(card="4000000000000077")["payment_intent"]
    box.control("payouts")
    box.control("refunds", payment_intent=payment)
    box.advance("1w")
    assert len(box.listed("payouts")) == 1
    assert [held["amount"] for held in box.one("balance")["available"]] == [-2500]


def test_everything_adds_up_to_the_balance(box: Sandboxed) -> None:
    payments = [box.paid(1000 * number)["payment_intent"] for number in range(1, 8)]
    box.control("refunds", payment_intent=payments[0], amount=300)
    dispute = box.control("disputes", payment_intent=payments[1])["id"]
    box.control(f"disputes/{dispute}/win", amount=500)
    box.advance("3d")
    box.control(f"payouts/{box.listed('payouts')[0]['id']}/fail")
    box.paid(700)
    balance = box.one("balance")
    held = sum(one["amount"] for one in [*balance["available"], *balance["pending"]])
    assert sum(one["net"] for one in box.listed("balance_transactions")) == held


def test_what_is_expanded_is_the_object(box: Sandboxed) -> None:
    payment = box.paid()["payment_intent"]
    refund = box.control("refunds", payment_intent=payment, amount=100)["id"]
    query = "?expand[]=latest_charge.balance_transaction"
    assert box.one(f"payment_intents/{payment}{query}")["latest_charge"]["balance_transaction"]["fee"] == 103
    moved = box.one(f"refunds/{refund}?expand[]=balance_transaction.source")["balance_transaction"]
    assert moved["source"]["id"] == refund
    listed = box.api("GET", "/v1/balance_transactions?type=charge&expand[]=data.source.payment_intent").json
    assert listed["data"][0]["source"]["payment_intent"]["id"] == payment
