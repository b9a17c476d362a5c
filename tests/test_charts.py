"""Figures to geometry."""

import pytest

from donations import charts
from donations.charts import NARROW, WIDE, Figures, Frame
from donations.periods import Month
from donations.selectors.dashboard import Standing

FRAMES = [WIDE, NARROW]


def figures(
    *,
    raised: list[int] | None = None,
    before: list[int] | None = None,
    goal: int = 500_000,
    forecast: int | None = None,
    currency: str = "USD",
    days: int = 30,
) -> Figures:
    return Figures(currency=currency, days=days, raised=raised or [], before=before or [], goal=goal, forecast=forecast)


def places(points: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (point.split(",") for point in points.split())]


@pytest.mark.parametrize("frame", FRAMES)
def test_a_curve_has_a_point_a_day_and_never_falls_outside_its_frame(frame: Frame) -> None:
    drawn = charts.curve(figures=figures(raised=[1000, 1000, 900_000], before=[7] * 31, days=30), frame=frame)
    points = places(drawn.raised)
    assert len(points) == 3
    assert len(places(drawn.before)) == 30
    for x, y in [*points, *places(drawn.before), *places(drawn.area)]:
        assert 0 <= x <= frame.width
        assert frame.top <= y <= frame.base


@pytest.mark.parametrize("frame", FRAMES)
def test_more_money_stands_higher_and_later_days_further_right(frame: Frame) -> None:
    (x1, y1), (x2, y2), (x3, y3) = places(
        charts.curve(figures=figures(raised=[0, 100_000, 400_000]), frame=frame).raised
    )
    assert x1 < x2 < x3
    assert y1 == frame.base
    assert y1 > y2 > y3


@pytest.mark.parametrize("frame", FRAMES)
def test_an_empty_month_without_a_goal_draws_axes_alone(frame: Frame) -> None:
    drawn = charts.curve(figures=figures(goal=0), frame=frame)
    assert (drawn.raised, drawn.area, drawn.before, drawn.labels, drawn.spots) == ("", "", "", (), ())
    assert drawn.pace is drawn.forecast is drawn.now is None
    assert len(drawn.grid) >= 2
    assert [label.text for label in drawn.dates] == ["1", "8", "15", "22", "30"]


def test_the_pace_ends_at_the_goal_and_the_forecast_begins_at_today() -> None:
    drawn = charts.curve(figures=figures(raised=[0, 200_000], forecast=300_000), frame=WIDE)
    assert drawn.pace
    assert drawn.forecast
    assert drawn.now == (drawn.forecast.x1, drawn.forecast.y1)
    assert drawn.pace.x2 == drawn.forecast.x2
    assert float(drawn.pace.y2) < float(drawn.forecast.y2)


def test_a_forecast_on_the_last_day_is_not_drawn() -> None:
    drawn = charts.curve(figures=figures(raised=[1000] * 30, forecast=1000), frame=WIDE)
    assert drawn.forecast is None
    assert [label.text for label in drawn.labels] == ["10\u00a0$", "Goal"]


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("raised", [[5], [250_000] * 15, [490_000] * 29, [500_000] * 30, [9_000_000] * 30])
def test_labels_never_cover_one_another_and_stay_in_the_frame(frame: Frame, raised: list[int]) -> None:
    drawn = charts.curve(figures=figures(raised=raised, forecast=raised[-1] * 30 // len(raised)), frame=frame)
    boxes = [
        charts._box(x=float(label.x), y=float(label.y), anchor=label.anchor, text=label.text, font=frame.font)
        for label in drawn.labels
    ]
    assert drawn.labels[0].kind == "now"
    for number, box in enumerate(boxes):
        assert not any(charts._overlap(box, other) for other in boxes[:number])
    for left, top, right, bottom in boxes:
        assert left >= 0
        assert right <= frame.width
        assert top >= 0
        assert bottom <= frame.height


@pytest.mark.parametrize(
    "highest, step",
    [(500_000, 100_000), (1, 100), (100, 100), (600, 200), (123_456, 50_000), (99_999_999, 20_000_000)],
)
def test_marks_stand_at_round_distances(highest: int, step: int) -> None:
    assert charts.tick_step(highest, whole=100) == step
    assert step * 5 >= highest


def test_a_currency_without_decimals_has_its_own_marks() -> None:
    drawn = charts.curve(figures=figures(raised=[3], goal=10, currency="JPY"), frame=WIDE)
    assert [label.text for label in drawn.amounts] == [f"{n}\u00a0¥" for n in (0, 2, 4, 6, 8, 10)]


@pytest.mark.parametrize("frame", FRAMES)
def test_the_largest_amounts_leave_room_for_the_curve(frame: Frame) -> None:
    drawn = charts.curve(figures=figures(raised=[99_999_999_00], goal=99_999_999_00), frame=frame)
    assert places(drawn.raised)[0][0] < frame.width / 2


def test_a_column_is_at_most_full_while_its_words_tell_the_truth() -> None:
    month = Month.parse("2024-11")
    goals = [(0, 5), (100, 0), (100, 50), (100, 250)]
    none, empty, half, above = charts.columns(
        standings=[Standing(month=month, goal=goal, raised=raised) for goal, raised in goals]
    )
    assert (none.text, none.height, none.label) == ("–", "0.0", "November 2024: no goal")
    assert (empty.text, empty.height) == ("0%", "0.0")
    assert (half.text, half.height, half.y) == ("50%", "60.0", "90.0")
    assert (above.text, above.height, above.label) == ("250%", "120.0", "November 2024: 250% of the goal")


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("goal", [480_000, 500_000, 520_000])
def test_no_label_covers_todays_mark(frame: Frame, goal: int) -> None:
    month = figures(raised=[500_000] * 30, goal=goal)
    dot = charts._dot(charts.Plane(figures=month, frame=frame), month)
    for label in charts.curve(figures=month, frame=frame).labels:
        box = charts._box(x=float(label.x), y=float(label.y), anchor=label.anchor, text=label.text, font=frame.font)
        assert not charts._overlap(box, dot)
