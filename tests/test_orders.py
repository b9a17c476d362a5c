"""Any order, any repeats and any delay of the same deliveries end in one state.

The sequences are the processor's own, in the folder `events` of what STRIPE_REFERENCE names; without it these tests
are skipped. Every event arrives as signed bytes, as it does from the processor.
"""

import itertools
import json
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from donations import inbox, projections, recurring
from donations.models import InboxEvent
from tests.conformance.openapi import NoReference, description
from tests.factories import make_campaign, make_gift, make_recurring_gift, signature_of
from tests.final_state import Final, final_state

Json = dict[str, Any]
Entry = tuple[str, str, int]

pytestmark = pytest.mark.django_db
MOST_ORDERS = 720
SEEDED_ORDERS = 200
# What says that the money arrived: of a sequence that others follow on, the short form has these alone.
PAYS = {"checkout.session.completed", "invoice_payment.paid", "invoice.paid"}


@dataclass(frozen=True)
class Sequence:
    """What came before it, and what must be booked in the end."""

    follows: str = ""
    booked: frozenset[Entry] = frozenset()


CARD = ("gift", "pi_D1", 2500)
FIRST = ("gift", "pi_S1", 1000)
SEQUENCES = {
    "01_one_time_card": Sequence(booked=frozenset({CARD})),
    "02_delayed_method_succeeds": Sequence(booked=frozenset({("gift", "pi_D2", 2500)})),
    "03_delayed_method_fails": Sequence(booked=frozenset()),
    "04_expired": Sequence(booked=frozenset()),
    "05_subscription_first_payment": Sequence(booked=frozenset({FIRST})),
    "06_renewal": Sequence("05_subscription_first_payment", frozenset({FIRST, ("gift", "pi_S2", 1000)})),
    "08_donor_cancels_at_period_end": Sequence("05_subscription_first_payment", frozenset({FIRST})),
    "09_partial_then_full_refund": Sequence(
        "01_one_time_card", frozenset({CARD, ("refund", "re_1", -500), ("refund", "re_2", -2000)})
    ),
    "10_refund_fails_later": Sequence(
        "01_one_time_card", frozenset({CARD, ("refund", "re_3", -2500), ("refund_reversal", "re_3", 2500)})
    ),
    "11_dispute_lost": Sequence(
        "01_one_time_card", frozenset({CARD, ("dispute_withdrawn", "txn_DW1", -2500), ("fee", "txn_DW1", -2000)})
    ),
    "13_inquiry_closed_no_money_moved": Sequence("01_one_time_card", frozenset({CARD})),
    "14_payout": Sequence(booked=frozenset()),
}
TOO_LONG_FOR_EVERY_ORDER = ["05_subscription_first_payment", "06_renewal"]
SHORT = [name for name in SEQUENCES if name not in TOO_LONG_FOR_EVERY_ORDER]


# ---- the events


class Reference:
    """The processor's sequences."""

    def __init__(self) -> None:
        self.folder = description().folder / "events"

    def events(self, name: str) -> list[Json]:
        found: list[Json] = json.loads((self.folder / f"{name}.json").read_bytes())
        return found

    def whole(self, name: str) -> list[Json]:
        """A sequence, after all of the one that it follows on."""
        before = SEQUENCES[name].follows
        return [*(self.events(before) if before else []), *self.events(name)]

    def short(self, name: str) -> list[Json]:
        """A sequence, after nothing but the payment that it follows on."""
        before = SEQUENCES[name].follows
        payment = [event for event in self.events(before) if event["type"] in PAYS] if before else []
        return [*payment, *self.events(name)]


@pytest.fixture(scope="module")
def reference() -> Reference:
    try:
        return Reference()
    except NoReference as reason:
        pytest.skip(str(reason))


def have_what_was_asked(events: list[Json]) -> None:
    """The campaign, and every gift that these events name, as the reader asked for it."""
    sessions = [event["data"]["object"] for event in events if event["type"].startswith("checkout.session.")]
    campaign = make_campaign(currency="EUR", time_zone="Europe/Berlin")
    for gift, amount in {(s["metadata"]["gift"], s["amount_total"]) for s in sessions if "gift" in s["metadata"]}:
        make_gift(campaign, amount, reference=gift)
    arrangements = [e["data"]["object"] for e in events if e["type"].startswith("customer.subscription.")]
    for reference in {each["metadata"]["recurring_gift"] for each in arrangements}:
        make_recurring_gift(campaign, 1000, reference=reference)


# ---- the deliveries


def deliver(bodies: list[bytes], rng: random.Random) -> None:
    """Each body signed and received; at up to three moments, what has come so far is processed."""
    moments = {rng.randrange(len(bodies)) for _ in range(rng.randint(0, 3))}
    for position, body in enumerate(bodies):
        inbox.receive(processor="stripe", body=body, signature=signature_of(body))
        if position in moments:
            inbox.drain()
    finish()


def finish() -> None:
    """Let time pass until nothing moves any more."""
    inbox.drain()
    waiting = InboxEvent.objects.filter(state=InboxEvent.State.WAITING)
    before = -1
    while (still := waiting.update(next_try_at=timezone.now())) and still != before:
        before = still
        inbox.drain()


def with_repeats(order: Iterable[bytes], rng: random.Random) -> list[bytes]:
    """The same deliveries in the same order, some of them once or twice more at some later point."""
    delivered = list(order)
    for body in list(delivered):
        for _ in range(rng.choice((0, 0, 0, 0, 1, 2))):
            delivered.insert(rng.randint(delivered.index(body) + 1, len(delivered)), body)
    return delivered


# ---- the final state


def outcome_of(deliveries: list[bytes], rng: random.Random, *, audited: bool = False) -> Final:
    """What these deliveries end in; afterwards all is as it was before them."""
    with transaction.atomic():
        deliver(deliveries, rng)
        final = final_state()
        if audited:
            connection.check_constraints()
            assert projections.drift() == []
            assert recurring.drift() == []
        transaction.set_rollback(True)
    return final


def assert_one_final_state(name: str, events: list[Json], orders: Iterable[Iterable[bytes]], rng: random.Random) -> int:
    """Every one of the orders ends in what the natural one ends in; how many there were.

    Drift is a function of what is compared: where the natural order leaves none, none of its equals does.
    """
    have_what_was_asked(events)
    natural = outcome_of([body_of(event) for event in events], rng, audited=True)
    assert_booked(natural, SEQUENCES[name].booked)
    count = 0
    for order in orders:
        deliveries = with_repeats(order, rng)
        found = outcome_of(deliveries, rng)
        assert found == natural, "delivered in this order: " + ", ".join(json.loads(body)["id"] for body in deliveries)
        count += 1
    return count


def assert_booked(final: Final, wanted: frozenset[Entry]) -> None:
    """That all orders agree is worth little unless they agree on what is right."""
    booked = [(row["kind"], row["reference"], row["amount"]) for row in final["ledger"]]
    assert sorted(booked) == sorted(wanted)
    assert {row["state"] for row in final["inbox"]} <= {"processed", "nothing", "foreign"}


def body_of(event: Json) -> bytes:
    return json.dumps(event, indent=2).encode()


# ---- the tests


def test_every_sequence_of_the_reference_is_played(reference: Reference) -> None:
    assert {path.stem for path in reference.folder.glob("[0-9]*.json")} == SEQUENCES.keys()


@pytest.mark.sqlite
@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_every_order_of_a_short_sequence_ends_in_one_state(reference: Reference, rng: random.Random, name: str) -> None:
    events = reference.short(name)
    orders = itertools.permutations([body_of(event) for event in events])
    assert assert_one_final_state(name, events, orders, rng) == math.factorial(len(events)) <= MOST_ORDERS


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    # SQLite has seen every order of the short ones.
    [*TOO_LONG_FOR_EVERY_ORDER, *(pytest.param(name, marks=pytest.mark.postgres) for name in SHORT)],
)
def test_two_hundred_orders_of_a_whole_sequence_end_in_one_state(
    reference: Reference, rng: random.Random, name: str
) -> None:
    events = reference.whole(name)
    bodies = [body_of(event) for event in events]
    orders = (rng.sample(bodies, len(bodies)) for _ in range(SEEDED_ORDERS))
    assert assert_one_final_state(name, events, orders, rng) == SEEDED_ORDERS
