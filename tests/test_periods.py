"""Months in a time zone: half-open, with no gap or overlap in any zone, also where a first has no midnight or two."""

import random
import zoneinfo
from datetime import UTC, date, datetime, timedelta
from functools import cache

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from donations import periods
from donations.periods import Month
from tests import almanac

TICK = timedelta(microseconds=1)
ZONES = sorted(zoneinfo.available_timezones())
SAMPLE = [(2000, 1), (2008, 6), (2012, 4), (2023, 10), (2024, 2), (2024, 11), (2024, 12), (2037, 3)]

months = st.builds(Month, st.integers(2000, 2999), st.integers(1, 12))
zones = st.sampled_from(ZONES)
instants = st.datetimes(datetime(2000, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 (bounds)


@cache
def odd_firsts() -> dict[str, list[tuple[str, Month]]]:
    """The months since 2000 whose first midnight a zone's clocks skip, or show twice."""
    found: dict[str, list[tuple[str, Month]]] = {"skipped": [], "twice": []}
    for zone in ZONES:
        place = zoneinfo.ZoneInfo(zone)
        for year in range(2000, 2038):
            for number in range(1, 13):
                midnight = datetime(year, number, 1, tzinfo=place)
                if midnight.utcoffset() != midnight.replace(fold=1).utcoffset():
                    exists = midnight.astimezone(UTC).astimezone(place).replace(fold=0) == midnight
                    found["twice" if exists else "skipped"].append((zone, Month(year, number)))
    return found


def near(instant: datetime, zone: str) -> bool:
    """Whether a zone's clocks are changed within a day of an instant."""
    place, day = zoneinfo.ZoneInfo(zone), timedelta(days=1)
    return len({(instant + away).astimezone(place).utcoffset() for away in (-day, timedelta(0), day)}) > 1


def first_minute(month: Month, zone: str) -> datetime:
    """The first minute at which a zone's clocks show a month or a later one, found by looking at each of two days."""
    place, minute = zoneinfo.ZoneInfo(zone), timedelta(minutes=1)
    moment = datetime(month.year, month.number, 1, tzinfo=UTC) - timedelta(days=1)
    while (shown := moment.astimezone(place)) and (shown.year, shown.month) < (month.year, month.number):
        moment += minute
    return moment


# ---- the text of a month


@pytest.mark.parametrize(
    "text",
    [
        *("", "2024", "2024-1", "2024-00", "2024-13", "24-11", "02024-11", "2024-011", "2024-11-01", "1999-12"),
        *("3000-01", "-2024-11", " 2024-11", "2024-11 ", "2024-11\n", "2024/11", "2024–11", "202411", "2024-nov"),
        *("٢٠٢٤-١١", "２０２４-１１", "2024-1١", "2024-11\x00", "november", "2024-1e", "9" * 50),
    ],
    ids=repr,
)
def test_a_malformed_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a month is written like 2024-11"):
        Month.parse(text)


@given(months)
def test_a_month_is_read_as_it_is_written(month: Month) -> None:
    assert Month.parse(str(month)) == month


@given(st.text(max_size=9) | st.text("0123456789-", max_size=8))
@example("2024-11")
def test_a_text_is_the_one_text_of_a_month_or_refused(text: str) -> None:
    try:
        month = Month.parse(text)
    except ValueError:
        return
    assert str(month) == text


@pytest.mark.parametrize(
    ("text", "label", "days", "following", "previous"),
    [
        ("2024-11", "November 2024", 30, "2024-12", "2024-10"),
        ("2024-12", "December 2024", 31, "2025-01", "2024-11"),
        ("2025-01", "January 2025", 31, "2025-02", "2024-12"),
        ("2024-02", "February 2024", 29, "2024-03", "2024-01"),
        ("2100-02", "February 2100", 28, "2100-03", "2100-01"),
    ],
)
def test_a_month_has_a_name_a_length_and_neighbours(
    text: str, label: str, days: int, following: str, previous: str
) -> None:
    month = Month.parse(text)
    assert (month.label, month.days) == (label, days)
    assert (str(month.next), str(month.previous)) == (following, previous)
    assert month.first_day == date.fromisoformat(f"{text}-01")


@given(months, months)
def test_months_are_ordered_as_their_texts_are(one: Month, other: Month) -> None:
    assert (one < other) == (str(one) < str(other))
    assert one.next.previous == one.previous.next == one
    assert one.previous < one < one.next


# ---- the month of an instant


@pytest.mark.parametrize(
    ("instant", "zone", "month"),
    [
        ("2024-11-01T03:59:59.999999Z", "America/New_York", "2024-10"),
        ("2024-11-01T04:00:00Z", "America/New_York", "2024-11"),
        ("2024-12-01T04:59:59.999999Z", "America/New_York", "2024-11"),
        ("2024-12-01T05:00:00Z", "America/New_York", "2024-12"),
        ("2024-10-31T10:00:00Z", "Pacific/Kiritimati", "2024-11"),
        ("2024-11-01T11:59:59Z", "Etc/GMT+12", "2024-10"),
        ("2024-12-31T23:59:59Z", "UTC", "2024-12"),
        ("2024-12-31T23:59:59+01:00", "UTC", "2024-12"),
        ("2024-12-31T23:59:59-01:00", "UTC", "2025-01"),
        ("2024-10-31T18:14:59Z", "Asia/Kathmandu", "2024-10"),
        ("2024-10-31T18:15:00Z", "Asia/Kathmandu", "2024-11"),
    ],
)
def test_an_instant_belongs_to_the_month_that_the_zones_calendar_shows(instant: str, zone: str, month: str) -> None:
    assert str(Month.of(datetime.fromisoformat(instant), zone)) == month


@given(instants, zones)
def test_away_from_changes_of_the_clock_the_month_is_the_wall_calendars(instant: datetime, zone: str) -> None:
    assume(not near(instant, zone))
    offset = zoneinfo.ZoneInfo(zone).utcoffset(instant.astimezone(zoneinfo.ZoneInfo(zone)))
    assert offset is not None
    wall = instant.replace(tzinfo=None) + offset
    assert Month.of(instant, zone) == Month(wall.year, wall.month)
    assert periods.local_date(instant, zone) == wall.date()


@given(instants, zones, st.integers(-18, 18))
def test_the_month_of_an_instant_is_that_of_the_same_instant_written_in_any_zone(
    instant: datetime, zone: str, hours: int
) -> None:
    there = instant.astimezone(zoneinfo.ZoneInfo(f"Etc/GMT{hours % 12:+d}" if hours % 12 else "UTC"))
    assert Month.of(there, zone) == Month.of(instant, zone)


@given(instants, zones)
def test_a_month_holds_its_instants_from_its_start_until_the_next_start(instant: datetime, zone: str) -> None:
    month = Month.of(instant, zone)
    assert month.start(zone) <= instant < month.next.start(zone)


@pytest.mark.slow
@pytest.mark.parametrize(("year", "number"), SAMPLE)
def test_in_every_zone_a_month_begins_where_the_one_before_ends(year: int, number: int) -> None:
    month = Month(year, number)
    for zone in ZONES:
        start = month.start(zone)
        assert start.tzinfo is UTC
        assert (Month.of(start, zone), Month.of(start - TICK, zone)) == (month, month.previous), zone
        length = month.next.start(zone) - start
        assert abs(length - timedelta(days=month.days)) <= timedelta(hours=24), zone


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["skipped", "twice"])
def test_a_month_whose_midnight_is_odd_begins_when_the_clocks_first_show_it(kind: str) -> None:
    found = odd_firsts()[kind]
    assert len(found) > 10
    for zone, month in found:
        start = month.start(zone)
        assert start == first_minute(month, zone), (zone, month)
        assert (Month.of(start, zone), Month.of(start - TICK, zone)) == (month, month.previous), (zone, month)
        assert periods.local_date(start, zone) == month.first_day


@pytest.mark.parametrize(
    ("zone", "month", "start"),
    [
        # Clocks jump from 24:00 to 01:00: the first begins at one o'clock.
        ("America/Asuncion", "2023-10", "2023-10-01T04:00:00Z"),
        ("Africa/Cairo", "2014-08", "2014-07-31T22:00:00Z"),
        # Clocks go back from 01:00 to 00:00, and from 00:01 to 23:01: the first midnight begins the month.
        ("America/Havana", "2020-11", "2020-11-01T04:00:00Z"),
        ("America/St_Johns", "2009-11", "2009-11-01T02:30:00Z"),
    ],
)
def test_known_firsts_without_a_midnight_or_with_two(zone: str, month: str, start: str) -> None:
    assert Month.parse(month).start(zone) == datetime.fromisoformat(start)


def test_a_month_that_has_begun_stays_begun_when_clocks_go_back_over_its_midnight() -> None:
    zone, start = "America/St_Johns", datetime(2009, 11, 1, 2, 30, tzinfo=UTC)
    again_october = start + timedelta(minutes=30)
    assert again_october.astimezone(zoneinfo.ZoneInfo(zone)).date() == date(2009, 10, 31)
    assert str(Month.of(again_october, zone)) == "2009-11"
    assert periods.local_date(again_october, zone) == date(2009, 11, 1)


def test_a_day_that_a_zone_skipped_begins_with_the_next_one() -> None:
    skipped, following = date(2011, 12, 30), date(2011, 12, 31)
    assert periods.day_start(skipped, "Pacific/Apia") == periods.day_start(following, "Pacific/Apia")
    assert periods.day_start(following, "Pacific/Apia") == datetime(2011, 12, 30, 10, tzinfo=UTC)


def test_a_day_whose_midnight_lies_within_a_jump_begins_with_the_jump() -> None:
    # From 23:30 to 00:30.
    assert periods.day_start(date(1919, 3, 31), "America/Toronto") == datetime(1919, 3, 31, 4, 30, tzinfo=UTC)


# ---- an oracle written apart


def test_the_oracle_reads_every_zone() -> None:
    assert almanac.zones() == ZONES


@pytest.mark.slow
def test_months_begin_where_the_files_of_the_tz_database_say(rng: random.Random) -> None:
    """A sample of months of every zone, and all of half a century near whose begin clocks are changed."""
    odd = 0
    for zone in ZONES:
        near_changes = almanac.odd_months(zone, 1990, 2037)
        sample = [(rng.randint(1990, 2037), rng.randint(1, 12)) for _ in range(6)]
        odd += len(near_changes)
        for year, number in [*sample, *near_changes]:
            assert list(almanac.disagreements(zone, year, number)) == []
    assert odd > 500


@pytest.mark.parametrize(
    ("zone", "year", "number", "start"),
    [
        ("America/New_York", 2037, 11, "2037-11-01T04:00:00Z"),
        ("Asia/Kathmandu", 2024, 11, "2024-10-31T18:15:00Z"),
        ("America/Asuncion", 2023, 10, "2023-10-01T04:00:00Z"),
        ("America/Havana", 2020, 11, "2020-11-01T04:00:00Z"),
        ("Pacific/Apia", 2012, 1, "2011-12-31T10:00:00Z"),
    ],
)
def test_the_oracle_knows_what_was_reckoned_by_hand(zone: str, year: int, number: int, start: str) -> None:
    assert datetime.fromtimestamp(almanac.start(zone, year, number), UTC) == datetime.fromisoformat(start)


# ---- days


@given(zones, months, st.integers(-26 * 3600, 26 * 3600))
@example("America/St_Johns", Month(2009, 11), 1800)
def test_the_local_day_lies_within_the_month(zone: str, month: Month, seconds: int) -> None:
    instant = month.start(zone) + timedelta(seconds=seconds)
    day = periods.local_date(instant, zone)
    assert Month(day.year, day.month) == Month.of(instant, zone)


def test_the_local_day_lies_within_the_month_around_every_odd_first() -> None:
    for zone, month in odd_firsts()["skipped"] + odd_firsts()["twice"]:
        for minutes in range(-180, 181, 15):
            instant = month.start(zone) + timedelta(minutes=minutes)
            day = periods.local_date(instant, zone)
            assert Month(day.year, day.month) == Month.of(instant, zone) == (month if minutes >= 0 else month.previous)


# ---- the tz database


def test_zones_come_from_the_pinned_database_and_not_from_the_machine() -> None:
    assert zoneinfo.TZPATH == ()


@pytest.mark.parametrize("name", ["UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Etc/GMT+12"])
def test_a_zone_of_the_database_is_one(name: str) -> None:
    assert periods.is_zone(name)


@pytest.mark.parametrize(
    "name", ["", "Mars/Phobos", "utc ", "../UTC", "/etc/localtime", "America", "UTC\x00", "UTC+1", "a" * 50], ids=repr
)
def test_no_other_name_is_a_zone(name: str) -> None:
    assert not periods.is_zone(name)
