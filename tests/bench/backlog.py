"""How fast a backlog of a million events is drained: as many as a large site gets in a year, all at once."""

from statistics import median

from django.conf import settings

from tests.bench import acknowledging, draining, material
from tests.bench.report import Result
from tests.bench.serving import CORES, serving

EVENTS = (10_000, 1_000_000)  # quick, and whole


def measure(quick: bool) -> list[Result]:
    """Deliveries are acknowledged before and after, so that the machine of both is the same."""
    events = EVENTS[not quick]
    acknowledged = [*_acknowledged(quick)]
    material.queue(1, events)
    material.settle()
    rate = events / draining.drained_by_workers()
    acknowledged += _acknowledged(quick)
    return [
        Result(
            name=f"a backlog of {events:,} events drained, beside the rate of acknowledging",
            ratio=rate / median(acknowledged),
            goal=1.5,
            figures={
                "drained": f"{rate:,.0f}/s by {CORES} workers",
                "acknowledged": f"{median(acknowledged):,.0f}/s by {CORES} workers",
            },
        )
    ]


def _acknowledged(quick: bool) -> list[float]:
    with serving(settings.DATABASE_ADDRESS) as server:
        acknowledging.acknowledge(server, 1)
        rates = [acknowledging.acknowledge(server, 1 if quick else 3).rate for _ in range(2)]
    draining.forget_deliveries()
    return rates
