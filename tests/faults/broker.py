"""Redis gone, hung and emptied under load: what it does to an acknowledgement's p99, and how soon all is drained after.

    ./dev faults redis [--short]

A round with Redis well and one with Redis in trouble take turns at the same rate of deliveries; compared is the p99 of
all acknowledgements of the one kind of rounds with that of the other: the p99 of one round, its sixth slowest, is
chance. What the machine itself does to a p99 is seen by how far apart those of the two halves of the rounds with Redis
well are. Nothing else should run on it. The house is as in deploy/.
"""

import sys
import tempfile
from collections import deque
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import redis as redis_client

from tests.faults.grown import grown, revive, set_up
from tests.services import Redis

ROUNDS, SECONDS = 20, 10.0
SHORT_ROUNDS, SHORT_SECONDS = 1, 6.0
RATE = 60  # deliveries a second: a house with room to spare, where a slower answer is the fault's doing
LONGEST_DRAIN = 10.0
SLOWEST = 1.05  # times the p99 of an acknowledgement while Redis is well


def flush(broker: Redis) -> None:
    with redis_client.Redis.from_url(broker.url) as client:
        client.flushall()


def nothing(broker: Redis) -> None:
    """An emptied Redis needs no mending."""


Change = Callable[[Redis], object]
TROUBLES: dict[str, tuple[Change, Change]] = {
    "gone": (Redis.kill, Redis.start),
    "hung": (Redis.pause, Redis.resume),
    "emptied": (flush, nothing),
}


def main(words: list[str]) -> int:
    short = "--short" in words
    rounds, seconds = (SHORT_ROUNDS, SHORT_SECONDS) if short else (ROUNDS, SECONDS)
    with tempfile.TemporaryDirectory() as folder, grown(Path(folder)) as (home, database, broker):
        set_up(database.url)
        from tests.faults.deliveries import Sender, deliveries, settled, verdict

        count = int(len(TROUBLES) * rounds * 2 * seconds * RATE) + 10 * RATE
        sender, held = Sender(home, deque(deliveries(count)), rate=RATE), True
        send(sender, 3)
        for name, (break_it, mend_it) in TROUBLES.items():
            well, broken, drained = [], [], []
            for _ in range(rounds):
                well.append(send(sender, seconds))
                break_it(broker)
                broken.append(send(sender, seconds))
                mend_it(broker)
                revive(home)  # Celery may end when its broker goes; a service manager starts it again
                drained.append(settled())
            # One short round says nothing of a p99.
            held &= (short or p99(broken) <= p99(well) * SLOWEST) and max(drained) <= LONGEST_DRAIN
            print(said(name, well, broken, drained), flush=True)
        found = verdict(sender)
        print(f"answers: {dict(sender.answers)}")
        print(found)
        return 0 if found.holds and held and set(sender.answers) == {200} else 1


def send(sender: "Sender", seconds: float) -> list[float]:  # type: ignore[name-defined]  # noqa: F821
    """How many seconds each acknowledgement took, of a round."""
    before = len(sender.seconds)
    sender.start()
    sender.stopping.wait(seconds)
    sender.stop()
    return list(sender.seconds[before:])


def p99(rounds: list[list[float]]) -> float:
    """Of all that was acknowledged in these rounds, in milliseconds."""
    seconds = sorted(chain.from_iterable(rounds))
    return seconds[int(len(seconds) * 0.99)] * 1000


def said(name: str, well: list[list[float]], broken: list[list[float]], drained: list[float]) -> str:
    change = p99(broken) / p99(well) - 1
    apart = (
        f"; the halves of those where it was well {p99(well[::2]):.1f} and {p99(well[1::2]):.1f}" if well[1:] else ""
    )
    return (
        f"Redis {name}: p99 {p99(broken):.1f} ms beside {p99(well):.1f} ms ({change:+.1%}; {len(well)} rounds of "
        f"each{apart}); drained {max(drained):.1f} s after its return at the latest"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
