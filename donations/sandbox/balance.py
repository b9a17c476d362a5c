"""The account's balance: every movement of money is a balance transaction. https://docs.stripe.com/api/balance."""

from typing import Any

from . import account, money_objects
from .clock import midnight_after
from .errors import missing
from .lists import Filter
from .store import Tx

Json = dict[str, Any]
FEES = "Stripe processing fees"


def book(tx: Tx, kind: str, source: str, amount: int, currency: str, **more: Any) -> Json:
    """Write down a movement of an amount, in the currency that the balance is held in.

    `more` as `money_objects.balance_transaction` has it, with the fee in that currency. Available at once unless told.
    """
    now, terms = tx.clock.seconds(), account.of(tx)
    is_held = kind.startswith("payout")
    settled, held_in, rate = (amount, currency, None) if is_held else terms.settled(amount, currency)
    given = {"now": now, "available_on": now, "exchange_rate": rate} | more
    moved = tx.add(money_objects.balance_transaction(kind, source, settled, held_in, **given))
    tx.db.execute(
        "INSERT INTO balance (seq, created, currency, net, available_on) "
        "SELECT seq, created, ?, ?, ? FROM objects WHERE id = ?",
        (held_in, moved["net"], moved["available_on"], moved["id"]),
    )
    if kind != "payout" and terms.payouts == "daily":
        tx.schedule(max(moved["available_on"], midnight_after(now, 1)), "pay_out", held_in)
    return moved


def book_charge(tx: Tx, charge: Json, *, at_once: bool = False) -> str:
    """Write down a charge that succeeded, less the processor's fee. Returns the id of its balance transaction."""
    terms, now = account.of(tx), tx.clock.seconds()
    moved = book(
        tx,
        "charge" if is_card(charge) else "payment",
        charge["id"],
        charge["amount"],
        charge["currency"],
        fee=terms.fee(terms.settled(charge["amount"], charge["currency"])[0]),
        fee_description=FEES,
        description=charge["description"],
        available_on=now if at_once else midnight_after(now, terms.available_after_days),
    )
    return str(moved["id"])


def is_card(charge: Json) -> bool:
    return bool(charge["payment_method_details"]["type"] == "card")


def find(tx: Tx, transaction_id: str) -> Json:
    """A movement as it stands now. Raises ApiError 404."""
    moved = tx.get("balance_transaction", transaction_id)
    if moved is None:
        raise missing("balance_transaction", transaction_id)
    return shown(tx, moved)


def shown(tx: Tx, moved: Json) -> Json:
    """A movement with its status by now."""
    return moved | {"status": "available" if moved["available_on"] <= tx.clock.now() else "pending"}


def held(tx: Tx) -> Json:
    """What the account holds now: what no payout has taken yet."""
    now = tx.clock.now()
    sums = tx.db.execute(
        "SELECT currency, available_on <= ? AS usable, sum(net) FROM balance WHERE payout = '' GROUP BY 1, 2", (now,)
    ).fetchall()
    currencies = {row[0] for row in sums} or {"usd"}
    found = {(currency, bool(usable)): amount for currency, usable, amount in sums}
    available, pending = ({c: found.get((c, usable), 0) for c in currencies} for usable in (True, False))
    return money_objects.balance(available, pending)


def available(tx: Tx, currency: str) -> int:
    """The sum that could be paid out now, in a currency."""
    total = tx.db.execute(
        "SELECT coalesce(sum(net), 0) FROM balance WHERE payout = '' AND currency = ? AND available_on <= ?",
        (currency, tx.clock.now()),
    ).fetchone()
    return int(total[0])


def take(tx: Tx, currency: str, payout_id: str) -> None:
    """Have a payout hold all that is available."""
    tx.db.execute(
        "UPDATE balance SET payout = ? WHERE payout = '' AND currency = ? AND available_on <= ?",
        (payout_id, currency, tx.clock.now()),
    )


def of_payout(payout_id: str) -> Filter:
    """A filter: the movements that a payout holds, its own with them."""
    return Filter(((("balance", "payout = ?"), (payout_id,)),))
