"""The sandbox's two clocks: its own time, which objects and events carry, and real time, which deliveries wait by."""

import time


class Clock:
    """The sandbox's own time. Everything that has a date asks here, so that it can be made to move."""

    def now(self) -> float:
        """Seconds since 1970, by the sandbox."""
        return time.time()

    def seconds(self) -> int:
        """Whole seconds, as Stripe's `created` counts them."""
        return int(self.now())


def real() -> float:
    """Seconds since 1970, by the wall: a receiver compares the time of a signature with its own clock."""
    return time.time()
