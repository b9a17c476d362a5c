"""Where months begin, by an oracle written apart: the tz database's own files, read byte by byte (RFC 8536).

Uses no arithmetic of zoneinfo's: a zone is a list of offsets, each from an instant on, both in seconds; what follows
the last of them is told by a rule in the file's last line.

    ./dev months [--from 1990] [--to 2037]

compares every month of every zone with `donations.periods`: a second before it begins, as it begins, a second after.
"""

import argparse
import bisect
import itertools
import re
import struct
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import resources

LAST_YEAR = 2050  # rules are followed up to here
EPOCH = date(1970, 1, 1).toordinal()
DAY = 86_400
Changes = list[tuple[float, int]]  # from this instant on, this offset east of Greenwich

NAME = r"(?:[A-Za-z]{3,}|<[A-Za-z0-9+-]+>)"
OFFSET = r"[+-]?\d{1,3}(?::\d\d){0,2}"
RULE = re.compile(rf"{NAME}({OFFSET})(?:{NAME}({OFFSET})?,([^,/]+)(?:/({OFFSET}))?,([^,/]+)(?:/({OFFSET}))?)?")


def zones() -> list[str]:
    """The names that the pinned database lists."""
    return sorted((resources.files("tzdata") / "zones").read_text().split())


@cache
def changes(zone: str) -> Changes:
    """A zone's offsets, in time."""
    content = resources.files("tzdata").joinpath("zoneinfo", *zone.split("/")).read_bytes()
    found, rule = _read(content)
    return found + [change for change in _by_rule(rule) if change[0] > found[-1][0]]


def _read(content: bytes) -> tuple[Changes, str]:
    """The second block of a file, whose instants have 64 bits; and its rule."""
    first = _counts(content)
    start = 44 + _length(first, 4)
    isut, isstd, leap, instants, types, letters = _counts(content[start:])
    at = start + 44
    when = struct.unpack_from(f">{instants}q", content, at)
    which = struct.unpack_from(f">{instants}B", content, at + 8 * instants)
    table = at + 9 * instants
    offsets = [struct.unpack_from(">l", content, table + 6 * number)[0] for number in range(types)]
    end = start + 44 + _length((isut, isstd, leap, instants, types, letters), 8)
    found = [(float("-inf"), offsets[0]), *((moment, offsets[kind]) for moment, kind in zip(when, which, strict=True))]
    return found, content[end:].decode().strip()


def _counts(block: bytes) -> tuple[int, ...]:
    assert block[:4] == b"TZif"
    return struct.unpack_from(">6l", block, 20)


def _length(counts: tuple[int, ...], size: int) -> int:
    """Bytes that follow a header: instants of `size` and their types, the types, their letters, leap seconds, flags."""
    isut, isstd, leap, instants, types, letters = counts
    return instants * (size + 1) + types * 6 + letters + leap * (size + 4) + isstd + isut


def _by_rule(rule: str) -> Changes:
    """What a rule such as EST5EDT,M3.2.0,M11.1.0 says of every year."""
    match = RULE.fullmatch(rule)
    assert match, rule
    standard = -_seconds(match[1])
    if match[3] is None:
        return []
    summer = -_seconds(match[2]) if match[2] else standard + 3600
    found = []
    for year in range(1970, LAST_YEAR):
        # Each is written in the time that is shown until it comes.
        found.append((_day(match[3], year) * DAY + _seconds(match[4] or "2") - standard, summer))
        found.append((_day(match[5], year) * DAY + _seconds(match[6] or "2") - summer, standard))
    return sorted(found)


def _seconds(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    parts = [int(part) for part in text.lstrip("+-").split(":")]
    return sign * sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))


def _day(text: str, year: int) -> int:
    """A day of a year, in days since 1970: M month.week.weekday, J day (no 29 February), or day from 0."""
    if text.startswith("M"):
        month, week, weekday = (int(part) for part in text[1:].split("."))
        first = date(year, month, 1)
        day = first + timedelta(days=(weekday - first.isoweekday()) % 7 + 7 * (week - 1))
        # The fifth is the last, also where there are four.
        return (day if day.month == month else day - timedelta(days=7)).toordinal() - EPOCH
    if text.startswith("J"):
        day = int(text[1:])
        leap = (date(year + 1, 1, 1) - date(year, 1, 1)).days == 366
        return date(year, 1, 1).toordinal() - EPOCH + day - 1 + (1 if leap and day >= 60 else 0)
    return date(year, 1, 1).toordinal() - EPOCH + int(text)


# ---- months


def start(zone: str, year: int, month: int) -> int:
    """The first instant at which a zone's clocks show this month or a later one, in seconds since 1970, UTC."""
    midnight = (date(year, month, 1).toordinal() - EPOCH) * DAY
    known = changes(zone)
    # What was over two days before cannot hold it: no offset is as large.
    since = max(0, bisect.bisect_left(known, (midnight - 2 * DAY, 0)) - 1)
    for (begins, offset), (ends, _) in itertools.pairwise([*known[since : since + 9], (float("inf"), 0)]):
        first = max(begins, midnight - offset)
        if first < ends:
            return int(first)
    raise AssertionError(f"{zone} never shows {year}-{month:02d}")


def odd_months(zone: str, first: int, last: int) -> list[tuple[int, int]]:
    """The months of these years within four hours of whose begin clocks are changed."""
    found = set()
    for moment, offset in changes(zone)[1:]:
        day = date.fromordinal(int(moment + offset + DAY // 2) // DAY + EPOCH)  # the nearest midnight's
        if first <= day.year <= last and abs(moment - start(zone, day.year, day.month)) <= 4 * 3600:
            found.add((day.year, day.month))
    return sorted(found)


def disagreements(zone: str, year: int, number: int) -> Iterator[str]:
    """What `donations.periods` says otherwise of where a month begins, and of a second before, at and after it.

    Also around each change of the clock near it: a month that has begun stays begun where clocks go back over it.
    """
    from donations.periods import Month, local_date

    begins, month = start(zone, year, number), Month(year, number)
    if month.start(zone) != datetime.fromtimestamp(begins, UTC):
        yield f"{zone} {month} begins at {datetime.fromtimestamp(begins, UTC)}, not at {month.start(zone)}"
    for moment, seconds in itertools.product([begins, *changes_near(zone, begins)], (-1, 0, 1)):
        instant = datetime.fromtimestamp(moment + seconds, UTC)
        wanted = month if moment + seconds >= begins else month.previous
        found, day = Month.of(instant, zone), local_date(instant, zone)
        if found != wanted or (day.year, day.month) != (wanted.year, wanted.number):
            yield f"{zone} {instant} is in {wanted}, not in {found}; its day is {day}"


def changes_near(zone: str, moment: int) -> list[float]:
    """When a zone's clocks are changed within four hours."""
    known = changes(zone)
    since, until = (bisect.bisect_left(known, (moment + hours * 3600, -DAY)) for hours in (-4, 4))
    return [change for change, _ in known[since:until]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev months", description="Compare every month's start with an oracle.")
    parser.add_argument("--from", dest="first", type=int, default=1990, metavar="YEAR")
    parser.add_argument("--to", dest="last", type=int, default=2037, metavar="YEAR")
    given = parser.parse_args()
    months = [(year, number) for year in range(given.first, given.last + 1) for number in range(1, 13)]
    odd, found = 0, []
    for zone in zones():
        odd += len(odd_months(zone, given.first, given.last))
        for month in months:
            found += disagreements(zone, *month)
    print(*found[:20], sep="\n", end="\n" if found else "")
    print(f"{len(zones())} zones × {len(months)} months: {len(zones()) * len(months):,} boundaries, each ± 1 s, "
          f"{odd:,} of them within four hours of a change of the clock; {len(found)} disagreements")  # fmt: skip
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
