"""What the processor's own books say must stand in ours, worked out apart from the code that is tested."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from django.db.models import Sum

from donations.models import GiftState, LedgerEntry, MonthTotal
from tests.simulation.world import World, all_of

Movement = tuple[str, str]  # what kind of movement, of what


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


def of_the_processor(world: World) -> Counter[Movement]:
    """Minor units by movement. Of a refund its sum: one that never succeeded moved nothing in the end."""
    with world.store.transaction() as tx:
        moved, charges = all_of(tx, "balance_transaction"), {c["id"]: c for c in all_of(tx, "charge")}
    sums: Counter[Movement] = Counter()
    for each in moved:
        source, amount = each["source"], each["amount"]
        if each["fee"] and source and source.startswith(("ch_", "py_", "re_", "du_", "dp_")):
            sums["fee", each["id"]] -= each["fee"]
        if each["type"] in {"charge", "payment"}:
            sums["gift", charges[source]["payment_intent"]] += amount
        elif source and source.startswith("re_"):
            sums["refund", source] += amount
        elif each["type"] == "adjustment" and str(source).startswith(("du_", "dp_")):
            sums["dispute", each["id"]] += amount
    return sums


def of_ours() -> Counter[Movement]:
    """The same of our ledger."""
    names = {"gift": "gift", "refund": "refund", "refund_reversal": "refund", "fee": "fee"}
    names |= {"dispute_withdrawn": "dispute", "dispute_reinstated": "dispute"}
    sums: Counter[Movement] = Counter()
    for kind, reference, amount in LedgerEntry.objects.values_list("kind", "reference", "amount").iterator():
        sums[names[kind], reference] += amount
    return sums


def compare(world: World) -> Verdict:
    """Both books side by side; then every gift, and every bar."""
    verdict, theirs, ours = Verdict(), of_the_processor(world), of_ours()
    verdict.movements = len(theirs)
    for movement in sorted(theirs.keys() | ours.keys()):
        wanted, found = theirs[movement], ours[movement]
        if wanted == found:
            continue
        words = f"{movement}: the processor has {wanted}, we have {found}"
        list_of = verdict.lost if abs(found) < abs(wanted) else verdict.counted_twice
        list_of.append(words)
    _compare_gifts(verdict)
    _compare_covers(world, verdict)
    return verdict


def _compare_covers(world: World, verdict: Verdict) -> None:
    """Of each invoice its line of the fee cover counts toward no goal: here its name tells, which no event does."""
    with world.store.transaction() as tx:
        lines = {invoice["id"]: invoice["lines"]["data"] for invoice in all_of(tx, "invoice")}
        paid = {
            each["payment"]["payment_intent"]: lines[each["invoice"]]
            for each in all_of(tx, "invoice_payment")
            if each["status"] == "paid"
        }
    for entry in LedgerEntry.objects.filter(kind="gift", reference__in=paid).iterator():
        named = [line["amount"] for line in paid[entry.reference] if line["description"].endswith("Fee cover")]
        if entry.amount - entry.goal_amount != sum(named):
            verdict.wrong.append(f"of {entry.reference}, {entry.goal_amount} count, and {sum(named)} are fee cover")


def _compare_gifts(verdict: Verdict) -> None:
    goal: defaultdict[str, int] = defaultdict(int)
    held: defaultdict[str, int] = defaultdict(int)
    months: dict[str, tuple[str, str, str]] = {}
    for entry in LedgerEntry.objects.exclude(kind="fee").iterator():
        goal[str(entry.gift_id)] += entry.goal_amount
        held[str(entry.gift_id)] += entry.amount
        if entry.kind == "gift":
            months[str(entry.gift_id)] = (entry.campaign_id, entry.campaign_month, entry.currency)
    bars: Counter[tuple[str, str, str]] = Counter()
    for gift, month in months.items():
        bars[month] += max(0, min(goal[gift], held[gift]))
    totals = MonthTotal.objects.values("campaign_id", "month", "currency").annotate(raised=Sum("raised"))
    shown = {(row["campaign_id"], row["month"], row["currency"]): row["raised"] for row in totals if row["raised"]}
    wanted = {month: raised for month, raised in bars.items() if raised}
    if shown != wanted:
        verdict.wrong.append(f"the bars show {shown}, and the entries make {wanted}")
    over = GiftState.objects.extra(where=["refund_requested > charged"]).count()
    if over:
        verdict.wrong.append(f"of {over} gifts more was asked back than was charged")
