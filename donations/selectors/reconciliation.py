"""How the last comparison of both books ended, for the dashboard, the metrics and whoever asks whether all is well."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from donations.models import Reconciliation


@dataclass(frozen=True, slots=True)
class LastReconciliation:
    """The last whole run, and the one that is under way. `equal` is None before the first whole run.

    `unseen` is how much the processor had that had not been delivered; `stands_still` why a run cannot go on.
    """

    started_at: datetime | None
    finished_at: datetime | None
    equal: bool | None
    equal_since: datetime | None
    unexplained: int
    differences: tuple[dict[str, Any], ...]
    unseen: int
    found: dict[str, dict[str, int]]
    running_since: datetime | None
    stands_still: str


def last_reconciliation(processor: str = "stripe") -> LastReconciliation:
    """What is known of the comparison with a processor's books: two look-ups in an index."""
    runs = Reconciliation.objects.filter(processor=processor)
    under_way = runs.filter(finished_at=None).first()
    last = runs.filter(finished_at__isnull=False).order_by("-finished_at").first()
    return LastReconciliation(
        started_at=last.started_at if last else None,
        finished_at=last.finished_at if last else None,
        equal=last.equal if last else None,
        equal_since=last.equal_since if last else None,
        unexplained=last.unexplained if last else 0,
        differences=tuple(last.differences) if last else (),
        unseen=last.unseen if last else 0,
        found=last.counts if last else {},
        running_since=under_way.started_at if under_way else None,
        stands_still=under_way.error if under_way else "",
    )
