"""Figures to SVG geometry: where lines, marks and labels stand. Templates draw them with presentation attributes alone.

Coordinates are texts, so that no template writes a thousands separator into them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from donations import money
from donations.selectors.dashboard import Standing, even_pace

LETTER = 0.6  # the width of a digit, in font sizes
DOT = 5  # the radius of today's mark
GAPS = (-0.7, 1.4, -1.9, 2.6)  # where a label may stand around its point, in font sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The room for a chart, in the units of its viewBox. A narrow one is drawn for phones, with labels as large."""

    name: str
    width: int
    height: int
    font: int
    top: int = 24
    right: int = 12
    bottom: int = 28

    @property
    def base(self) -> int:
        return self.height - self.bottom


WIDE = Frame(name="wide", width=720, height=300, font=14)
NARROW = Frame(name="narrow", width=320, height=270, font=13)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the curve shows, minor units: sums at the end of each day, of this month and of the one before."""

    currency: str
    days: int
    raised: Sequence[int]
    before: Sequence[int]
    goal: int
    forecast: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A text at a place, with the end of it that the place is."""

    x: str
    y: str
    anchor: str
    text: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A straight line."""

    x1: str
    y1: str
    x2: str
    y2: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A day's column under the pointer, with what it tells."""

    x: str
    width: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The cumulative curve of a month, drawn. What there is nothing to draw of is empty or None."""

    name: str
    view_box: str
    top: str
    height: str
    grid: tuple[Line, ...]
    amounts: tuple[Label, ...]
    dates: tuple[Label, ...]
    area: str
    raised: str
    before: str
    pace: Line | None
    forecast: Line | None
    now: tuple[str, str] | None
    labels: tuple[Label, ...]
    spots: tuple[Spot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A month's share of its goal, drawn: at most full, though its words may say more."""

    month: str
    short: str
    text: str
    label: str
    x: str
    middle: str
    y: str
    height: str


class Plane:
    """Days and amounts as places in a frame."""

    def __init__(self, *, figures: Figures, frame: Frame) -> None:
        whole: int = 10 ** money.exponent(figures.currency)
        highest = max(whole, figures.goal, figures.forecast or 0, *figures.raised, *figures.before)
        self.step = tick_step(highest, whole=whole)
        self.highest = -(-highest // self.step) * self.step
        self.frame, self.days = frame, figures.days
        longest = max(len(amount_text(value, figures.currency)) for value in self.ticks)
        self.left = round(longest * frame.font * LETTER) + 8

    @property
    def ticks(self) -> range:
        return range(0, self.highest + 1, self.step)

    def x(self, day: int) -> float:
        """Where a day of the month ends; the first is at the left edge."""
        return self.left + (self.frame.width - self.frame.right - self.left) * (day - 1) / (self.days - 1)

    def y(self, amount: int) -> float:
        return self.frame.base - (self.frame.base - self.frame.top) * amount / self.highest

    def points(self, amounts: Sequence[int]) -> str:
        return " ".join(f"{self.x(day):.1f},{self.y(amount):.1f}" for day, amount in enumerate(amounts, 1))

    def line(self, *, start: tuple[int, int], end: tuple[int, int]) -> Line:
        """From a day and amount to another."""
        return Line(
            x1=_text(self.x(start[0])), y1=_text(self.y(start[1])), x2=_text(self.x(end[0])), y2=_text(self.y(end[1]))
        )


def amount_text(minor: int, currency: str) -> str:
    """An amount for people that no line break divides."""
    return money.format_minor(minor, currency).replace(" ", "\u00a0")


def tick_step(highest: int, *, whole: int) -> int:
    """A round distance, in whole units of the currency, of which at most five reach `highest`."""
    step = whole
    while True:
        for factor in (1, 2, 5):
            if step * factor * 5 >= highest:
                return step * factor
        step *= 10


def curve(*, figures: Figures, frame: Frame) -> Curve:
    """The curve of a month against an even pace to its goal, last month's curve and the forecast."""
    plane = Plane(figures=figures, frame=frame)
    today = len(figures.raised)
    points = plane.points(figures.raised)
    forecast = None
    if figures.forecast is not None and 0 < today < figures.days:
        forecast = plane.line(start=(today, figures.raised[-1]), end=(figures.days, figures.forecast))
    return Curve(
        name=frame.name,
        view_box=f"0 0 {frame.width} {frame.height}",
        top=str(frame.top),
        height=str(frame.base - frame.top),
        grid=tuple(plane.line(start=(1, tick), end=(figures.days, tick)) for tick in plane.ticks),
        amounts=tuple(_amounts(plane, figures.currency)),
        dates=tuple(_dates(plane)),
        area=f"{plane.x(1):.1f},{frame.base} {points} {plane.x(today):.1f},{frame.base}" if today else "",
        raised=points,
        before=plane.points(figures.before[: figures.days]),
        pace=plane.line(start=(1, figures.goal // figures.days), end=(figures.days, figures.goal))
        if figures.goal
        else None,
        forecast=forecast,
        now=(_text(plane.x(today)), _text(plane.y(figures.raised[-1]))) if today else None,
        labels=tuple(_labels(plane, figures)),
        spots=tuple(_spots(plane, figures)),
    )


def _text(place: float) -> str:
    return f"{place:.1f}"


def _amounts(plane: Plane, currency: str) -> Iterator[Label]:
    for tick in plane.ticks:
        x, y = _text(plane.left - 8), _text(plane.y(tick) + plane.frame.font / 3)
        yield Label(x=x, y=y, anchor="end", text=amount_text(tick, currency), kind="axis")


def _dates(plane: Plane) -> Iterator[Label]:
    y = str(plane.frame.height - 6)
    for day in (1, 8, 15, 22, plane.days):
        yield Label(x=_text(plane.x(day)), y=y, anchor="middle", text=str(day), kind="axis")


def _labels(plane: Plane, figures: Figures) -> Iterator[Label]:
    """Today's sum, the goal and the forecast, each where no other stands; one without a free place is left out."""
    taken = [_dot(plane, figures)] if figures.raised else []
    for day, amount, text, kind in _wanted(figures):
        for gap in GAPS:
            x, y = plane.x(day), plane.y(amount) + gap * plane.frame.font
            anchor = "start" if x - len(text) * plane.frame.font * LETTER < plane.left else "end"
            box = _box(x=x, y=y, anchor=anchor, text=text, font=plane.frame.font)
            if plane.frame.font <= y < plane.frame.base and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                yield Label(x=_text(x), y=_text(y), anchor=anchor, text=text, kind=kind)
                break


def _wanted(figures: Figures) -> Iterator[tuple[int, int, str, str]]:
    """The labels, the most important first: day, amount, text, kind."""
    today = len(figures.raised)
    if today:
        yield today, figures.raised[-1], amount_text(figures.raised[-1], figures.currency), "now"
    if figures.goal:
        yield figures.days, figures.goal, "Goal", "end"
    if figures.forecast is not None and today < figures.days:
        yield figures.days, figures.forecast, amount_text(figures.forecast, figures.currency), "end"


def _dot(plane: Plane, figures: Figures) -> tuple[float, float, float, float]:
    x, y = plane.x(len(figures.raised)), plane.y(figures.raised[-1])
    return (x - DOT, y - DOT, x + DOT, y + DOT)


def _box(*, x: float, y: float, anchor: str, text: str, font: int) -> tuple[float, float, float, float]:
    width = len(text) * font * LETTER * 1.2
    left = x if anchor == "start" else x - width
    return (left, y - font, left + width, y + font * 0.3)


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _spots(plane: Plane, figures: Figures) -> Iterator[Spot]:
    width = plane.x(2) - plane.x(1)
    for day, raised in enumerate(figures.raised, 1):
        words = f"Day {day}: {amount_text(raised, figures.currency)} so far"
        if figures.goal:
            pace = even_pace(goal=figures.goal, currency=figures.currency, day=day, days=figures.days)
            words += f", even pace {amount_text(pace, figures.currency)}"
        yield Spot(x=_text(plane.x(day) - width / 2), width=_text(width), text=words)


# ---- month over month

COLUMN, GAP, FLOOR, FULL = 48, 12, 150, 120


def columns(*, standings: Sequence[Standing]) -> tuple[Column, ...]:
    """Each month's share of its goal as a column, the oldest first."""
    return tuple(_column(number, standing) for number, standing in enumerate(standings))


def _column(number: int, standing: Standing) -> Column:
    percent = standing.percent
    height = FULL * min(percent or 0, 100) / 100
    x = number * (COLUMN + GAP)
    reached = f"{percent:,}% of the goal" if percent is not None else "no goal"
    return Column(
        month=str(standing.month),
        short=standing.month.label[:3],
        text=f"{percent:,}%" if percent is not None else "–",
        label=f"{standing.month.label}: {reached}",
        x=str(x),
        middle=str(x + COLUMN // 2),
        y=_text(FLOOR - height),
        height=_text(height),
    )
