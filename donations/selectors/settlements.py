"""What the processor's own books say of a gift: each movement with its fee and net, and whether it reached the bank."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from donations.models import BalanceTransaction, Gift, Payout

PAYMENTS = ("charge", "payment")
MOST_BY_HAND = 100
Status = Payout.Status


@dataclass(frozen=True, slots=True)
class Settlement:
    """A movement on the balance. Amounts are signed, minor units of the settlement's `currency`.

    `payout` is the last that carried it: where one failed, the next that carried what came back. It is None while the
    money is on the balance; `failed_at` is when the payout's money came back, if it did. `may_be_paid_out`: payouts
    were made by hand since it was available, of which the processor does not tell what they carried. `came_back_from`:
    the ids of the payouts that carried it before `payout` and failed or were canceled, the first one first.
    """

    movement: BalanceTransaction
    payout: Payout | None
    failed_at: datetime | None
    may_be_paid_out: bool = False
    came_back_from: tuple[str, ...] = ()

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
    back = _failures([payout]).get(payout.reference)
    return back.created if back else None


def _with_payouts(movements: Iterable[BalanceTransaction]) -> list[Settlement]:
    rows = list(movements)
    payouts, backs = _carriers({row.payout for row in rows if row.payout})
    by_hand = _payouts_by_hand(row for row in rows if not row.payout)
    settled = []
    for row in rows:
        *before, carrier = _carriers_of(row.payout, payouts, backs)
        back = backs.get(carrier)
        later = any(
            (each.currency, each.livemode) == (row.currency, row.livemode) and each.created >= row.available_on
            for each in by_hand
        )
        failed = back.created if back else None
        settled.append(Settlement(row, payouts.get(carrier), failed, not row.payout and later, tuple(before)))
    return settled


def _carriers(references: set[str]) -> tuple[dict[str, Payout], dict[str, BalanceTransaction]]:
    """These payouts with those that carried what came back of them; and the movements that brought it back."""
    payouts: dict[str, Payout] = {}
    backs: dict[str, BalanceTransaction] = {}
    while references:
        found = {each.reference: each for each in Payout.objects.filter(reference__in=references)}
        returned = _failures(found.values())
        payouts |= found
        backs |= returned
        references = {back.payout for back in returned.values() if back.payout} - payouts.keys()
    return payouts, backs


def _carriers_of(reference: str, payouts: dict[str, Payout], backs: dict[str, BalanceTransaction]) -> list[str]:
    """The payout, and those that carried on what came back of it, one after the other."""
    carriers = [reference]
    while (back := backs.get(carriers[-1])) and back.payout in payouts and back.payout not in carriers:
        carriers.append(back.payout)
    return carriers


def _payouts_by_hand(balance: Iterable[BalanceTransaction]) -> list[Payout]:
    """The payouts that staff made by hand since the first of these movements on the balance was available."""
    available = [row.available_on for row in balance if row.available_on <= timezone.now()]
    if not available:
        return []
    made = Payout.objects.filter(automatic=False, status__in=[Status.PAID, Status.IN_TRANSIT, Status.PENDING])
    return list(made.filter(created__gte=min(available)).order_by("-created")[:MOST_BY_HAND])


def _failures(payouts: Iterable[Payout]) -> dict[str, BalanceTransaction]:
    """The movements that brought these payouts' money back, looked up for those alone that failed: few do."""
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
    return {each.source: each for each in back}


def _where(settled: Settlement) -> str:
    movement, payout = settled.movement, settled.payout
    if not movement.payout:
        if movement.available_on > timezone.now():
            return f"on the processor’s balance, available from {_day(movement.available_on)}"
        if settled.may_be_paid_out:
            return "paid out by hand perhaps: of such a payout the processor does not tell what it carried"
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
