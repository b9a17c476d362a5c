"""Many payments at once, for measuring and for comparing books: as if they had been made one by one, long ago.

One payment is made the usual way in a store of its own. What that left there, with its ids, times and amounts replaced,
is what each of the many is: so they can't differ from what the sandbox makes. The same seed makes the same again.
"""

import json
import random
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import account, amounts, checkout, paying, refunds
from .cards import PLAIN
from .clock import DAY, Clock, midnight_after
from .errors import ApiError
from .payments import Payer
from .store import Store, Tx

Json = dict[str, Any]
DELIVERIES = ("missed", "delivered", "queued")
SUMS = (500, 1000, 1500, 2500, 2500, 5000, 10_000, 25_000)
MOST = 1_000_000
BATCH = 2_000
# What stands in the pattern for what each payment has of its own. No two are alike, and nothing else is like them.
MOMENT = 1_111_111_111
REFUNDED = MOMENT + 3 * DAY
AMOUNT = 76_543_210
GIFT, CAMPAIGN = "seeded-gift-reference", "seeded-campaign-name"
ID = re.compile(r'"((cs_test_a1|[a-z]+_[0-9]?)[A-Za-z0-9]{14,60})(?:_secret_[A-Za-z0-9]{25})?"')


@dataclass(frozen=True, slots=True)
class Plan:
    """What to make. `deliveries`: missed (nobody tries again), delivered, or queued (sent now).

    Payments lie between `first_days_ago` and `last_days_ago` of the sandbox's clock; the API forgets events after 30
    days. Every `refund_every`-th is refunded after three days; 0: none. `amount` 0: various. A payment's gift is
    `gift` with its number.
    """

    payments: int
    seed: int = 1
    currency: str = "usd"
    amount: int = 0
    first_days_ago: float = 29.0
    last_days_ago: float = 4.0
    refund_every: int = 0
    deliveries: str = "missed"
    gift: str = "gift_seeded_"
    campaign: str = "general"


@dataclass(frozen=True, slots=True)
class Seeded:
    """One payment that was made, by its ids; `refund` is empty if there was none."""

    gift: str
    session: str
    payment: str
    charge: str
    movement: str
    refund: str
    amount: int
    fee: int
    created: int


@dataclass(frozen=True, slots=True)
class Row:
    """A row of `objects` with gaps: texts, and between them the names of what belongs there."""

    kind: str
    id_name: str
    moment: str
    lookups: tuple[tuple[str, Sequence[str]], ...]
    texts: tuple[Sequence[str], Sequence[str], Sequence[str]]
    net: str
    available: str


Values = dict[str, str]


def seed(store: Store, plan: Plan) -> list[Seeded]:
    """Make them. Raises ApiError for a plan that can't be, or a seed that was used before."""
    _check(plan)
    with store.transaction() as tx:
        terms = account.of(tx)
        now = tx.clock.seconds()
    patterns = {refunded: _pattern(plan, terms, refunded=refunded) for refunded in (False, bool(plan.refund_every))}
    made: list[Seeded] = []
    several = _payments(plan, terms, now)
    while batch := [one for _, one in zip(range(BATCH), several, strict=False)]:
        with store.transaction() as tx:
            _write(tx, plan, patterns, batch)
        made += [_seeded(one) for one in batch]
    return made


def summary(plan: Plan, made: list[Seeded]) -> Json:
    """What was made, in sums."""
    back = [one.amount for one in made if one.refund]
    return {
        "payments": len(made),
        "amount": sum(one.amount for one in made),
        "fees": sum(one.fee for one in made),
        "refunds": len(back),
        "refunded": sum(back),
        "currency": plan.currency,
    }


def _check(plan: Plan) -> None:
    amounts.currency(plan.currency, "currency")
    if not 0 < plan.payments <= MOST:
        raise ApiError(f"payments must be between 1 and {MOST}", param="payments")
    if plan.deliveries not in DELIVERIES:
        raise ApiError(f"deliveries must be one of {', '.join(DELIVERIES)}", param="deliveries")
    if not 0 <= plan.last_days_ago <= plan.first_days_ago <= 10_000:
        raise ApiError("first_days_ago must not be less than last_days_ago, and that not below 0")
    if plan.refund_every and plan.last_days_ago < 3:
        raise ApiError("Refunds are made three days later: last_days_ago must be at least 3.", param="last_days_ago")
    amounts.check_total(plan.amount or SUMS[0], plan.currency)


# ---- the pattern


def _pattern(plan: Plan, terms: account.Account, *, refunded: bool) -> list[Row]:
    """What one payment leaves behind, with gaps."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "pattern.sqlite3", Clock())
        try:
            with store.transaction(at=MOMENT) as tx:
                tx.set_setting("account", _terms_of_pattern(terms))
                payment = _pay(tx, plan)
            if refunded:
                with store.transaction(at=REFUNDED) as tx:
                    refunds.create(tx, {"payment_intent": payment}, outcome="succeed")
            with store.transaction() as tx:
                return list(_rows(tx, terms))
        finally:
            store.close()


def _terms_of_pattern(terms: account.Account) -> Json:
    """The account's terms, with the capture at once: what was long ago is done."""
    return {"fee_basis_points": terms.fee_basis_points, "fee_fixed": terms.fee_fixed, "payouts": "manual"} | {
        "available_after_days": terms.available_after_days
    }


def _pay(tx: Tx, plan: Plan) -> str:
    price = {"currency": plan.currency, "unit_amount": AMOUNT, "product_data": {"name": "Gift"}}
    metadata = {"gift": GIFT, "campaign": CAMPAIGN}
    session = checkout.create(
        tx,
        {
            "mode": "payment",
            "submit_type": "donate",
            "client_reference_id": GIFT,
            "line_items": [{"price_data": price, "quantity": 1}],
            "success_url": "https://site.invalid/thanks/",
            "metadata": metadata,
            "payment_intent_data": {"metadata": metadata},
            "adaptive_pricing": {"enabled": False},
        },
        origin="https://sandbox.invalid",
    )
    paying.pay_by_card(tx, session["id"], PLAIN, Payer(None, None))
    return str(checkout.find(tx, session["id"])["payment_intent"])


def _rows(tx: Tx, terms: account.Account) -> Iterator[Row]:
    rows = tx.db.execute(
        "SELECT o.kind, o.id, o.created, o.lookups, o.body, o.hidden, b.net FROM objects o "
        "LEFT JOIN balance b ON b.seq = o.seq ORDER BY o.seq"
    ).fetchall()
    names: dict[str, str] = {}
    for kind, object_id, *_ in rows:
        names[object_id] = f"{kind}:{len(names)}"
    for _, _, _, _, body, hidden, _ in rows:
        for found, prefix in ID.findall(body + hidden):
            names.setdefault(found, f"{prefix}:{len(names)}")
    fee = terms.fee(AMOUNT)
    names |= {GIFT: "gift", CAMPAIGN: "campaign", str(AMOUNT): "amount", str(fee): "fee", str(AMOUNT - fee): "net"}
    available = midnight_after(MOMENT, terms.available_after_days)
    names |= {str(MOMENT): "created", str(MOMENT + DAY): "expires", str(REFUNDED): "refunded"}
    names |= {str(available): "available"}
    split = re.compile("|".join(sorted(map(re.escape, names), key=len, reverse=True)))

    def gaps(text: str) -> tuple[str, ...]:
        """Texts and names in turn, a text first."""
        parts, end = [], 0
        for match in split.finditer(text):
            parts += [text[end : match.start()], names[match[0]]]
            end = match.end()
        return (*parts, text[end:])

    for kind, object_id, created, found_by, body, hidden, net in rows:
        yield Row(
            kind,
            names[object_id],
            names[str(created)],
            tuple((name, gaps(value)) for name, value in json.loads(found_by).items()),
            (gaps(found_by), gaps(body), gaps(hidden)),
            "" if net is None else "net" if net > 0 else "amount",
            "available" if net and net > 0 else "refunded",
        )


# ---- the many


def _payments(plan: Plan, terms: account.Account, now: int) -> Iterator[Values]:
    """What each payment has of its own, the oldest first."""
    rng = random.Random(f"{plan.seed}:{plan.currency}")  # noqa: S311 (the same every time is what is wanted)
    start, length = now - plan.first_days_ago * DAY, (plan.first_days_ago - plan.last_days_ago) * DAY
    for number in range(1, plan.payments + 1):
        amount = plan.amount or rng.choice(SUMS)
        created = int(start + length * number / plan.payments)
        fee = terms.fee(amount)
        yield {
            "number": str(number),
            "bits": f"{rng.getrandbits(92):023x}",
            "refund": "1" if plan.refund_every and number % plan.refund_every == 0 else "",
            "gift": f"{plan.gift}{number}",
            "campaign": plan.campaign,
            "amount": str(amount),
            "fee": str(fee),
            "net": str(amount - fee),
            "created": str(created),
            "expires": str(created + DAY),
            "refunded": str(created + 3 * DAY),
            "available": str(midnight_after(created, terms.available_after_days)),
        }


PREFIXES = {
    "checkout.session": "cs_test_a1",
    "payment_intent": "pi_3",
    "payment_method": "pm_1",
    "charge": "ch_3",
    "refund": "re_3",
    "balance_transaction": "txn_3",
    "event": "evt_1",
}


def _ids(rows: list[Row], values: Values) -> None:
    """Give each object of a payment its id: the payment's own bits, and which of its objects it is."""
    for row in rows:
        values[row.id_name] = f"{PREFIXES[row.kind]}{values['bits']}{row.id_name.rpartition(':')[2]}"


class _Named(dict[str, str]):
    """Ids of what is no object of its own, such as a price: made when asked for."""

    def __missing__(self, name: str) -> str:
        prefix, _, number = name.rpartition(":")
        return f"{prefix}{self['bits']}x{number}"


def _write(tx: Tx, plan: Plan, patterns: dict[bool, list[Row]], batch: list[Values]) -> None:
    seq = tx.db.execute("SELECT coalesce(max(seq), 0) FROM objects").fetchone()[0]
    objects, found, moved, events = [], [], [], []
    for one in batch:
        rows = patterns[bool(one["refund"])]
        _ids(rows, one)
        values = _Named(one)
        for row in rows:
            seq += 1
            created = int(values[row.moment])
            found_by, body, hidden = (_filled(text, values) for text in row.texts)
            objects.append((seq, values[row.id_name], row.kind, created, found_by, body, hidden))
            found += [(row.kind, name, _filled(value, values), created, seq) for name, value in row.lookups]
            if row.net:
                net = int(values["net"]) if row.net == "net" else -int(values["amount"])
                moved.append((seq, created, plan.currency, net, int(values[row.available])))
            if row.kind == "event":
                events.append((values[row.id_name], "queued" if plan.deliveries == "queued" else "missed"))
    if plan.deliveries == "delivered":
        true = "true"
        found = [(k, name, true if name == "delivery_success" else value, c, s) for k, name, value, c, s in found]
        events = []
    _insert(tx, objects, found, moved, events)
    if account.of(tx).payouts == "daily":
        for available_on in {one[4] for one in moved}:
            tx.schedule(available_on, "pay_out", plan.currency)


def _insert(tx: Tx, objects: list[Any], found: list[Any], moved: list[Any], events: list[Any]) -> None:
    known = tx.db.execute("SELECT 1 FROM objects WHERE id = ?", (objects[0][1],)).fetchone()
    if known:
        raise ApiError("This seed was used before: choose another.", param="seed")
    tx.db.executemany(
        "INSERT INTO objects (seq, id, kind, created, lookups, body, hidden) VALUES (?, ?, ?, ?, ?, ?, ?)", objects
    )
    tx.db.executemany("INSERT INTO lookups (kind, name, value, created, seq) VALUES (?, ?, ?, ?, ?)", sorted(found))
    tx.db.executemany("INSERT INTO balance (seq, created, currency, net, available_on) VALUES (?, ?, ?, ?, ?)", moved)
    tx.db.executemany("INSERT INTO deliveries (event, state, next_at) VALUES (?, ?, 0)", events)


def _filled(parts: Sequence[str], values: Values) -> str:
    """Texts and names in turn, with each name's value."""
    return "".join([values[part] if index % 2 else part for index, part in enumerate(parts)])


def _seeded(values: Values) -> Seeded:
    def of(kind: str) -> str:
        return next((value for name, value in values.items() if name.startswith(f"{kind}:")), "")

    return Seeded(
        gift=values["gift"],
        session=of("checkout.session"),
        payment=of("payment_intent"),
        charge=of("charge"),
        movement=of("balance_transaction"),
        refund=of("refund"),
        amount=int(values["amount"]),
        fee=int(values["fee"]),
        created=int(values["created"]),
    )
