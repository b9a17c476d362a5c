"""What the processor's own books say of a gift: each movement with its fee and net, and whether it reached the bank."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from donations.models import BalanceTransaction, Gift, Payout

PAYMENTS = ("charge", "payment")
Status = Payout.Status


@dataclass(frozen=True, slots=True)
class Settlement:
    """A movement on the balance. Amounts are signed, minor units of the settlement's `currency`.

    `payout` is None while it is on the balance; `failed_at` is when the payout's money came back, if it did.
    """

    movement: BalanceTransaction
    payout: Payout | None
    failed_at: datetime | None

    @property
    def bank(self) -> str:
        """Where the money is, in words."""
        return _where(self)


def settlements_of(gift: Gift) -> list[Settlement]:
    """A gift's movements at the processor, the oldest first."""
    return _with_payouts(BalanceTransaction.objects.filter(gift=gift).order_by("created", "pk"))


def settlements_in(payout: Payout) -> list[BalanceTransaction]:
    """What a payout carried to the bank, its own movement left out, the oldest first."""
    carried = BalanceTransaction.objects.filter(payout=payout.reference, processor=payout.processor)
    return list(carried.exclude(source=payout.reference, type="payout").order_by("created", "pk"))


def failed_at(payout: Payout) -> datetime | None:
    """When a payout's money came back, by the movement that brought it."""
    return _failures([payout]).get(payout.reference)


def _with_payouts(movements: Iterable[BalanceTransaction]) -> list[Settlement]:
    rows = list(movements)
    references = {row.payout for row in rows if row.payout}
    payouts = {each.reference: each for each in Payout.objects.filter(reference__in=references)} if references else {}
    failed = _failures(payouts.values())
    return [Settlement(row, payouts.get(row.payout), failed.get(row.payout)) for row in rows]


def _failures(payouts: Iterable[Payout]) -> dict[str, datetime]:
    """Payouts fail seldom: only of those that did is it looked up when."""
    failed = {each.reference: each for each in payouts if each.status in {Status.FAILED, Status.CANCELED}}
    if not failed:
        return {}
    since = min(each.created for each in failed.values())
    first = next(iter(failed.values()))
    back = BalanceTransaction.objects.filter(
        processor=first.processor,
        livemode=first.livemode,
        created__gte=since,
        type__in=["payout_failure", "payout_cancel"],
        source__in=failed,
    )
    return dict(back.values_list("source", "created"))


def _where(settled: Settlement) -> str:
    movement, payout = settled.movement, settled.payout
    if not movement.payout:
        if movement.available_on > timezone.now():
            return f"on the processor’s balance, available from {_day(movement.available_on)}"
        return "on the processor’s balance, in no payout yet"
    if payout is None:
        return f"in the payout {movement.payout}, of which nothing is known yet"
    if payout.status in {Status.FAILED, Status.CANCELED}:
        what = "failed" if payout.status == Status.FAILED else "was canceled"
        when = f" on {_day(settled.failed_at)}" if settled.failed_at else ""
        return f"its payout {what}{when}; the money is back on the processor’s balance"
    if payout.status == Status.PAID:
        return f"reached the bank on {_day(payout.arrival)}"
    return f"on its way to the bank, expected on {_day(payout.arrival)}"


def _day(moment: datetime) -> str:
    """The processor's days are UTC."""
    return f"{moment:%-d %B %Y}"
