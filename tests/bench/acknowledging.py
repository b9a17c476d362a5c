"""How fast a delivery is acknowledged: verified, durable, answered."""

from itertools import count
from statistics import median

from django.conf import settings
from django.db import connection

from tests.bench import material, peers
from tests.bench.report import Result
from tests.bench.serving import MOST_CLIENT, Request, Round, Serving, serving

MOST_A_SECOND = 8_000
numbers = count(10_000_000)


def deliveries(seconds: int, path: str) -> list[Request]:
    """More signed deliveries than any server of ours takes in so many seconds, each of an event of its own."""
    made = []
    for _ in range(MOST_A_SECOND * seconds):
        body, signature = material.signed(next(numbers))
        made.append(Request(path, "Stripe-Signature", signature, body))
    return made


def acknowledge(server: Serving, seconds: int) -> Round:
    return server.load(deliveries(seconds, "/webhooks/stripe/"), seconds)


def measure(quick: bool) -> list[Result]:
    """Ours beside the view that inserts one row."""
    seconds, rounds = (1, 2) if quick else (2, 48)  # many short ones: a disk is quick and slow by turns
    material.campaign()
    with connection.cursor() as cursor:
        cursor.execute(peers.TABLE)
    ours: list[Round] = []
    theirs: list[Round] = []
    with serving(settings.DATABASE_ADDRESS) as server:
        acknowledge(server, 1)
        for turn in range(rounds):
            if turn % 2:
                ours.append(acknowledge(server, seconds))
            theirs.append(server.load(deliveries(seconds, "/peer/insert/"), seconds))
            if not turn % 2:
                ours.append(acknowledge(server, seconds))
    return [
        Result(
            name="acknowledged, beside a view that only inserts one row",
            ratio=median(mine.rate / other.rate for mine, other in zip(ours, theirs, strict=True)),
            goal=0.85,
            void=max(each.client for each in [*ours, *theirs]) > MOST_CLIENT,
            figures=figures(ours, theirs),
        )
    ]


def figures(ours: list[Round], theirs: list[Round]) -> dict[str, str]:
    """Rates and the server's CPU a request, ours beside the peer's, and the client's share of the CPU."""
    return {
        "rate": f"{median(r.rate for r in ours):,.0f}/s beside {median(r.rate for r in theirs):,.0f}/s",
        "server CPU a request": (
            f"{median(r.server_microseconds for r in ours):.0f} µs beside "
            f"{median(r.server_microseconds for r in theirs):.0f} µs"
        ),
        "client's CPU": f"{max(r.client for r in [*ours, *theirs]):.0%}",
    }
