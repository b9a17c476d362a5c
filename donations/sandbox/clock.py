"""The sandbox's two clocks: its own time, which objects and events carry, and real time, which deliveries wait by."""

import calendar
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .errors import ApiError

DAY = 24 * 60 * 60
UNITS = {"mo": 0, "w": 7 * DAY, "d": DAY, "h": 60 * 60, "m": 60, "s": 1}
LONGEST = 10 * 366 * DAY  # what is due on the way happens one by one
DURATION = re.compile(r"([0-9]{1,4})(mo|w|d|h|m|s)", re.ASCII)


class Clock:
    """The sandbox's own time: real time, and by how many seconds it was moved `ahead` of that."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead

    def now(self) -> float:
        """Seconds since 1970, by the sandbox."""
        return time.time() + self.ahead

    def seconds(self) -> int:
        """Whole seconds, as Stripe's `created` counts them."""
        return int(self.now())


class Stopped(Clock):
    """A clock that stands at a moment: what was due then happens then, however late it is done."""

    def __init__(self, moment: float, ahead: float = 0.0) -> None:
        super().__init__(ahead)
        self.moment = moment

    def now(self) -> float:
        return self.moment


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time: calendar months, or seconds."""

    months: int = 0
    seconds: int = 0

    def after(self, moment: float) -> float:
        """The moment that much later."""
        return (add_months(int(moment), self.months) + moment % 1 if self.months else moment) + self.seconds


def duration(text: str) -> Duration:
    """`1mo`, `2w`, `3d`, `2h`, `5m` or `30s`. Raises ApiError."""
    match = DURATION.fullmatch(text.strip())
    if not match:
        raise ApiError(f"{text!r} is no length of time: write 1mo, 2w, 3d, 2h, 5m or 30s.", param="advance")
    count = int(match[1])
    if count * (UNITS[match[2]] or 31 * DAY) > LONGEST:
        raise ApiError(f"{text!r} is too far: move the clock 10 years at most at once.", param="advance")
    return Duration(months=count) if match[2] == "mo" else Duration(seconds=count * UNITS[match[2]])


def add_months(moment: int, months: int, *, day: int = 0) -> int:
    """The same time of the day some months later, in UTC; on `day`, or the month's last day if it has none such."""
    then = datetime.fromtimestamp(moment, UTC)
    year, month = divmod(then.year * 12 + then.month - 1 + months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return int(then.replace(year=year, month=month + 1, day=min(day or then.day, last)).timestamp())


def midnight_after(moment: float, days: int) -> int:
    """The beginning, in UTC, of the day that is `days` after a moment's."""
    then = datetime.fromtimestamp(moment, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return int((then + timedelta(days=days)).timestamp())


def real() -> float:
    """Seconds since 1970, by the wall: a receiver compares the time of a signature with its own clock."""
    return time.time()
