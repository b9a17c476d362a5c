"""The world around the site: a processor (the sandbox, in this process, over real HTTP), readers, banks and a clock.

What the processor emits is put on the way by hand: any order, 1 to 50 copies, days late, or never. There is one clock:
the site, the processor and whoever signs read the same, and it stands still until the world moves it.
"""

import copy
import heapq
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import time_machine

from donations import closing, fees, giving, inbox, offline, processors, refunding
from donations.models import Gift, GiftState, InboxEvent
from donations.sandbox import (
    account,
    cards,
    checkout,
    disputes,
    jobs,
    paying,
    payments,
    payouts,
    refunds,
    subscriptions,
)
from donations.sandbox.clock import Clock, Duration
from donations.sandbox.deliveries import Target
from donations.sandbox.errors import ApiError
from donations.sandbox.payments import Payer
from donations.sandbox.server import serve
from donations.sandbox.store import Tx
from tests.factories import make_campaign, signature_of
from tests.simulation.crew import Crew
from tests.simulation.reconciling import Reconciliations
from tests.simulation.staff import Staff

Json = dict[str, Any]
MOST_COPIES = 50
LATEST = 40  # turns: a turn moves the clock by up to three days
NEVER_DELIVERED = 0.03
BEGINS = datetime(2025, 1, 27, 15, tzinfo=UTC)  # the same for every seed; months end and clocks change soon after
MOST_ROUNDS = 10
LONGEST_BACKOFF = timedelta(minutes=6)  # what waits is looked at again within five
PATIENCE = timedelta(hours=73)  # what still waits then is quarantined at its next look
SETTLED_IN = "usd"  # all of the balance: gifts in euros are exchanged, each day at another rate
FEE = fees.Formula(29_000, 30)  # what the sandbox keeps
REFUSALS = (
    ApiError,
    refunding.RefundRefused,
    paying.NotPayable,
    offline.OfflineRefused,
    inbox.CannotDecide,
    closing.CannotClose,
)
GOOD_CARDS = [card for card, does in cards.CARDS.items() if not does.decline and not does.authenticates]


@dataclass(frozen=True)
class AskedFor:
    """What a reader typed into the form, minor units: a gift, or one of each month, and what was added for the fee."""

    campaign: str
    amount: int
    cover: int


class World:
    """One world, which everything that happens is decided for by a seed."""

    def __init__(self, folder: Path, port: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.travel = time_machine.travel(BEGINS, tick=False)
        self.time = self.travel.start()
        self.done: Counter[str] = Counter()
        self.running = serve(folder / "sandbox.sqlite3", Target("http://127.0.0.1:9/", "whsec_none", threads=0),
                             port=port, clock=Clock(), poll=0.05)  # fmt: skip
        self.store = self.running.sandbox.store
        self.campaigns = [
            make_campaign("general", goal=5000, currency="USD", time_zone="America/New_York"),
            make_campaign("berlin", goal=3000, currency="EUR", time_zone="Europe/Berlin"),
        ]
        with self.store.transaction() as tx:
            account.change(tx, {"settlement_currency": SETTLED_IN, "exchange_rate": "1.08"})
        self.zones = {campaign.pk: campaign.time_zone for campaign in self.campaigns}
        self.staff = Staff(self.rng, self.campaigns)
        self.crew = Crew(self.rng)
        self.reconciliation = Reconciliations(self)
        self.asked_once: list[str] = []
        self.asked: dict[str, AskedFor] = {}
        self.turn = 0
        self.seen = 0
        self.delivered = 0
        self.on_the_way: list[tuple[int, int, bytes]] = []
        self.lost: dict[str, float] = {}  # events that the processor knows were not delivered, and when they were made
        self.sessions: list[str] = []
        self.debits: list[str] = []
        self.payments: list[str] = []
        self.refunds: list[str] = []
        self.disputes: list[str] = []
        self.subscriptions: list[str] = []

    def close(self) -> None:
        self.crew.close()
        self.running.close()
        self.travel.stop()

    def happen(self) -> None:
        """One thing that a reader, a bank or the processor does."""
        self._one_of(
            [
                (30, self.give),
                (6, self.give_monthly),
                (40, self.pay),
                (6, self.debit_ends),
                (8, self.refund_at_the_processor),
                (6, self.refund_ends),
                (4, self.dispute),
                (5, self.dispute_ends),
                (2, self.cancel_monthly),
                (6, self.change_price),
                (1, self.payout_fails),
                (4, self.pay_astray),
            ]
        )

    def staff_act(self) -> None:
        """One thing that the publisher's staff do."""
        self._one_of(
            [
                (6, self.staff_refund),
                (6, self.staff.enter_offline_gift),
                (5, self.staff.reverse_offline_gift),
                (4, self.adjust_gift),
                (2, self.staff.adjust_campaign),
                (5, self.staff.decide_about_offline),
                (8, self.decide_about_quarantined),
                (8, self.staff.close_month),
            ]
        )

    def _one_of(self, actions: list[tuple[int, Callable[[], None]]]) -> None:
        weights = [weight for weight, _ in actions]
        action = self.rng.choices([do for _, do in actions], weights)[0]
        try:
            action()
        except REFUSALS as refusal:
            self.done[f"refused: {type(refusal).__name__}"] += 1
        except IndexError:
            self.done["nothing to do it with"] += 1
        else:
            self.done[action.__name__] += 1

    # ---- readers

    def give(self) -> None:
        """A reader fills in the form: the real room, its call to the processor over HTTP."""
        self._fill_in(self.rng.randint(100, 500_000), monthly=False)

    def give_monthly(self) -> None:
        self._fill_in(self.rng.randint(300, 5_000), monthly=True)

    def _fill_in(self, amount: int, *, monthly: bool) -> None:
        """Half of them add what the processor will keep."""
        campaign, number = self.rng.choice(self.campaigns), self.rng.randrange(10**9)
        email = f"reader{number % 500}@example.org" if self.rng.random() < 0.7 else ""
        cover = fees.cover(amount, str(campaign.currency), FEE) if self.rng.random() < 0.5 else 0
        intent = giving.Intent(
            campaign=campaign, amount=amount, fee_cover=cover, monthly=monthly, page=f"page{number}", email=email,
            tier="custom", name="", message="", anonymous=False, source="",
        )  # fmt: skip
        giving.start_gift(intent)
        asked = intent.kind.objects.get(page=intent.page)
        self.asked[asked.pk] = AskedFor(campaign.pk, amount, cover)
        self.sessions.append(str(asked.checkout_id))
        if not monthly:
            self.asked_once.append(asked.pk)

    def pay(self) -> None:
        """A reader on the payment page: by card or by debit; declined, or gone away, or there too late."""
        session = self.sessions.pop() if self.rng.random() < 0.7 else self._take(self.sessions)
        payer, how = Payer(f"payer{self.rng.randrange(500)}@example.org", "A Payer"), self.rng.random()
        with self.store.transaction() as tx:
            if how < 0.1:
                checkout.expire(tx, session)
                return
            if how < 0.25 and checkout.find(tx, session)["mode"] == "payment":
                paying.pay_by_debit(tx, session, payer)
                self.debits.append(str(checkout.find(tx, session)["payment_intent"]))
                return
            paying.pay_by_card(tx, session, self.rng.choice([*GOOD_CARDS, "4000000000000002"]), payer)
            self._remember(checkout.find(tx, session))

    def _remember(self, session: Json) -> None:
        if session["payment_intent"]:
            self.payments.append(session["payment_intent"])
        if session.get("subscription"):
            self.subscriptions.append(session["subscription"])

    def pay_astray(self) -> None:
        """A payment that surprises us: a second one, another sum, for a gift that nobody knows, another shop's."""
        gift, number = Gift.objects.get(pk=self._any(self.asked_once)), self.rng.randrange(10**9)
        order = copy.deepcopy(gift.checkout_parameters) | {"expires_at": int(time.time()) + 3600}
        how = self.rng.choice(["twice", "another sum", "unknown", "stranger"])
        if how == "another sum":
            order["line_items"][0]["price_data"]["unit_amount"] += self.rng.randint(1, 500)
        if how == "unknown":
            order["metadata"]["gift"] = order["client_reference_id"] = f"gift_{number:026}"
        if how == "stranger":
            order |= {"metadata": {}, "client_reference_id": f"order-{number}"}
        order["payment_intent_data"]["metadata"] = order["metadata"]
        session = processors.default().create_checkout(order, f"astray{number}", email="", within=5).checkout_id
        with self.store.transaction() as tx:
            paying.pay_by_card(tx, session, self.rng.choice(GOOD_CARDS), Payer("astray@example.org", "A Payer"))
            self._remember(checkout.find(tx, session))

    def cancel_monthly(self) -> None:
        with self.store.transaction() as tx:
            subscriptions.cancel(tx, self._any(self.subscriptions))

    def change_price(self) -> None:
        """In the processor's dashboard; the fee cover stays as it is."""
        with self.store.transaction() as tx:
            subscriptions.reprice(tx, self._any(self.subscriptions), self.rng.randint(300, 5_000))

    # ---- banks, and staff

    def debit_ends(self) -> None:
        intent = self._take(self.debits)
        with self.store.transaction() as tx:
            (paying.settle if self.rng.random() < 0.7 else paying.fail)(tx, intent)
        self.payments.append(intent)

    def refund_at_the_processor(self) -> None:
        with self.store.transaction() as tx:
            given = {"payment_intent": self._any(self.payments)}
            amount: Json = {"amount": self.rng.randint(1, 50_000)} if self.rng.random() < 0.6 else {}
            made = refunds.create(tx, given | amount, outcome=self.rng.choice(refunds.OUTCOMES))
        self.refunds.append(made["id"])

    def staff_refund(self) -> None:
        """Our own staff: the real room. What it asks for may race what the processor's dashboard refunds."""
        states = GiftState.objects.filter(status="confirmed", payment__in=self.payments[-50:])
        # In the world's order: names are made by chance, and would make another choice of the same number.
        state = self._any(sorted(states.select_related("gift"), key=lambda each: self.payments.index(each.payment)))
        asked = refunding.request_refund(
            gift=state.gift, amount=self.rng.randint(1, state.charged), reason="", user=None
        )
        asked.refresh_from_db()
        if asked.refund_id:
            self.refunds.append(asked.refund_id)

    def adjust_gift(self) -> None:
        self.staff.adjust_gift(self._any(self.payments))

    def decide_about_quarantined(self) -> None:
        """Staff look at one of what stands aside: they accept it, dismiss it, or have it read again."""
        self.staff.decide_about(self._any(self._quarantined()))

    def _quarantined(self) -> list[InboxEvent]:
        """In an order that is the same in every run of a seed: names are made by chance."""
        place = {payment: number for number, payment in enumerate(self.payments)}
        rows = list(InboxEvent.objects.filter(state=InboxEvent.State.QUARANTINED))
        return sorted(
            rows, key=lambda row: (place.get(row.payment, -1), row.created, row.type, str(amount_of(row)), row.pk)
        )

    def refund_ends(self) -> None:
        end = self.rng.choice([refunds.succeed, refunds.fail, refunds.cancel])
        with self.store.transaction() as tx:
            end(tx, self._any(self.refunds))

    def dispute(self) -> None:
        with self.store.transaction() as tx:
            charge = payments.find(tx, self._any(self.payments))["latest_charge"]
            made = disputes.create(tx, charge, inquiry=self.rng.random() < 0.3)
        self.disputes.append(made["id"])

    def dispute_ends(self) -> None:
        dispute = self._any(self.disputes)
        with self.store.transaction() as tx:
            if self.rng.random() < 0.3:
                disputes.escalate(tx, dispute)
            elif self.rng.random() < 0.5:
                part = self.rng.randint(1, 5_000) if self.rng.random() < 0.4 else None
                disputes.win(tx, dispute, amount=part, return_fee=self.rng.random() < 0.5)
            else:
                disputes.lose(tx, dispute)

    def payout_fails(self) -> None:
        with self.store.transaction() as tx:
            rows = tx.db.execute("SELECT id FROM objects WHERE kind = 'payout' ORDER BY seq DESC LIMIT 5").fetchall()
            payouts.fail(tx, self._any([row[0] for row in rows]))

    def _any(self, some: list[Any]) -> Any:
        """One of them. Raises IndexError where there are none."""
        return some[int(self.rng.random() * len(some))]

    def _take(self, some: list[Any]) -> Any:
        return some.pop(int(self.rng.random() * len(some)))

    # ---- time, and what is on the way

    def pass_time(self) -> None:
        """A turn: hours or days, now and then weeks. What was due at the processor happens, and is told."""
        self.turn += 1
        self.move_clock(timedelta(hours=self.rng.randint(1, 72) if self.rng.random() < 0.9 else 24 * 25))
        with self.store.transaction() as tx:
            account.change(tx, {"exchange_rate": f"1.{self.rng.randint(20, 1999):04}"})
        self._collect()

    def move_clock(self, by: timedelta) -> None:
        """Move the one clock. On the way the processor does what is due, each at its own time."""
        jobs.advance(self.store, Duration(seconds=int(by.total_seconds())))
        # The processor's reads ours, and how far it is ahead of it.
        self.store.clock.ahead = 0.0
        self.time.shift(by)

    def _collect(self) -> None:
        """Put what the processor has emitted on its way; a few events are lost for good."""
        with self.store.transaction() as tx:
            rows = tx.db.execute(
                "SELECT seq, body, id FROM objects WHERE kind = 'event' AND seq > ? ORDER BY seq", (self.seen,)
            ).fetchall()
            lost = {row[2] for row in rows if self.rng.random() < NEVER_DELIVERED}
            for _, body, event in rows:
                # Of every second one that is lost, the processor believes that it arrived: its list leaves it out.
                if event in lost and self.rng.random() < 0.5:
                    self.lost[event] = json.loads(body)["created"]
                else:
                    tx.found_by(event, delivery_success="true")
        for seq, body, event in rows:
            self.seen = seq
            if event in lost:
                self.done["lost on the way"] += 1
                continue
            told = body if isinstance(body, bytes) else str(body).encode()
            for _ in range(self.rng.randint(1, MOST_COPIES)):
                moment = self.turn + min(int(self.rng.expovariate(0.2)), LATEST)
                heapq.heappush(self.on_the_way, (moment, self.rng.randrange(2**60), told))

    def deliver_due(self, *, all_of_it: bool = False, at_most: int = 10**9) -> None:
        """Deliver what has arrived by now, shuffled by its random numbers; a worker works in between."""
        until, enough = self.turn + LATEST if all_of_it else self.turn, self.delivered + at_most
        while self.delivered < enough and self.on_the_way and self.on_the_way[0][0] <= until:
            _, _, body = heapq.heappop(self.on_the_way)
            inbox.receive(processor="stripe", body=body, signature=signature_of(body))
            self.delivered += 1
            if self.rng.random() < 0.01:
                self.crew.work()

    # ---- the site's own clockwork

    def wait(self) -> None:
        """A few minutes, in which workers look at all that waits, until nothing moves."""
        before = -1
        inbox.drain()
        while (still := self._waiting()) and still != before:
            before = still
            self.move_clock(LONGEST_BACKOFF)
            inbox.drain()

    def _waiting(self) -> int:
        return InboxEvent.objects.filter(state=InboxEvent.State.WAITING).count()

    def settle_quarantined(self) -> None:
        """Staff see to all that stands aside: read again, accepted or dismissed, until nothing is left there."""
        for _ in range(MOST_ROUNDS):
            for event in self._quarantined():
                inbox.replay(event)
            self.wait()
            self.outwait()
            left = self._quarantined()
            if not left:
                break
            for event in left:
                if event.state == InboxEvent.State.QUARANTINED:
                    self.staff.decide_at_last(event)
            self.wait()

    def outwait(self) -> None:
        """Days, until the site's patience with what waits is at its end."""
        if self._waiting():
            self.move_clock(PATIENCE)
            inbox.drain()

    def replay_some(self) -> None:
        """Staff have something read again that was read long ago."""
        newest = InboxEvent.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
        told = InboxEvent.objects.filter(pk__gte=self.rng.randint(0, newest)).exclude(origin="sweep")
        event = told.exclude(state="ready").order_by("pk").first()
        if event:
            inbox.replay(event)

    def finish(self) -> None:
        """Let everything end that is under way, and all news arrive."""
        with self.store.transaction() as tx:
            pending = [refund for refund in self.refunds if refunds.find(tx, refund)["status"] == "pending"]
            for refund in pending:
                self.rng.choice([refunds.succeed, refunds.fail, refunds.cancel])(tx, refund)
        self.pass_time()
        self.deliver_due(all_of_it=True)
        self.wait()
        self.reconciliation.run(since=BEGINS)
        self.wait()
        self.settle_quarantined()
        self.reconciled = self.reconciliation.run(since=BEGINS)


def amount_of(row: InboxEvent) -> int:
    """What an event moved, minor units; 0 where it tells of no money."""
    return int((row.facts or {}).get("amount", 0))


def all_of(tx: Tx, kind: str) -> list[Json]:
    """Every object of a kind that the processor has."""
    return [json.loads(row[0]) for row in tx.db.execute("SELECT body FROM objects WHERE kind = ?", (kind,))]
