"""How fast the bar is read."""

from statistics import median

import httpx
from django.conf import settings

from donations import inbox
from tests.bench import material, peers
from tests.bench.acknowledging import figures
from tests.bench.report import Result
from tests.bench.serving import MOST_CLIENT, Request, Round, serving

BAR = "/embed/v1/meter.json"


def measure(quick: bool) -> list[Result]:
    """200 and 304, each beside a view that answers with constant bytes."""
    seconds, rounds = (1, 2) if quick else (3, 7)
    material.queue(1, 100)
    inbox.drain()
    with serving(settings.DATABASE_ADDRESS) as server:
        answer = httpx.get(server.url + BAR, trust_env=False)
        assert abs(len(answer.content) - len(peers.CONSTANT)) < 120, len(answer.content)
        shapes = {
            "200": [Request(BAR)],
            "304": [Request(BAR, "If-None-Match", answer.headers["ETag"])],
            "peer": [Request("/peer/constant/")],
        }
        measured: dict[str, list[Round]] = {shape: [] for shape in shapes}
        for _ in range(rounds):
            for shape, requests in shapes.items():
                measured[shape].append(server.load(requests, seconds))
    theirs = measured.pop("peer")
    return [
        Result(
            name=f"meter.json {shape}, beside a view of constant bytes",
            ratio=median(mine.rate / other.rate for mine, other in zip(ours, theirs, strict=True)),
            goal=0.88,
            void=max(each.client for each in [*ours, *theirs]) > MOST_CLIENT,
            figures=figures(ours, theirs),
        )
        for shape, ours in measured.items()
    ]
