"""Money moves at the processor, its news arrive in any order, many times or late, and staff decide.

After each batch the books are what a bookkeeper of our own makes of the same news, to the entry. `tests.bookkeeper`
knows nothing of the code that is tested. What fails is shrunk to the shortest story that fails.
"""

import logging
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, precondition, rule, run_state_machine_as_test

from donations import closing, inbox, offline, projections, recurring
from donations.models import Campaign, Gift, InboxEvent, LedgerEntry, OfflineRequest, RecurringGift
from donations.periods import Month
from tests import bookkeeper
from tests.bookkeeper import (
    Adjustment,
    Arrangement,
    Arrived,
    Aside,
    Charge,
    Fee,
    Moved,
    News,
    NoMoney,
    Payment,
    Payout,
    Refund,
)
from tests.factories import (
    Event,
    body_of,
    charge_event,
    checkout_event,
    dispute_event,
    invoice_event,
    invoice_paid_event,
    items_of,
    lines_of,
    make_campaign,
    make_gift,
    make_recurring_gift,
    make_staff,
    monthly_checkout_event,
    movement,
    payout_event,
    refund_event,
    signature_of,
    subscription_event,
    transaction_event,
)
from tests.simulation import months

pytestmark = pytest.mark.django_db
STORIES, STEPS = {"sqlite": 400, "postgresql": 100}, 50  # 20,000 steps on SQLite
BEGINS = "2025-01-08T12:00:00Z"  # after every moment below; from here on the clock is moved by rules alone
A_FEW_MINUTES, DAYS = timedelta(minutes=6), timedelta(hours=73)
MOST_BY_HAND, MOST_CLOSED = 3, 2  # in one story: each costs as much as a dozen events
LIMIT = 1_000_000  # minor units: what one person may enter alone

# Moments, and the month that each of the campaigns' calendars shows: New York's and Berlin's.
MOMENTS = {
    "2024-11-18T12:00:00Z": ("2024-11", "2024-11"),
    "2024-11-30T22:59:59Z": ("2024-11", "2024-11"),
    "2024-11-30T23:00:00Z": ("2024-11", "2024-12"),
    "2024-12-01T04:59:59Z": ("2024-11", "2024-12"),
    "2024-12-01T05:00:00Z": ("2024-12", "2024-12"),
    "2025-01-07T12:00:00Z": ("2025-01", "2025-01"),
}
CAMPAIGNS = {"general": ("USD", "America/New_York"), "berlin": ("EUR", "Europe/Berlin")}

campaigns = st.sampled_from(list(CAMPAIGNS))
moments = st.sampled_from(list(MOMENTS))
RATES = ["1.08", "0.9", "1.2391", "0.00731", "43.5"]  # of minor units, one each time that money is exchanged
amounts = st.integers(1, 5000)
percents = st.integers(1, 100)
positions = st.integers(0, 99)  # of a list, counted around


def time_of(moment: str) -> datetime:
    return datetime.fromisoformat(moment)


def month_of(moment: str, campaign: str) -> str:
    return MOMENTS[moment][list(CAMPAIGNS).index(campaign)]


@dataclass
class Said:
    """An event that the processor has made; delivered or not yet."""

    identity: str
    body: bytes
    news: News
    delivered: bool = False


@dataclass
class Given:
    """A refund as the processor has it."""

    payment: str
    amount: int
    status: str


@dataclass
class Taken:
    """A dispute as the processor has it: its movements on the balance, and what they are in the gift's currency."""

    payment: str
    amount: int
    movements: list[Event]
    moved: list[tuple[str, int, int]]


class Books(RuleBasedStateMachine):
    """One story; the database is as before when it ends."""

    asked, delayed, paid = Bundle("asked"), Bundle("delayed"), Bundle("paid")
    payments, refunds, disputes = Bundle("payments"), Bundle("refunds"), Bundle("disputes")
    monthly, payouts, by_hand = Bundle("monthly"), Bundle("payouts"), Bundle("by_hand")

    def __init__(self) -> None:
        super().__init__()
        self.numbers = count(1)
        self.said: list[Said] = []
        self.gifts: dict[str, Gift] = {}
        self.arrangements: dict[str, RecurringGift] = {}
        self.arrived: dict[str, Payment] = {}
        self.finals: dict[str, list[str]] = {}  # of a payment of an invoice, what tells of that as it was at last
        self.given: dict[str, Given] = {}
        self.taken: dict[str, Taken] = {}
        self.states: dict[str, str] = {}
        self.entered: list[News] = []
        self.to_approve: dict[str, tuple[OfflineRequest, News]] = {}
        self.closed: dict[tuple[str, str], months.Closed] = {}
        self.travel = time_machine.travel(BEGINS, tick=False)
        self.time = self.travel.start()
        self.story = transaction.atomic()
        self.story.__enter__()
        self.campaigns = Campaign.objects.in_bulk()
        self.staff, self.colleague = User.objects.order_by("pk")

    def name(self, prefix: str) -> str:
        return f"{prefix}_{next(self.numbers)}"

    def tell(self, event: Event, news: News) -> None:
        self.said.append(Said(event["id"], body_of(event), news))

    # ---- readers, one gift

    @rule(target=asked, campaign=campaigns, amount=amounts, cover=st.sampled_from([0, 0, 3, 250]))
    def ask(self, campaign: str, amount: int, cover: int) -> str:
        name = self.name("gift")
        self.gifts[name] = make_gift(self.campaigns[campaign], amount, fee_cover=cover, reference=name)
        return name

    def pay(self, gift: str, moment: str, amount: int, kind: str = "checkout.session.completed") -> str:
        of = self.gifts[gift]
        payment = self._payment(of.pk, of, moment, amount, of.fee_cover)
        paid = {"payment": payment, "at": time_of(moment), "amount_total": amount, "customer_details": None}
        self.tell(checkout_event(of, kind, **paid), Arrived(self.arrived[payment]))
        return payment

    def _payment(self, asked_for: str, of: Gift | RecurringGift, moment: str, amount: int, cover: int) -> str:
        name, month = self.name("pi"), month_of(moment, of.campaign_id)
        self.arrived[name] = Payment(name, asked_for, of.campaign_id, month, of.currency, amount, cover)
        return name

    @rule(targets=(payments, paid), gift=consumes(asked), moment=moments)
    def pay_as_asked(self, gift: str, moment: str) -> str:
        return self.pay(gift, moment, self.gifts[gift].total)

    @rule(target=payments, payment=paid, moment=moments)
    def pay_twice(self, payment: str, moment: str) -> str:
        gift = self.arrived[payment].asked_for
        return self.pay(gift, moment, self.gifts[gift].total)

    @rule(targets=(payments, paid), gift=consumes(asked), moment=moments, amount=amounts)
    def pay_something_else(self, gift: str, moment: str, amount: int) -> str:
        return self.pay(gift, moment, self.gifts[gift].fee_cover + amount)

    def _without_money(self, gift: str, moment: str, status: str, event: Event) -> None:
        of = self.gifts[gift]
        month = month_of(moment, of.campaign_id)
        self.tell(event, NoMoney(gift, status, of.campaign_id, month, of.currency, of.amount))

    @rule(target=delayed, gift=consumes(asked), moment=moments)
    def pay_by_a_delayed_method(self, gift: str, moment: str) -> str:
        event = checkout_event(self.gifts[gift], paid=False, at=time_of(moment), customer_details=None)
        self._without_money(gift, moment, "awaiting", event)
        return gift

    @rule(targets=(payments, paid), gift=consumes(delayed), moment=moments)
    def settle(self, gift: str, moment: str) -> str:
        return self.pay(gift, moment, self.gifts[gift].total, "checkout.session.async_payment_succeeded")

    @rule(gift=consumes(delayed), moment=moments)
    def fail(self, gift: str, moment: str) -> None:
        kind = "checkout.session.async_payment_failed"
        self._without_money(gift, moment, "failed", checkout_event(self.gifts[gift], kind, at=time_of(moment)))

    @rule(gift=consumes(asked), moment=moments)
    def expire(self, gift: str, moment: str) -> None:
        kind = "checkout.session.expired"
        self._without_money(gift, moment, "expired", checkout_event(self.gifts[gift], kind, at=time_of(moment)))

    # ---- monthly gifts

    @rule(target=monthly, campaign=campaigns, amount=amounts, cover=st.sampled_from([0, 7]), begun=st.booleans())
    def ask_monthly(self, campaign: str, amount: int, cover: int, begun: bool) -> str:
        name = self.name("recurring")
        made = make_recurring_gift(self.campaigns[campaign], amount, fee_cover=cover, reference=name)
        self.arrangements[name] = made
        kind = f"checkout.session.{'completed' if begun else 'expired'}"
        self.tell(monthly_checkout_event(made, kind), Arrangement(name, "pending" if begun else "expired", None))
        return name

    @rule(
        name=monthly,
        status=st.sampled_from(bookkeeper.LIFE_OF_A_MONTHLY_GIFT[2:]),
        moment=moments,
        more=st.sampled_from([None, 0, 100]),
    )
    def change_monthly(self, name: str, status: str, moment: str, more: int | None) -> None:
        of = self.arrangements[name]
        asks = () if more is None else (of.amount + more, of.fee_cover)
        items = items_of(*asks, currency=of.currency.lower())
        event = subscription_event(of, status, at=time_of(moment), items=items)
        self.tell(event, Arrangement(name, status, time_of(moment), asks))

    @rule(
        target=payments,
        name=monthly,
        moment=moments,
        changed=st.sampled_from([0, 0, 100]),
        of_lines=st.booleans(),
        drafted=st.booleans(),
        trouble=st.booleans(),
    )
    def pay_an_invoice(self, name: str, moment: str, changed: int, of_lines: bool, drafted: bool, trouble: bool) -> str:
        """Of one over another sum its lines, where they are told once it is final, tell the fee cover."""
        of, invoice = self.arrangements[name], self.name("in")
        is_told_apart = of_lines or not changed
        payment = self._payment(name, of, moment, of.total + changed, of.fee_cover if is_told_apart else 0)
        lines = {"status": "open", "lines": lines_of(of.amount + changed, of.fee_cover) if of_lines else None}
        if drafted:
            draft = {"status": "draft", "lines": lines_of(of.amount, of.fee_cover)}
            self.tell(invoice_event(of, "invoice.created", invoice=invoice, **draft), Aside("processed"))
        told = {"invoice": invoice, "payment": payment, "at": time_of(moment), "amount_paid": of.total + changed}
        self.tell(invoice_paid_event(of, **told), Arrived(self.arrived[payment]))
        troubles = [invoice_event(of, "invoice.payment_failed", invoice=invoice, **lines)] if trouble else []
        for event in troubles:
            self.tell(event, Aside("processed"))
        at_last = invoice_event(of, invoice=invoice, **lines)
        self.tell(at_last, Aside("processed"))
        self.finals[payment] = [each["id"] for each in (*troubles, at_last)]
        return payment

    # ---- refunds and disputes

    @rule(target=refunds, payment=payments, percent=percents, moment=moments, at_once=st.booleans())
    def refund(self, payment: str, percent: int, moment: str, at_once: bool) -> str:
        """The processor gives back no more than what is left; of nothing, one that fails."""
        given = sum(
            r.amount for r in self.given.values() if r.payment == payment and r.status not in {"failed", "canceled"}
        )
        left, name = self.arrived[payment].amount - given, self.name("re")
        status = "failed" if left <= 0 else "succeeded" if at_once else "pending"
        self.given[name] = Given(payment, max(1, left * percent // 100), status)
        self._tell_refund(name, moment, "refund.created")
        return name

    @rule(name=refunds, status=st.sampled_from(["succeeded", "failed", "canceled"]), moment=moments)
    def end_refund(self, name: str, status: str, moment: str) -> None:
        refund = self.given[name]
        if (refund.status, status) in NEXT:
            refund.status = status
        # Else it is told again, as it is.
        self._tell_refund(name, moment, "refund.failed" if refund.status == "failed" else "refund.updated")

    def _tell_refund(self, name: str, moment: str, kind: str) -> None:
        refund, payment = self.given[name], self.arrived[self.given[name].payment]
        told = {"refund": name, "payment": payment.name, "status": refund.status, "kind": kind, "at": time_of(moment)}
        event = refund_event(self._gift_like(payment), refund.amount, **told)
        self.tell(event, Refund(name, payment.name, refund.amount, refund.status))

    def _gift_like(self, payment: Payment) -> Gift:
        return Gift(reference=f"gift_{payment.name[3:]}", campaign_id=payment.campaign, currency=payment.currency,
                    amount=payment.amount, livemode=False)  # fmt: skip

    @rule(
        target=disputes, payment=payments, percent=st.integers(1, 150), fee=st.sampled_from([0, 1500]), moment=moments
    )
    def dispute(self, payment: str, percent: int, fee: int, moment: str) -> str:
        amount = max(1, self.arrived[payment].amount * percent // 100)
        taken = self.taken[name := self.name("du")] = Taken(payment, amount, [], [])
        self._move(name, taken, -amount, fee, moment, is_all=True)
        return name

    def _move(self, name: str, taken: Taken, amount: int, fee: int, moment: str, *, is_all: bool) -> None:
        """All is settled in USD: what is in another currency, each time at another rate."""
        reference, is_exchanged = self.name("txn"), self.arrived[taken.payment].currency == "EUR"
        rate = Decimal(RATES[len(self.said) % len(RATES)]) if is_exchanged else Decimal(1)
        settled = int((amount * rate).quantize(Decimal(1), ROUND_HALF_UP)) or (1 if amount > 0 else -1)
        told = {"type": "adjustment", "exchange_rate": float(rate) if is_exchanged else None}
        taken.movements.append(movement(reference, settled, fee=fee, at=time_of(moment), **told))
        left = sum(moved for _, moved, _ in taken.moved) if amount > 0 else taken.amount
        taken.moved.append((reference, amount if is_all else in_gifts_currency(settled, rate, abs(left)), fee))
        event = dispute_event(self._gift_like(self.arrived[taken.payment]), *taken.movements, amount=taken.amount,
                              id=name, payment_intent=taken.payment, at=time_of(moment))  # fmt: skip
        self.tell(event, Moved(taken.payment, tuple(taken.moved)))

    @rule(name=disputes, percent=percents, fee_too=st.booleans())
    def reinstate(self, name: str, percent: int, fee_too: bool) -> None:
        """A part of what is left, or all of it. In a second after those before: rounding goes by what was left."""
        taken = self.taken[name]
        left = -sum(moved for _, moved, _ in taken.moved)
        if left > 0:
            back, fee = max(1, left * percent // 100), -taken.moved[0][2] if fee_too else 0
            moment = time_of(list(MOMENTS)[-1]) + timedelta(seconds=len(taken.moved))
            self._move(name, taken, back, fee, moment.isoformat(), is_all=back == left)

    # ---- the processor's own books

    @rule(payment=payments, fee=st.sampled_from([0, 59]), payout=st.sampled_from(["", "po_carried"]))
    def tell_the_fee(self, payment: str, fee: int, payout: str) -> None:
        reference, of = f"txn_of_{payment}", self.arrived[payment]
        if not any(isinstance(each.news, Fee) and each.news.transaction == reference for each in self.said):
            gift = self._gift_like(of)
            self.tell(charge_event(gift, reference, payment_intent=payment), Charge(payment))
            self._tell_transaction(movement(reference, of.amount, fee=fee), payment, payout)

    @rule(name=disputes, payout=st.sampled_from(["", "po_carried"]))
    def tell_a_movement(self, name: str, payout: str) -> None:
        self._tell_transaction(self.taken[name].movements[-1], self.taken[name].payment, payout)

    def _tell_transaction(self, told: Event, payment: str, payout: str) -> None:
        of = {**told, "source": {"id": "ch_1", "payment_intent": payment}}
        self.tell(transaction_event(None, of, payout=payout), Fee(told["id"], payment, told["fee"]))

    @rule(status=st.sampled_from(bookkeeper.LIFE_OF_A_PAYOUT), which=st.sampled_from(["po_1", "po_2"]))
    def pay_out(self, which: str, status: str) -> None:
        self.tell(payout_event(which, 5000, status=status, kind="payout.updated"), Payout(which, status))

    # ---- what is not ours

    @rule(gift=asked)
    def pay_to_a_stranger(self, gift: str) -> None:
        """Another shop on the same account; and its refund."""
        payment = self.name("pi")
        self.tell(checkout_event(self.gifts[gift], payment=payment, metadata={}), Aside("foreign"))
        self.tell(refund_event(self.gifts[gift], 1, payment=payment), Aside("foreign"))

    @rule(gift=asked)
    def pay_in_the_other_mode(self, gift: str) -> None:
        self.tell({**checkout_event(self.gifts[gift]), "livemode": True}, Aside("wrong_mode"))

    # ---- deliveries, workers, staff

    @precondition(lambda self: self.said)
    @rule(some=st.lists(positions, min_size=1, max_size=12), size=st.sampled_from([0, 1, 3, 500]))
    def deliver(self, some: list[int], size: int) -> None:
        """Any of them, the latest being 0, also again; then a worker takes so many."""
        for position in some:
            self._deliver(self.said[-1 - position % len(self.said)])
        if size:
            self.process(size)

    def _deliver(self, said: Said) -> None:
        inbox.receive(processor="stripe", body=said.body, signature=signature_of(said.body))
        said.delivered = True

    @rule(size=st.sampled_from([1, 3, 500]))
    def process(self, size: int) -> None:
        if inbox.process_batch(limit=size):
            self.compare()

    @rule(long=st.booleans())
    def let_time_pass(self, long: bool) -> None:
        """Minutes, and what waits is due; or days, and nobody waits for it any more."""
        self.time.shift(DAYS if long else A_FEW_MINUTES)
        if "waiting" in self.states.values():
            inbox.drain()
            self.compare()

    @precondition(lambda self: self.states)
    @rule(position=positions)
    def replay(self, position: int) -> None:
        inbox.replay(self._row(sorted(self.states), position))
        self.compare()

    @precondition(lambda self: "quarantined" in self.states.values())
    @rule(position=positions)
    def accept(self, position: int) -> None:
        self._accept(self._row(self._quarantined(), position))
        self.compare()

    @precondition(lambda self: "quarantined" in self.states.values())
    @rule(position=positions)
    def dismiss(self, position: int) -> None:
        inbox.dismiss(self._row(self._quarantined(), position), user=self.staff, reason="not wanted")
        self.compare()

    def _quarantined(self) -> list[str]:
        return sorted(identity for identity, state in self.states.items() if state == "quarantined")

    def _row(self, some: list[str], position: int) -> InboxEvent:
        return InboxEvent.objects.get(event_id=some[position % len(some)])

    def _accept(self, row: InboxEvent) -> bool:
        try:
            inbox.accept(row, user=self.staff)
        except inbox.CannotDecide:
            return False
        for said in self.said:
            if said.identity == row.event_id and isinstance(said.news, Arrived):
                self._divide_as_known(said, said.news.payment)
        return True

    def _divide_as_known(self, said: Said, payment: Payment) -> None:
        """A payment that staff book before its invoice is told as it was at last has the monthly gift's fee cover."""
        finals = self.finals.get(payment.name, [])
        if finals and not any(self.states.get(identity) == "processed" for identity in finals):
            asked = self.arrangements[payment.asked_for]
            share = math.ceil(Fraction(asked.fee_cover * payment.amount, asked.total))
            cover = asked.fee_cover if payment.amount > asked.fee_cover else min(share, payment.amount - 1)
            self.arrived[payment.name] = replace(payment, cover=cover)
            said.news = Arrived(self.arrived[payment.name])

    # ---- money by hand, and months that are over

    @precondition(lambda self: len(self.entered) < MOST_BY_HAND)
    @rule(target=by_hand, campaign=campaigns, amount=amounts, large=st.booleans(), moment=moments)
    def enter_an_offline_gift(self, campaign: str, amount: int, large: bool, moment: str) -> str:
        """A large one waits for the colleague."""
        amount, of = amount + (LIMIT if large else 0), self.campaigns[campaign]
        day, reference = time_of(moment).astimezone(ZoneInfo(of.time_zone)).date(), self.name("slip")
        told = {"reason": "it came", "method": "cash", "user": self.staff}
        request = offline.record_gift(campaign=of, amount=amount, day=day, reference=reference, **told)
        name, month = f"test_mode:{campaign}:{reference}", f"{day:%Y-%m}"
        payment = Payment(name, str(request.gift_id), campaign, month, str(of.currency), amount, 0, "offline_gift")
        self.arrived[name] = payment
        self._entered(name, request, Arrived(payment), waits=large)
        return name

    def _entered(self, name: str, request: OfflineRequest, news: News, *, waits: bool) -> None:
        if waits:
            self.to_approve[name] = (request, news)
        else:
            self.entered.append(news)
            self.compare()

    @precondition(lambda self: len(self.entered) < MOST_BY_HAND)
    @rule(payment=st.one_of(payments, by_hand), percent=percents, gives=st.booleans())
    def adjust(self, payment: str, percent: int, gives: bool) -> None:
        """Of what is booked as much as is left may be taken, and as much as was taken be given again."""
        of, reference = self.arrived[payment], self.name("note")
        amount = max(1, of.amount * percent // 100) * (1 if gives else -1)
        entry = LedgerEntry.objects.filter(reference=payment, kind=of.kind).select_related("gift", "campaign").first()
        if entry is None:
            self._adjust_campaign(of, amount)
            return
        allowed = self._may_adjust(payment, amount)
        name = f"test_mode:{of.campaign}:{reference}"
        news = Adjustment(name, payment, "", of.currency, amount)
        told = {"reason": "it bounced", "user": self.staff, "reference": reference, "gift": entry.gift}
        try:
            request = offline.record_adjustment(campaign=entry.campaign, amount=amount, day=self._today(of), **told)
        except offline.OfflineRefused:
            assert not allowed
        else:
            assert allowed
            self._entered(name, request, news, waits=abs(amount) > LIMIT)

    def _adjust_campaign(self, of: Payment, amount: int) -> None:
        """Of no gift: it moves no bar, and has no limit but the colleague's."""
        day, reference = self._today(of), self.name("note")
        told = {"reason": "rounding", "user": self.staff, "reference": reference, "day": day}
        request = offline.record_adjustment(campaign=self.campaigns[of.campaign], amount=amount, **told)
        name = f"test_mode:{of.campaign}:{reference}"
        news = Adjustment(name, "", f"{day:%Y-%m}", of.currency, amount)
        self._entered(name, request, news, waits=abs(amount) > LIMIT)

    def _today(self, of: Payment) -> Any:
        return timezone.now().astimezone(ZoneInfo(CAMPAIGNS[of.campaign][1])).date()

    def _may_adjust(self, payment: str, amount: int) -> bool:
        sums = bookkeeper.held(bookkeeper.ledger(self._told()), payment)
        left = max(0, sums.charged + sums.adjusted - sums.refunded - max(0, sums.disputed))
        return -left <= amount <= max(0, -sums.adjusted)

    @precondition(lambda self: self.to_approve)
    @rule(position=positions, alone=st.booleans())
    def approve(self, position: int, alone: bool) -> None:
        """By the colleague; who entered it is refused, and so is what is not left any more."""
        name = list(self.to_approve)[position % len(self.to_approve)]
        request, news = self.to_approve[name]
        of_a_gift = isinstance(news, Adjustment) and bool(news.payment)
        allowed = not alone and (not of_a_gift or self._may_adjust(news.payment, news.amount))
        try:
            offline.approve(request, user=self.staff if alone else self.colleague)
        except offline.OfflineRefused:
            assert not allowed
        else:
            assert allowed
            del self.to_approve[name]
            self.entered.append(news)
            self.compare()

    @precondition(lambda self: self.to_approve)
    @rule(position=positions)
    def reject(self, position: int) -> None:
        name = list(self.to_approve)[position % len(self.to_approve)]
        offline.reject(self.to_approve.pop(name)[0], user=self.colleague, reason="never seen at the bank")

    @precondition(lambda self: len(self.closed) < MOST_CLOSED)
    @rule(campaign=campaigns, month=st.sampled_from(["2024-11", "2024-12", "2025-01"]))
    def close_a_month(self, campaign: str, month: str) -> None:
        """Once, and when it is over."""
        is_over = f"{timezone.now().astimezone(ZoneInfo(CAMPAIGNS[campaign][1])):%Y-%m}" > month
        told = {"user": self.staff, "in_spite_because": "the auditor waits"}
        try:
            made = closing.close(campaign=self.campaigns[campaign], month=Month.parse(month), **told)
        except closing.CannotClose:
            assert not is_over or (campaign, month) in self.closed
        else:
            assert is_over
            assert (campaign, month) not in self.closed
            self.closed[campaign, month] = months.closed(made)

    # ---- the books

    def _told(self) -> list[News]:
        """What is to be in the books: the news that were processed, and what staff entered and need not wait for."""
        return [said.news for said in self.said if self.states.get(said.identity) == "processed"] + self.entered

    def compare(self) -> None:
        """What stands in the books is what the bookkeeper makes of all that was processed."""
        self.states = dict(fetch("SELECT event_id, state FROM donations_inboxevent"))
        told = self._told()
        entries = bookkeeper.ledger(told)
        rows = fetch(
            "SELECT kind, reference, amount, currency, goal_amount, campaign_month, gift FROM donations_ledgerentry"
        )
        owner = {reference: gift for kind, reference, *_, gift in rows if kind in {"gift", "offline_gift"}}
        payment_of = {None: ""} | {gift: payment for payment, gift in owner.items()}
        booked = {(k, r): bookkeeper.Entry(payment_of[gift], *rest) for k, r, *rest, gift in rows}
        assert booked == entries
        self._compare_gifts(told, entries, owner)

    def _compare_gifts(self, told: list[News], entries: bookkeeper.Ledger, owner: dict[str, str]) -> None:
        held = {payment: bookkeeper.held(entries, payment) for payment in owner}
        states = {gift: (status, *sums) for gift, status, *sums in fetch(STATES)}
        wanted = {gift: ("confirmed", h.charged, h.adjusted, h.refunded, h.disputed, h.counted)
                  for payment, gift in owner.items() if (h := held[payment])}  # fmt: skip
        without = {gift: (of.status, 0, 0, 0, 0, 0) for gift, of in bookkeeper.without_money(told).items()}
        assert states == without | wanted
        found = {tuple(row[:3]): dict(zip(bookkeeper.SUMS, row[3:], strict=True)) for row in fetch(MONTHS)}
        shown = {key: sums for key, sums in found.items() if any(sums.values())}
        assert shown == bookkeeper.months(told, held, set(wanted))

    def teardown(self) -> None:
        try:
            # Not after a failure: it would be told instead of it.
            if sys.exc_info()[0] is None:
                self.settle_everything()
        finally:
            transaction.set_rollback(True)
            self.story.__exit__(None, None, None)
            self.travel.stop()

    def settle_everything(self) -> None:
        """All is delivered; what still stands aside has its reason; staff accept what they can, and all is booked."""
        for said in self.said:
            if not said.delivered:
                self._deliver(said)
        self._wait()
        for identity in self._left_aside():
            inbox.replay(InboxEvent.objects.get(event_id=identity))
        self._wait()
        self._expect_reasons()
        while sum(self._accept(row) for row in InboxEvent.objects.filter(state="quarantined").order_by("pk")):
            self._wait()
        self._expect_all_booked()

    def _wait(self) -> None:
        """Until nothing moves."""
        inbox.drain()
        waiting, before = InboxEvent.objects.filter(state="waiting"), -1
        while (still := waiting.count()) and still != before:
            before = still
            self.time.shift(A_FEW_MINUTES)
            inbox.drain()
        self.compare()

    def _left_aside(self) -> list[str]:
        return sorted(identity for identity, state in self.states.items() if state in {"quarantined", "foreign"})

    def _expect_reasons(self) -> None:
        """Nothing is aside that could be booked, before staff accept anything more."""
        booked = {said.news.payment.name for said in self._all("processed") if isinstance(said.news, Arrived)}
        asked = {self.arrived[payment].asked_for for payment in booked}
        dismissed = {said.news.name for said in self._all("dismissed") if isinstance(said.news, Refund)}
        dismissed_of = {self.given[name].payment for name in dismissed}
        for said in self.said:
            news, state = said.news, self.states[said.identity]
            if isinstance(news, Aside):
                assert state in {news.state, "dismissed"}
            elif isinstance(news, Arrived) and state == "quarantined":
                of = self.gifts[news.payment.asked_for]
                assert news.payment.asked_for in asked or news.payment.amount != of.total
            elif payment := bookkeeper.about(news):
                # A refund may be held up by one whose end was dismissed.
                held_up = isinstance(news, Refund) and payment in dismissed_of
                assert state in {"processed", "dismissed"} or payment not in booked or held_up
            else:
                assert state in {"processed", "dismissed"}

    def _all(self, state: str) -> list[Said]:
        return [said for said in self.said if self.states.get(said.identity) == state]

    def _expect_all_booked(self) -> None:
        """All is booked but what staff dismissed, and what belongs to it; and the whole is without drift."""
        dismissed = {said.identity for said in self._all("dismissed")}
        kept = [said.news for said in self.said if said.identity not in dismissed] + self.entered
        payments = {news.payment.name for news in kept if isinstance(news, Arrived)}
        told = [news for news in kept if bookkeeper.about(news) in payments | {""}]
        refunds_dismissed = {news.payment for said in self._all("dismissed") if isinstance(news := said.news, Refund)}
        booked = set(LedgerEntry.objects.values_list("kind", "reference"))
        assert booked ^ bookkeeper.ledger(told).keys() == set() or refunds_dismissed
        assert dict(fetch("SELECT reference, status FROM donations_payout")) == bookkeeper.payouts(told)
        monthly = dict.fromkeys(self.arrangements, ("pending", None)) | bookkeeper.arrangements(told)
        now = fetch("SELECT reference, status, now_amount + now_fee_cover FROM donations_recurringgift")
        assert {reference: (status, asks) for reference, status, asks in now} == monthly
        assert [words for made in self.closed.values() for words in months.differences(made)] == []
        assert projections.drift() == []
        assert recurring.drift() == []
        connection.check_constraints()


NEXT = {("pending", "succeeded"), ("pending", "failed"), ("pending", "canceled"), ("succeeded", "failed")}
STATES = "SELECT gift_id, status, charged, adjusted, refunded, disputed, counted FROM donations_giftstate"
MONTHS = f"SELECT campaign_id, month, currency, {', '.join(bookkeeper.SUMS)} FROM donations_monthtotal"


def in_gifts_currency(settled: int, rate: Decimal, left: int) -> int:
    """What was exchanged, half a unit rounded up; all that is left, where that is less than a settled unit away."""
    if abs(left * rate - abs(settled)) < 1:
        return left if settled > 0 else -left
    exact = (abs(settled) / rate).quantize(Decimal(1), ROUND_HALF_UP)
    return int(exact) if settled > 0 else -int(exact)


def fetch(sql: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


@pytest.fixture
def house() -> Iterator[None]:
    """What a story begins with. What is quarantined on purpose would fill the output of a failure."""
    log = logging.getLogger("donations.inbox")
    log.setLevel(logging.CRITICAL)
    for slug, (currency, zone) in CAMPAIGNS.items():
        make_campaign(slug, currency=currency, time_zone=zone)
    for _ in range(2):
        make_staff()
    yield
    log.setLevel(logging.NOTSET)


@pytest.mark.slow
@pytest.mark.sqlite  # twenty thousand steps need a minute there; what PostgreSQL does alone has tests of its own
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("house")
def test_the_books_are_right_after_every_step_of_any_story() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Books,
        settings=settings(
            max_examples=STORIES[connection.vendor], stateful_step_count=STEPS, suppress_health_check=list(HealthCheck)
        ),
    )
