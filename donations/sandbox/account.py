"""What is agreed with the processor: its fees, when money becomes available and is paid out, and how it retries."""

from dataclasses import asdict, dataclass, fields, replace
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

from . import amounts
from .errors import ApiError
from .store import Tx

Json = dict[str, Any]
CHOICES = {"capture": ("sync", "async"), "payouts": ("daily", "manual")}
MOST_DIGITS = 6
LARGEST_RATE = Decimal(100_000)


@dataclass(frozen=True, slots=True)
class Account:
    """Amounts are in minor units of whatever currency, a hundredth of a percent is a basis point.

    `capture`: async, a charge learns its balance transaction `capture_after` seconds later, by `charge.updated`;
    sync, it has it at once. `payouts`: daily, or manual (when the controls say so). `settlement_currency`: what the
    balance is held in, at `exchange_rate` units for one of any other currency; empty: each in its own.
    """

    fee_basis_points: int = 290
    fee_fixed: int = 30
    dispute_fee: int = 1500
    available_after_days: int = 2
    capture: str = "async"
    capture_after: int = 0
    payouts: str = "daily"
    retry_days: str = "3,5,7"
    settlement_currency: str = ""
    exchange_rate: str = "1"

    def fee(self, amount: int) -> int:
        """What the processor keeps of a payment, rounded half up."""
        return (amount * self.fee_basis_points + 5_000) // 10_000 + self.fee_fixed

    def retry_after(self, attempts: int) -> int | None:
        """In how many days a renewal is tried again after this many attempts; None: not any more."""
        days = [int(day) for day in self.retry_days.split(",") if day]
        return days[attempts - 1] if 0 < attempts <= len(days) else None

    def settled(self, amount: int, currency: str) -> tuple[int, str, float | None]:
        """An amount as the balance holds it: in which currency, and at which rate if it was exchanged.

        As Stripe tells a rate: the amount times it is the settled amount, both in minor units.
        """
        into = self.settlement_currency
        if not into or into == currency:
            return amount, currency, None
        places = amounts.exponent(into) - amounts.exponent(currency)
        rate = Decimal(self.exchange_rate).scaleb(places)
        whole = (amount * rate).quantize(Decimal(1), ROUND_HALF_UP)
        return int(whole), into, float(rate)


def of(tx: Tx) -> Account:
    """The account as it is set up now."""
    return Account(**tx.setting("account", {}))


def change(tx: Tx, given: dict[str, str]) -> Json:
    """Set what is given. Raises ApiError for what can't be."""
    known = [field.name for field in fields(Account)]
    unknown = sorted(given.keys() - set(known))
    if unknown:
        raise ApiError(f"{unknown[0]} is no setting: there are {', '.join(known)}", param=unknown[0])
    values: Json = {name: _value(name, text) for name, text in given.items()}
    account = replace(of(tx), **values)
    tx.set_setting("account", asdict(account))
    return asdict(account)


def _value(name: str, text: str) -> str | int:
    if name in CHOICES:
        if text not in CHOICES[name]:
            raise ApiError(f"{name} must be one of {', '.join(CHOICES[name])}", param=name)
        return text
    if name == "settlement_currency":
        return amounts.currency(text, name) if text else ""
    if name == "exchange_rate":
        return _rate(text)
    if name == "retry_days":
        return ",".join(str(_whole(name, day.strip())) for day in text.split(",") if day.strip())
    return _whole(name, text)


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
        raise ApiError(f"{name} must be a whole number of at most six digits", param=name)
    return int(text)


def _rate(text: str) -> str:
    try:
        rate = Decimal(text)
    except InvalidOperation:
        rate = Decimal(0)
    if not rate.is_finite() or not 0 < rate < LARGEST_RATE:
        raise ApiError("exchange_rate must be a number above 0, such as 1.08", param="exchange_rate")
    return text
