"""Months in a time zone, computed in Python alone with the pinned tz database."""

import re
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache

# The machine's own tz database differs from place to place; the pinned `tzdata` package does not.
zoneinfo.reset_tzpath(to=())

MONTH_TEXT = re.compile(r"(2[0-9]{3})-(0[1-9]|1[0-2])", re.ASCII)
ENGLISH_MONTHS = "January February March April May June July August September October November December".split()


@dataclass(frozen=True, order=True, slots=True)
class Month:
    """A calendar month, zone not included. Its text is `2024-11`."""

    year: int
    number: int

    @classmethod
    def parse(cls, text: str) -> "Month":
        """`2024-11` as a month, of the years 2000 to 2999. Raises ValueError for any other text."""
        match = MONTH_TEXT.fullmatch(text)
        if not match:
            raise ValueError("a month is written like 2024-11")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, instant: datetime, zone: str) -> "Month":
        """The month that holds an aware instant, in a zone."""
        local = instant.astimezone(zoneinfo.ZoneInfo(zone))
        month = cls(local.year, local.month)
        # Where clocks go back over midnight of the first, the new month has begun and stays begun.
        return month.next if instant >= month.next.start(zone) else month

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.number:02d}"

    @property
    def next(self) -> "Month":
        return Month(self.year + 1, 1) if self.number == 12 else Month(self.year, self.number + 1)

    @property
    def previous(self) -> "Month":
        return Month(self.year - 1, 12) if self.number == 1 else Month(self.year, self.number - 1)

    @property
    def first_day(self) -> date:
        return date(self.year, self.number, 1)

    @property
    def days(self) -> int:
        return (self.next.first_day - self.first_day).days

    @property
    def label(self) -> str:
        """`November 2024`."""
        return f"{ENGLISH_MONTHS[self.number - 1]} {self.year}"

    def start(self, zone: str) -> datetime:
        """The first instant of the month in a zone, in UTC. The month ends where the next starts (half-open)."""
        return day_start(self.first_day, zone)


@lru_cache(maxsize=4096)
def day_start(day: date, zone: str) -> datetime:
    """The first instant, in UTC, at which a zone's clocks show this day or a later one."""
    place = zoneinfo.ZoneInfo(zone)
    midnight = datetime.combine(day, time.min)
    before_gap = midnight.replace(tzinfo=place, fold=1).astimezone(UTC)
    usual = midnight.replace(tzinfo=place, fold=0).astimezone(UTC)
    if usual.astimezone(place).replace(tzinfo=None) == midnight:
        return usual
    return _end_of_gap(before_gap, usual, midnight, place)


def _end_of_gap(low: datetime, high: datetime, midnight: datetime, place: zoneinfo.ZoneInfo) -> datetime:
    """Where clocks jump over midnight, the jump itself begins the day; found to the second by halving."""
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        middle = middle.replace(microsecond=0)
        if middle.astimezone(place).replace(tzinfo=None) >= midnight:
            high = middle
        else:
            low = middle
    return low if low.astimezone(place).replace(tzinfo=None) >= midnight else high


def local_date(instant: datetime, zone: str) -> date:
    """The day that a zone's calendar shows at an aware instant; never before its month's first."""
    day = instant.astimezone(zoneinfo.ZoneInfo(zone)).date()
    return max(day, Month.of(instant, zone).first_day)


@lru_cache(maxsize=1024)
def is_zone(name: str) -> bool:
    """Whether the tz database has a zone of this name."""
    return name in zoneinfo.available_timezones()
