"""The publisher's staff: what they enter, approve, accept and dismiss, and what the books must therefore say."""

import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from donations import inbox, offline
from donations.models import Campaign, Gift, GiftState, InboxEvent, OfflineRequest
from tests.factories import make_staff
from tests.simulation.months import Months

LIMIT = 1_000_000  # minor units: what one person may enter alone, as the settings have it unless told otherwise
HOW = ["bank_transfer", "cash", "cheque"]


@dataclass(frozen=True)
class Entered:
    """What staff entered; `of` is the payment of the gift that it adjusts, or empty. Minor units, signed."""

    kind: str
    campaign: str
    reference: str  # as it stands in the ledger
    currency: str
    amount: int
    day: date
    of: str = ""


class Staff:
    """Two people, since some of what one enters another has to approve. `booked` is what must stand in the books."""

    def __init__(self, rng: random.Random, campaigns: list[Campaign]) -> None:
        self.rng, self.campaigns = rng, campaigns
        self.people = [make_staff(superuser=True) for _ in range(2)]
        self.entered = 0
        self.booked: list[Entered] = []
        self.accepted: set[str] = set()  # payments
        self.months = Months(rng, campaigns, self._is_waiting)
        self.waiting: list[tuple[OfflineRequest, Entered]] = []

    def enter_offline_gift(self) -> None:
        """Money came without a processor, by now or weeks ago; the same receipt is entered twice now and then."""
        campaign, amount = self.rng.choice(self.campaigns), self.rng.randint(100, 2 * LIMIT)
        day = self._today(campaign) - timedelta(days=self.rng.randint(0, 40))
        reference = self._reference()
        entered = self._entered("offline_gift", campaign, reference, amount, day)
        request = offline.record_gift(
            campaign=campaign, amount=amount, day=day, method=self.rng.choice(HOW), reference=reference,
            reason="it came", user=self.rng.choice(self.people),
        )  # fmt: skip
        self._keep(request, entered)

    def reverse_offline_gift(self) -> None:
        """A cheque bounced, whole or in part; one may bounce twice by mistake."""
        gifts = [each for each in self.booked if each.kind == "offline_gift"]
        of = self.rng.choice(gifts)
        state = GiftState.objects.select_related("gift").get(payment=of.reference)
        self._adjust(state.gift, of.reference, -of.amount if self.rng.random() < 0.5 else -self._part(of.amount))

    def adjust_gift(self, payment: str) -> None:
        """Of a gift by card something was given back by hand, or that is put right again."""
        state = GiftState.objects.select_related("gift").filter(payment=payment).first()
        if state is None:
            raise IndexError("its news have not come")
        sign = self.rng.choice([-1, -1, 1])
        self._adjust(state.gift, payment, sign * self._part(state.charged))

    def adjust_campaign(self) -> None:
        """It belongs to no gift, and moves no bar."""
        campaign, amount = self.rng.choice(self.campaigns), self.rng.choice([-1, 1]) * self._part(3 * LIMIT)
        day, reference = self._today(campaign), self._reference()
        entered = self._entered("adjustment", campaign, reference, amount, day)
        told = {"reference": reference, "reason": "rounding", "user": self.rng.choice(self.people)}
        self._keep(offline.record_adjustment(campaign=campaign, amount=amount, day=day, **told), entered)

    def _adjust(self, gift: Gift, payment: str, amount: int) -> None:
        campaign = next(each for each in self.campaigns if each.pk == gift.campaign_id)
        day, reference = self._today(campaign), self._reference()
        entered = self._entered("adjustment", campaign, reference, amount, day, of=payment)
        told = {"reference": reference, "reason": "it bounced", "user": self.rng.choice(self.people)}
        self._keep(offline.record_adjustment(campaign=campaign, gift=gift, amount=amount, day=day, **told), entered)

    def decide_about_offline(self) -> None:
        """The other person approves or rejects; whoever tries with what they entered themselves is refused."""
        request, entered = self.waiting[number := int(self.rng.random() * len(self.waiting))]
        mine, others = sorted(self.people, key=lambda user: user.pk != request.requested_by_id)
        how = self.rng.random()
        if how < 0.2:
            offline.approve(request, user=mine)
        elif how < 0.8:
            offline.approve(request, user=others)
            self.booked.append(entered)
            del self.waiting[number]
        else:
            offline.reject(request, user=others, reason="never seen at the bank")
            del self.waiting[number]

    def close_month(self) -> None:
        self.months.close(self.rng.choice(self.people))

    def _is_waiting(self, campaign: str, until: date) -> bool:
        return any(each.campaign == campaign and each.day <= until for _, each in self.waiting)

    # ---- what stands aside

    def decide_about(self, event: InboxEvent) -> None:
        """Accept, dismiss, or have it read again. What is not a payment is never dismissed: its payment decides."""
        how, is_payment = self.rng.random(), tells_of_payment(event)
        if how < 0.5:
            self._accept(event)
        elif how < 0.8 and is_payment:
            self._dismiss(event)
        else:
            inbox.replay(event)

    def decide_at_last(self, event: InboxEvent) -> None:
        """About payments alone: what else stands aside follows them."""
        if tells_of_payment(event):
            (self._accept if self.rng.random() < 0.5 else self._dismiss)(event)

    def _accept(self, event: InboxEvent) -> None:
        inbox.accept(event, user=self.rng.choice(self.people))
        if tells_of_payment(event):
            self.accepted.add(event.payment)

    def _dismiss(self, event: InboxEvent) -> None:
        inbox.dismiss(event, user=self.rng.choice(self.people), reason="given back by hand")

    def _keep(self, request: OfflineRequest, entered: Entered) -> None:
        if abs(entered.amount) > LIMIT:
            self.waiting.append((request, entered))
        else:
            self.booked.append(entered)

    def _entered(self, kind: str, campaign: Campaign, reference: str, amount: int, day: date, of: str = "") -> Entered:
        name = f"test_mode:{campaign.pk}:{reference}"
        return Entered(kind, campaign.pk, name, str(campaign.currency), amount, day, of)

    def _reference(self) -> str:
        """A new one, mostly; else one that was used, in other letters."""
        if self.entered and self.rng.random() < 0.1:
            return f"bank NO {self.rng.randint(1, self.entered)}"
        self.entered += 1
        return f"Bank no {self.entered}"

    def _part(self, amount: int) -> int:
        return self.rng.randint(1, max(1, amount))

    def _today(self, campaign: Campaign) -> date:
        return datetime.now(UTC).astimezone(ZoneInfo(campaign.time_zone)).date()


def tells_of_payment(event: InboxEvent) -> bool:
    """Whether it tells that money came."""
    return (event.facts or {}).get("kind") in {"paid", "invoice_paid"}
