"""What inbox rows say, and what others said of the same subject: read for a page of rows at once."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from donations.invariants.movements import TOLD_TOGETHER, Heard
from donations.models import InboxEvent
from donations.processors.facts import Fact, InvoiceSeen, fact_from_json

Subject = tuple[str, str]


@dataclass(slots=True)
class Facts:
    """The facts of a page's rows by number; where several tell together, those of a subject that stand.

    `owners` are the monthly gifts that an invoice's events name, whatever became of these.
    """

    of_row: dict[int, Fact] = field(default_factory=dict)
    of_subject: defaultdict[Subject, list[Fact]] = field(default_factory=lambda: defaultdict(list))
    owners: defaultdict[Subject, set[str]] = field(default_factory=lambda: defaultdict(set))

    def heard(self, row: InboxEvent) -> Heard | None:
        """A row's fact among those of its subject; None without a fact that can be read."""
        fact = self.of_row.get(row.pk)
        if fact is None:
            return None
        alike = self.of_subject.get((row.processor, row.subject), [])
        return Heard(fact, tuple(alike) if fact in alike else (*alike, fact))


def facts_of(rows: Iterable[InboxEvent]) -> Facts:
    """Read what these rows and their like say."""
    found = Facts()
    subjects = set()
    for row in rows:
        fact = stored_fact(row)
        if fact is not None:
            found.of_row[row.pk] = fact
            if type(fact) in TOLD_TOGETHER:
                subjects.add(row.subject)
    alike = InboxEvent.objects.filter(subject__in=subjects, facts__isnull=False)
    # SQLite takes the index, which holds no "", for who says that none is wanted.
    for row in alike.exclude(subject="").only("processor", "subject", "facts", "state", "reason"):
        fact = stored_fact(row)
        if fact is not None and row.stands:
            found.of_subject[row.processor, row.subject].append(fact)
        if isinstance(fact, InvoiceSeen):
            found.owners[row.processor, row.subject].add(fact.recurring_gift)
    return found


def stored_fact(row: InboxEvent) -> Fact | None:
    """The fact that stands in a row; None where there is none, or none that can be read."""
    try:
        return fact_from_json(row.facts) if row.facts else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
