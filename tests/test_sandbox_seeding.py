"""Many payments at once: the same every time, as good as those made one by one, and listed as quickly as a few."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from donations.sandbox import lists
from donations.sandbox.seeding import Plan, seed
from tests.sandbox import Sandboxed, endpoint, eventually, sandbox

Json = dict[str, Any]
DAY = 24 * 3600


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Sandboxed]:
    with sandbox(tmp_path) as running:
        running.control("account", payouts="manual")
        yield running


def keys(found: Any) -> Any:
    """The shape of an object: its fields, and theirs."""
    if isinstance(found, dict):
        return {name: keys(value) for name, value in found.items()}
    return [keys(item) for item in found] if isinstance(found, list) else type(found).__name__


def test_what_is_seeded_is_like_what_is_paid(box: Sandboxed) -> None:
    [made] = box.seed(1, amount=2500, campaign="winter")
    session = box.one(f"checkout/sessions/{made.session}")
    assert session["metadata"] == {"gift": "gift_seeded_1", "campaign": "winter"}
    assert (session["amount_total"], session["payment_intent"]) == (2500, made.payment)
    assert session["expires_at"] == session["created"] + DAY
    charge = box.one(f"charges/{made.charge}?expand[]=balance_transaction")
    moved = charge["balance_transaction"]
    assert (charge["metadata"]["gift"], charge["payment_intent"]) == ("gift_seeded_1", made.payment)
    assert (moved["id"], moved["fee"], moved["net"], moved["created"]) == (made.movement, 103, 2397, made.created)
    form = {"customer_email": "a@example.org"}
    paid = box.control(f"sessions/{box.checkout(form=form)['id']}/pay")
    other = box.one(f"payment_intents/{paid['payment_intent']}?expand[]=latest_charge.balance_transaction")
    seeded = box.one(f"payment_intents/{made.payment}?expand[]=latest_charge.balance_transaction")
    other["metadata"] = seeded["metadata"] = other["latest_charge"]["metadata"] = seeded["latest_charge"]["metadata"]
    assert keys(other) == keys(seeded)


def test_the_ids_of_each_are_its_own_and_lead_to_each_other(box: Sandboxed) -> None:
    made = box.seed(30, refund_every=3)
    assert len({one.payment for one in made}) == 30
    for one in made:
        assert [found["id"] for found in box.listed("checkout/sessions", payment_intent=one.payment)] == [one.session]
        assert [found["id"] for found in box.listed("charges", payment_intent=one.payment)] == [one.charge]
        found = [refund["id"] for refund in box.listed("refunds", payment_intent=one.payment)]
        assert found == ([one.refund] if one.refund else [])
    assert sum(bool(one.refund) for one in made) == 10
    sources = {one["source"] for one in box.listed("balance_transactions")}
    assert sources == {one.charge for one in made} | {one.refund for one in made if one.refund}
    about = [event["data"]["object"]["id"] for event in box.all_events()]
    assert {one.session for one in made} <= set(about)
    assert len(box.all_events()) == 30 * 5 + 10 * 2


def test_the_books_add_up(box: Sandboxed) -> None:
    made = box.seed(200, refund_every=10)
    held = box.one("balance")
    total = sum(one["amount"] for one in [*held["available"], *held["pending"]])
    assert total == sum(one.amount - one.fee - (one.amount if one.refund else 0) for one in made)
    assert sum(one["net"] for one in box.listed("balance_transactions")) == total
    box.control("refunds", payment_intent=made[0].payment, amount=100)
    assert box.one(f"charges/{made[0].charge}")["amount_refunded"] == 100


def test_the_same_seed_makes_the_same_and_never_twice(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        with sandbox(tmp_path / name) as box:
            found.append([(one.payment, one.amount, one.gift) for one in box.seed(20, seed=7)])
            answer = box.form("/_control/seed", payments="20", seed="7")
            assert "used before" in answer.text
            assert box.state()["counts"]["payments"] == 20
            assert box.control("seed", payments=5, seed=8)["payments"] == 5
    assert found[0] == found[1]


NO_PLANS: list[Json] = [
    {},
    {"payments": "x"},
    {"payments": 0},
    {"payments": 1, "deliveries": "x"},
    {"payments": 1, "x": 1},
    {"payments": 1, "refund_every": 1, "last_days_ago": 1},
    {"payments": 1, "currency": "xxx"},
    {"payments": 1, "first_days_ago": 1, "last_days_ago": 2},
    {"payments": 1, "amount": 1},
]


@pytest.mark.parametrize("plan", NO_PLANS)
def test_what_is_no_plan(box: Sandboxed, plan: Json) -> None:
    answer = box.http("POST", "/_control/seed", json.dumps(plan).encode(), {"Content-Type": "application/json"})
    assert (answer.status, box.state()["counts"]["payments"]) == (400, 0)


def test_missed_events_are_listed_as_such_and_never_sent(tmp_path: Path) -> None:
    with endpoint() as hooks, sandbox(tmp_path, url=hooks.url, threads=1) as box:
        box.control("account", payouts="manual")  # a payout by itself has events, too
        box.seed(3, seed=1, deliveries="missed")
        box.seed(2, seed=2, deliveries="delivered")
        assert len(box.listed("events", delivery_success="false")) == 15
        assert len(box.listed("events", delivery_success="true")) == 10
        box.control("seed", payments=1, seed=3, deliveries="queued")
        # A delivery whose answer came late is sent again: at least once is what is promised.
        eventually(lambda: len({event["id"] for event in hooks.events()}) == 5)
        assert {event["data"]["object"]["metadata"]["gift"] for event in hooks.events()} == {"gift_seeded_1"}


def test_what_is_older_than_thirty_days_left_no_event(box: Sandboxed) -> None:
    made = box.seed(10, first_days_ago=60, last_days_ago=31)
    assert box.events() == []
    assert len(box.listed("charges")) == len(box.listed("checkout/sessions")) == 10
    assert [one["id"] for one in box.listed("charges", **{"created[lte]": made[4].created})] == [
        one.charge for one in made[4::-1]
    ]


def test_history_is_paid_out_day_by_day(box: Sandboxed) -> None:
    box.control("account", payouts="daily")
    made = box.seed(60, first_days_ago=20, last_days_ago=10)
    box.later(0)
    payouts = box.listed("payouts", status="paid")
    assert len(payouts) >= 10
    assert sum(one["amount"] for one in payouts) == sum(one.amount - one.fee for one in made)


QUERIES: list[Json] = [
    {},
    {"delivery_success": "false"},
    {"delivery_success": "true"},
    {"type": "charge.*"},
    {"types[]": "refund.created", "delivery_success": "false"},
    {"types[]": "no.such", "delivery_success": "false"},
    {"created[lt]": 1_700_000_000},
]


@pytest.mark.slow
@pytest.mark.parametrize("query", QUERIES)
def test_a_page_reads_no_more_of_a_long_list_than_of_a_short_one(box: Sandboxed, query: Json) -> None:
    """Counted in steps of SQLite's own machine, which is the same on any computer."""
    steps = []
    for number in (40, 1200):
        box.seed(number, seed=number, refund_every=4)
        count = [0]

        def tick(counted: list[int] = count) -> int:
            counted[0] += 1
            return 0

        db = box.running.sandbox.store._db
        db.set_progress_handler(tick, 10)
        box.http("GET", "/v1/events?limit=5&" + "&".join(f"{k}={v}" for k, v in query.items()), None, AUTHORISED)
        db.set_progress_handler(None, 0)
        steps.append(count[0])
    assert steps[1] < max(3 * steps[0], 2_500), steps


AUTHORISED = {"Authorization": "Bearer sk_test_x"}


def test_pages_cover_the_list_in_order_whatever_the_order_of_making(box: Sandboxed) -> None:
    box.paid()
    box.seed(12, seed=1, first_days_ago=9, last_days_ago=8)
    box.seed(12, seed=2, first_days_ago=20, last_days_ago=4)
    whole = [event["id"] for event in box.listed("events")]
    assert len(whole) == len(set(whole)) == 125
    moments = [event["created"] for event in box.listed("events", limit=7)]
    assert moments == sorted(moments, reverse=True)
    before = box.api("GET", f"/v1/events?limit=3&ending_before={whole[50]}").json
    assert ([event["id"] for event in before["data"]], before["has_more"]) == (whole[47:50], True)
    first = box.api("GET", f"/v1/events?limit=3&ending_before={whole[2]}").json
    assert ([event["id"] for event in first["data"]], first["has_more"]) == (whole[:2], False)


def test_filters_are_joined(box: Sandboxed) -> None:
    made = box.seed(40, refund_every=4)
    with box.running.sandbox.store.transaction() as tx:
        kind = lists.field_in("event", "type", ["refund.created", "charge.succeeded"])
        missed = lists.field_in("event", "delivery_success", ["false"])
        page = lists.page(tx, "event", {"limit": 100}, [missed, kind], "/")
    assert len(page["data"]) == 50
    source = made[3].refund
    assert [one["source"] for one in box.listed("balance_transactions", type="refund", source=source)] == [source]
    assert box.listed("balance_transactions", type="charge", source=source) == []


@pytest.mark.slow
def test_a_plan_is_quick(box: Sandboxed) -> None:
    """Not a measurement: a path that makes them one by one would take a hundred times as long."""
    began = time.process_time()
    seed(box.running.sandbox.store, Plan(1000))
    assert time.process_time() - began < 2
