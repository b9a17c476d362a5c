"""What must stand in the books, by a bookkeeper of our own: a few plain rules over what the events say.

Written apart from the code that it is compared with, and from the processor's wire format. Amounts are minor units.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

CAME_BACK = {"failed", "canceled"}
WITHOUT_MONEY = ["awaiting", "expired", "failed"]  # the later stands
LIFE_OF_A_MONTHLY_GIFT = [
    *("pending", "expired", "incomplete", "trialing", "active", "past_due", "unpaid", "paused"),
    *("incomplete_expired", "canceled"),
]
LIFE_OF_A_PAYOUT = ["pending", "in_transit", "paid", "canceled", "failed"]


@dataclass(frozen=True)
class Payment:
    """Money that a donor gave: for what was asked, in the month that it arrived in. `cover` is part of the amount.

    `kind` is the ledger's: of a gift that came by hand another one.
    """

    name: str
    asked_for: str
    campaign: str
    month: str
    currency: str
    amount: int
    cover: int
    kind: str = "gift"


# ---- what an event says


@dataclass(frozen=True)
class Arrived:
    payment: Payment


@dataclass(frozen=True)
class NoMoney:
    """A checkout that ended, for now or for good, without money; `amount` would have come."""

    gift: str
    status: str
    campaign: str
    month: str
    currency: str
    amount: int


@dataclass(frozen=True)
class Refund:
    name: str
    payment: str
    amount: int
    status: str


@dataclass(frozen=True)
class Moved:
    """What a dispute has moved so far: (transaction, signed amount in the payment's currency, fee)."""

    payment: str
    movements: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Fee:
    """What the processor kept of a movement; 0 is told, too."""

    transaction: str
    payment: str
    fee: int


@dataclass(frozen=True)
class Charge:
    """That there is a fee, not how much."""

    payment: str


@dataclass(frozen=True)
class Arrangement:
    """The state of a monthly gift; `at` is None where its checkout told it. `asks` are its items' sums, if any."""

    name: str
    status: str
    at: datetime | None
    asks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Payout:
    name: str
    status: str


@dataclass(frozen=True)
class Adjustment:
    """What staff put right, signed: of a payment, or of a campaign alone, in the month of its day."""

    name: str
    payment: str
    month: str
    currency: str
    amount: int


@dataclass(frozen=True)
class Aside:
    """Nothing to be booked: an invoice, a stranger's payment, an event of the other mode. `state` is its end."""

    state: str


News = Arrived | NoMoney | Refund | Moved | Fee | Charge | Arrangement | Payout | Adjustment | Aside


def about(news: News) -> str:
    """The payment without which it cannot be booked; empty where it needs none."""
    return news.payment if isinstance(news, (Refund, Moved, Fee, Charge, Adjustment)) else ""


# ---- what the books must say


@dataclass(frozen=True)
class Entry:
    payment: str
    amount: int
    currency: str
    goal: int
    month: str


Ledger = dict[tuple[str, str], Entry]  # by kind and reference


def ledger(told: Iterable[News]) -> Ledger:
    """Every entry that these make, whatever their order, and however often each is told."""
    told = list(told)
    payments = {news.payment.name: news.payment for news in told if isinstance(news, Arrived)}
    made: Ledger = {}
    for each in payments.values():
        goal = max(0, each.amount - each.cover)
        made[each.kind, each.name] = Entry(each.name, each.amount, each.currency, goal, each.month)
    for payment, kind, reference, amount in [*_refunds(told), *_moves(told)]:
        of = payments[payment]
        made[kind, reference] = Entry(payment, amount, "USD" if kind == "fee" else of.currency, 0, of.month)
    for news in told:
        if isinstance(news, Adjustment):
            month = payments[news.payment].month if news.payment else news.month
            made["adjustment", news.name] = Entry(news.payment, news.amount, news.currency, 0, month)
    return made


Line = tuple[str, str, str, int]  # payment, kind, reference, amount


def _refunds(told: list[News]) -> Iterable[Line]:
    seen: dict[str, list[Refund]] = {}
    for news in told:
        if isinstance(news, Refund):
            seen.setdefault(news.name, []).append(news)
    for name, sightings in seen.items():
        ever, one = {news.status for news in sightings}, sightings[0]
        if "succeeded" in ever:
            yield one.payment, "refund", name, -one.amount
            if ever & CAME_BACK:
                yield one.payment, "refund_reversal", name, one.amount


def _moves(told: list[News]) -> Iterable[Line]:
    for news in told:
        if isinstance(news, Moved):
            for transaction, amount, fee in news.movements:
                if amount:
                    yield news.payment, f"dispute_{'withdrawn' if amount < 0 else 'reinstated'}", transaction, amount
                if fee:
                    yield news.payment, "fee", transaction, -fee
        if isinstance(news, Fee) and news.payment and news.fee:
            yield news.payment, "fee", news.transaction, -news.fee


@dataclass(frozen=True)
class Held:
    """What became of one payment."""

    charged: int
    adjusted: int
    refunded: int
    disputed: int
    counted: int


def held(entries: Ledger, payment: str) -> Held:
    """The sums of one payment; it counts what we still hold of it, without its cover."""
    sums: Counter[str] = Counter()
    for (kind, _), entry in entries.items():
        if entry.payment == payment:
            sums[kind.split("_")[0]] += entry.amount
            sums["goal"] += entry.goal
    charged = sums["gift"] + sums["offline"]
    still = charged + sums["refund"] + sums["dispute"] + sums["adjustment"]
    return Held(charged, sums["adjustment"], -sums["refund"], -sums["dispute"], max(0, min(sums["goal"], still)))


Month = tuple[str, str, str]  # campaign, month, currency
SUMS = ("raised", "gifts", "charged", "refunded", "refunds", "disputed", "awaiting", "awaiting_gifts")


def months(told: Iterable[News], sums: Mapping[str, Held], confirmed: set[str]) -> dict[Month, dict[str, int]]:
    """The sums of every month: those of its payments, and what is on its way for gifts that have none."""
    told, found = list(told), {}
    for each in {news.payment for news in told if isinstance(news, Arrived)}:
        of, month = sums[each.name], found.setdefault((each.campaign, each.month, each.currency), Counter[str]())
        month.update(raised=of.counted, gifts=of.counted > 0, charged=of.charged)
        month.update(refunded=of.refunded, refunds=of.refunded > 0, disputed=of.disputed)
    for gift, waits in without_money(told).items():
        if waits.status == "awaiting" and gift not in confirmed:
            month = found.setdefault((waits.campaign, waits.month, waits.currency), Counter[str]())
            month.update(awaiting=waits.amount, awaiting_gifts=1)
    return {key: {name: int(month[name]) for name in SUMS} for key, month in found.items() if any(month.values())}


def without_money(told: Iterable[News]) -> dict[str, NoMoney]:
    """How each gift's checkout stands where no money came; of two that wait, the one in the earlier month."""
    found: dict[str, NoMoney] = {}
    for news in told:
        if isinstance(news, NoMoney):
            before = found.get(news.gift, news)
            later = WITHOUT_MONEY.index(news.status) - WITHOUT_MONEY.index(before.status)
            found[news.gift] = news if later > 0 or (later == 0 and news.month < before.month) else before
    return found


def arrangements(told: Iterable[News]) -> dict[str, tuple[str, int | None]]:
    """The status of each monthly gift, and all that it asks, if that is told.

    An end stands, else what was said last, else how its checkout ended.
    """
    found: dict[str, list[Arrangement]] = {}
    for news in told:
        if isinstance(news, Arrangement):
            found.setdefault(news.name, []).append(news)
    last = {name: max(all_of_one, key=_weight) for name, all_of_one in found.items()}
    return {name: (news.status, sum(news.asks) if news.asks else None) for name, news in last.items()}


def _weight(news: Arrangement) -> tuple[bool, bool, float, int, int]:
    ended = news.at is not None and news.status in {"incomplete_expired", "canceled"}
    moment = news.at.timestamp() if news.at else 0
    asks = sum(news.asks) if news.asks else -1
    return ended, news.at is not None, moment, LIFE_OF_A_MONTHLY_GIFT.index(news.status), asks


def payouts(told: Iterable[News]) -> dict[str, str]:
    """The status of each payout: one that failed stays failed."""
    found: dict[str, list[str]] = {}
    for news in told:
        if isinstance(news, Payout):
            found.setdefault(news.name, []).append(news.status)
    return {name: max(statuses, key=LIFE_OF_A_PAYOUT.index) for name, statuses in found.items()}
