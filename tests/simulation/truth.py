"""What must stand in our books, worked out apart from the code that is tested.

It reads the processor's own objects, and what the world remembers of what it did: what readers asked for and added for
the fee, what staff entered, approved and accepted. Of our books it reads entries and totals as they stand, and asks no
function of ours what they mean.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import F, Q, Sum

from donations.models import Gift, GiftState, InboxEvent, LedgerEntry, MonthTotal
from tests.simulation.staff import Entered
from tests.simulation.world import AskedFor, World, all_of

Json = dict[str, Any]
Movement = tuple[str, str, str]  # what kind of movement, of what, in which currency
Month = tuple[str, str, str]  # campaign, month, currency


@dataclass(frozen=True)
class Payment:
    """What somebody gave, by the processor or by hand; `goal` is what was not meant for the fee. Minor units."""

    name: str
    gift: str
    is_as_asked: bool
    campaign: str
    month: str
    currency: str
    amount: int
    goal: int


@dataclass
class Verdict:
    """What is in one of the two books alone, in words."""

    movements: int = 0
    lost: list[str] = field(default_factory=list)
    counted_twice: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not (self.lost or self.counted_twice or self.wrong)


class Theirs:
    """The processor's objects, by kind and id, and what they come to."""

    def __init__(self, world: World) -> None:
        self.world = world
        kinds = ("balance_transaction", "charge", "payment_intent", "invoice", "invoice_payment", "refund", "dispute")
        with world.store.transaction() as tx:
            self.of = {kind: {each["id"]: each for each in all_of(tx, kind)} for kind in kinds}
        invoices = {each["payment"]["payment_intent"]: each["invoice"] for each in self.of["invoice_payment"].values()}
        self.payments: dict[str, Payment] = {}
        self.sums: Counter[Movement] = Counter()
        self.held: Counter[str] = Counter()
        self.uncovered: list[str] = []
        moved = list(self.of["balance_transaction"].values())
        for each in moved:
            if each["type"] in {"charge", "payment"}:
                self._arrived(each, invoices)
        self._leave_out_what_is_not_booked()
        for each in moved:
            self._moved(each)
        for entered in world.staff.booked:
            self._entered(entered)

    def _arrived(self, moved: Json, invoices: dict[str, str]) -> None:
        """By its metadata it is of a gift, or of the monthly gift whose invoice it pays; else it is another shop's."""
        charge = self.of["charge"][moved["source"]]
        intent = self.of["payment_intent"][charge["payment_intent"]]
        told, invoice = intent["metadata"], self.of["invoice"].get(invoices.get(intent["id"], ""))
        if invoice:
            told = invoice["parent"]["subscription_details"]["metadata"]
        if not told:
            return
        unknown = AskedFor(told["campaign"], 0, int(told.get("fee_cover", 0)))
        asked = self.world.asked.get(told.get("gift") or told["recurring_gift"]) or unknown
        is_as_asked = charge["amount"] == asked.amount + asked.cover
        zone = ZoneInfo(self.world.zones[asked.campaign])
        currency = charge["currency"].upper()
        payment = Payment(
            name=intent["id"],
            gift=told.get("gift") or intent["id"],
            is_as_asked=is_as_asked or invoice is not None,
            campaign=asked.campaign,
            month=f"{datetime.fromtimestamp(moved['created'], UTC).astimezone(zone):%Y-%m}",
            currency=currency,
            amount=charge["amount"],
            goal=charge["amount"] - (covered(invoice) if invoice else asked.cover),
        )
        self.payments[payment.name] = payment
        same = moved["currency"] == charge["currency"]
        if is_as_asked and asked.cover and same and payment.amount - moved["fee"] < asked.amount:
            self.uncovered.append(f"of {payment} less than {asked.amount} arrived, in spite of its cover")

    def _leave_out_what_is_not_booked(self) -> None:
        """Of a gift's payments one that is as asked is booked by itself, unless another was; and what staff accepted.

        Which of several that is, their news decide, whose order is chance: there our own ledger is asked.
        """
        gifts: defaultdict[str, list[Payment]] = defaultdict(list)
        for payment in self.payments.values():
            gifts[payment.gift].append(payment)
        ours = set(LedgerEntry.objects.filter(kind="gift").values_list("reference", flat=True))
        for rivals in gifts.values():
            chosen = {each.name for each in rivals} & self.world.staff.accepted
            as_asked = sorted((each.name for each in rivals if each.is_as_asked), key=lambda name: name not in ours)
            one = [name for name in as_asked if name not in chosen][:1]
            if one and (one[0] in ours or not chosen):
                chosen.add(one[0])
            for each in rivals:
                if each.name not in chosen:
                    del self.payments[each.name]

    def _moved(self, moved: Json) -> None:
        """In the currency of the gift, whatever it was exchanged to. What is the account's own is not in our ledger.

        Of a refund its sum: one that never succeeded moved nothing in the end.
        """
        source, kind = str(moved["source"]), moved["type"]
        if kind in {"charge", "payment"}:
            charge = self.of["charge"][source]
            what, of, amount = ("gift", charge["payment_intent"]), charge, charge["amount"]
        elif source.startswith("re_"):
            refund = self.of["refund"][source]
            what, of, amount = ("refund", source), refund, refund["amount"] * (1 if moved["amount"] > 0 else -1)
        elif source.startswith("du_"):
            dispute = self.of["dispute"][source]
            what, of, amount = ("dispute", moved["id"]), dispute, of_dispute(dispute, moved)
        else:
            return
        payment = self.payments.get(of["payment_intent"])
        if payment and amount:
            self.sums[*what, payment.currency] += amount
            self.held[payment.name] += amount
        if payment and moved["fee"]:
            self.sums["fee", moved["id"], moved["currency"].upper()] -= moved["fee"]

    def _entered(self, told: Entered) -> None:
        """What staff entered: the day decides the month; an adjustment is of a gift, or of its campaign alone."""
        if told.kind == "offline_gift":
            month = f"{told.day:%Y-%m}"
            self.payments[told.reference] = Payment(
                name=told.reference,
                gift=told.reference,
                is_as_asked=True,
                campaign=told.campaign,
                month=month,
                currency=told.currency,
                amount=told.amount,
                goal=told.amount,
            )
        self.sums[told.kind, told.reference, told.currency] += told.amount
        self.held[told.reference if told.kind == "offline_gift" else told.of] += told.amount

    def counted(self, payment: Payment) -> int:
        """What we still hold of it, without what was meant for the fee."""
        return max(0, min(payment.goal, self.held[payment.name]))


def covered(invoice: Json) -> int:
    """What of an invoice is for the fee: here the line's name tells, which our code does not go by."""
    return sum(line["amount"] for line in invoice["lines"]["data"] if line["description"].endswith("Fee cover"))


def of_dispute(dispute: Json, moved: Json) -> int:
    """What a movement of a dispute is in the gift's currency, by the rate of its day.

    The processor tells it in the settlement's currency alone. It takes and returns whole amounts: where all that is
    disputed, or all that was taken, would have come to the same, that is it.
    """
    if moved["currency"] == dispute["currency"]:
        return int(moved["amount"])
    before, sign = 0, 1 if moved["amount"] > 0 else -1
    for each in dispute["balance_transactions"]:
        if each["id"] == moved["id"]:
            break
        before -= of_dispute(dispute, each)
    whole, rate = before if sign > 0 else dispute["amount"] - before, Fraction(str(moved["exchange_rate"]))
    if abs(whole * rate - abs(moved["amount"])) < 1:
        return sign * whole
    return sign * int(abs(moved["amount"]) / rate + Fraction(1, 2))


def of_ours() -> Counter[Movement]:
    """The same of our ledger."""
    names = {"gift": "gift", "refund": "refund", "refund_reversal": "refund", "fee": "fee"}
    names |= {"dispute_withdrawn": "dispute", "dispute_reinstated": "dispute"}
    names |= {"offline_gift": "offline_gift", "adjustment": "adjustment"}
    sums: Counter[Movement] = Counter()
    for kind, *rest, amount in LedgerEntry.objects.values_list("kind", "reference", "currency", "amount").iterator():
        reference, currency = rest
        sums[names[kind], reference, currency] += amount
    return sums


def compare(world: World) -> Verdict:
    """Both books side by side; then every gift, and every bar."""
    verdict, theirs, ours = Verdict(), Theirs(world), of_ours()
    verdict.movements, verdict.wrong = len(theirs.sums), theirs.uncovered
    for movement in sorted(theirs.sums.keys() | ours.keys()):
        wanted, found = theirs.sums[movement], ours[movement]
        if wanted == found:
            continue
        words = f"{movement}: there should be {wanted}, and we have {found}"
        list_of = verdict.lost if abs(found) < abs(wanted) else verdict.counted_twice
        list_of.append(words)
    _compare_gifts(verdict, theirs)
    _compare_bars(verdict, theirs)
    aside = InboxEvent.objects.filter(state__in=["quarantined", "foreign"])
    for row in aside.filter(Q(state="quarantined") | Q(payment__in=theirs.payments)):
        verdict.wrong.append(f"{row} stands aside in the end: {row.reason}")
    return verdict


def _compare_gifts(verdict: Verdict, theirs: Theirs) -> None:
    """Each gift counts what it should, in the month and with the cover that it should."""
    state = {"counted": F("state__counted"), "paid_as": F("state__payment")}
    gifts = Gift.objects.filter(state__status="confirmed").annotate(**state)
    for gift in gifts.iterator():
        payment = theirs.payments.get(gift.paid_as)
        if payment and gift.counted != theirs.counted(payment):
            verdict.wrong.append(f"{gift.pk} should count {theirs.counted(payment)}, and counts {gift.counted}")
    for each in theirs.payments.values():
        if ":" in each.name and not 0 <= theirs.held[each.name] <= each.amount:
            verdict.wrong.append(f"of {each} staff could take back more than it was, or give more again")
    over = GiftState.objects.filter(refund_requested__gt=F("charged")).count()
    if over:
        verdict.wrong.append(f"of {over} gifts more was asked back than was charged")


def _compare_bars(verdict: Verdict, theirs: Theirs) -> None:
    """Each bar, and what the statements of closed months say beside it."""
    bars: defaultdict[Month, int] = defaultdict(int)
    for payment in theirs.payments.values():
        bars[payment.campaign, payment.month, payment.currency] += theirs.counted(payment)
    totals = MonthTotal.objects.values("campaign_id", "month", "currency").annotate(sum=Sum("raised"))
    shown = {(row["campaign_id"], row["month"], row["currency"]): row["sum"] for row in totals}
    for bar in sorted(bars.keys() | shown.keys()):
        if bars.get(bar, 0) != shown.get(bar, 0):
            verdict.wrong.append(f"the bar of {bar} should show {bars.get(bar, 0)}, and shows {shown.get(bar, 0)}")
    theirs.world.staff.months.look_back(bars)
    verdict.wrong += theirs.world.staff.months.wrong
