"""What is agreed with the processor: its fees, when money becomes available and is paid out, and how it retries."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from .errors import ApiError
from .store import Tx

Json = dict[str, Any]
CAPTURES = ("sync", "async")
SCHEDULES = ("daily", "manual")


@dataclass(frozen=True, slots=True)
class Account:
    """Amounts are in minor units of whatever currency, a hundredth of a percent is a basis point.

    `capture`: async, a charge learns its balance transaction `capture_after` seconds later, by `charge.updated`;
    sync, it has it at once. `payouts`: daily, or manual (when the controls say so).
    """

    fee_basis_points: int = 290
    fee_fixed: int = 30
    dispute_fee: int = 1500
    available_after_days: int = 2
    capture: str = "async"
    capture_after: int = 0
    payouts: str = "daily"
    retry_days: str = "3,5,7"

    def fee(self, amount: int) -> int:
        """What the processor keeps of a payment, rounded half up."""
        return (amount * self.fee_basis_points + 5_000) // 10_000 + self.fee_fixed

    def retry_after(self, attempts: int) -> int | None:
        """In how many days a renewal is tried again after this many attempts; None: not any more."""
        days = [int(day) for day in self.retry_days.split(",") if day]
        return days[attempts - 1] if 0 < attempts <= len(days) else None


def of(tx: Tx) -> Account:
    """The account as it is set up now."""
    return Account(**tx.setting("account", {}))


def change(tx: Tx, given: dict[str, str]) -> Json:
    """Set what is given. Raises ApiError for what can't be."""
    known = {field.name: field.type for field in fields(Account)}
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise ApiError(f"{unknown[0]} is no setting: there are {', '.join(known)}", param=unknown[0])
    values: Json = {name: _value(name, text) for name, text in given.items()}
    account = replace(of(tx), **values)
    tx.set_setting("account", asdict(account))
    return asdict(account)


def _value(name: str, text: str) -> str | int:
    choices = {"capture": CAPTURES, "payouts": SCHEDULES}.get(name)
    if choices:
        if text not in choices:
            raise ApiError(f"{name} must be one of {', '.join(choices)}", param=name)
        return text
    parts = text.split(",") if name == "retry_days" and text else [text]
    if not all(part.isascii() and part.isdigit() and len(part) <= 6 for part in parts) and text != "":
        raise ApiError(f"{name} must be a whole number of at most six digits", param=name)
    if name == "retry_days":
        return text
    return int(text or "0")
