"""A bar as JSON, as a picture, as a page for a frame, and as what other pages' markup needs."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.template.loader import render_to_string
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe

from donations import money
from donations.selectors.bar import Bar

VERSION = 1
PICTURE_WIDTH = 600  # between the margins; the picture is 640 × 132

BARS = (240, 288, 384, 480)
"""How wide a bar is, px: at least, on a page of 320 px, and from where `meter.css` shows more marks' words."""
GAP = 6
WIDEST_DIGIT, WIDEST_SIGN, WIDEST_LETTER = 9.0, 4.5, 12.0  # px, of the fonts that are about, at the marks' 14 px


def meter(bar: Bar) -> dict[str, Any]:
    """`meter.json`, version 1, field by field as docs/embedding.md has it. Fields are only ever added."""
    percent = _percent(bar.raised, bar.goal)
    raised = money.format_minor(bar.raised, bar.currency)
    return {
        "v": VERSION,
        "campaign": bar.campaign,
        "month": str(bar.month),
        "label": bar.month.label.upper(),
        "heading": bar.name,
        "currency": bar.currency,
        "raised": bar.raised,
        "goal": bar.goal,
        "pending": bar.pending,
        "percent": percent,
        "fill": max(0, min(100, percent)),
        "raised_label": raised,
        "scale": [{"value": mark, "label": money.format_minor(mark, bar.currency)} for mark in bar.scale],
        "text": f"{raised} raised{_of_the_goal(bar)} in {bar.month.label}",
        "gifts": bar.gifts,
        "supporters": bar.supporters,
        "cta": f"Support {settings.SITE_NAME}",
        "url": f"{settings.SITE_URL}/give/{bar.campaign}/",
        "time_zone": bar.time_zone,
        "as_of": bar.changed_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "livemode": settings.LIVEMODE,
    }


def _percent(amount: int, goal: int) -> int:
    """Floored: a sum is drawn up to a mark, which is floored alike, once it has reached it. 0 without a goal."""
    return amount * 100 // goal if goal else 0


def _of_the_goal(bar: Bar) -> str:
    return f" of the {money.format_minor(bar.goal, bar.currency)} goal" if bar.goal else ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark as it is drawn: where, percent of the bar's length, and from which of `BARS` on its words have room."""

    place: int
    label: str
    room: int | None

    @property
    def rems(self) -> int | None:
        """The same as `meter.css` has it; None where its words are always shown."""
        return None if self.room in (None, BARS[0]) else self.room // 16


def drawn_marks(bar: Bar) -> list[Mark]:
    """The marks where their values stand. 0 and the goal always have their words, those between where there is room."""
    places = [_percent(mark, bar.goal) for mark in bar.scale]
    labels = [money.format_minor(mark, bar.currency) for mark in bar.scale]
    rooms = _rooms(places, labels)
    return [Mark(*of, rooms.get(number)) for number, of in enumerate(zip(places, labels, strict=True))]


def _rooms(places: list[int], labels: list[str]) -> dict[int, int]:
    """From which width on each mark's words stand apart from all others'. What has room keeps it on wider bars."""
    last = len(labels) - 1
    rooms = {0: BARS[0], last: BARS[0]}

    def span(number: int, width: int) -> tuple[float, float]:
        words = _width(labels[number])
        begin = {0: 0.0, last: width - words}.get(number, width * places[number] / 100 - words / 2)
        return begin - GAP / 2, begin + words + GAP / 2

    for width in BARS:
        for number in range(1, last):
            begin, end = span(number, width)
            others = (span(other, width) for other in rooms)
            if number not in rooms and all(end <= left or right <= begin for left, right in others):
                rooms[number] = width
    return rooms


def _width(label: str) -> float:
    """What a mark's words take at most, px."""
    return sum(
        WIDEST_DIGIT if each in "0123456789$€£¥" else WIDEST_SIGN if each in ",. " else WIDEST_LETTER for each in label
    )


@dataclass(frozen=True, slots=True)
class Shape:
    """What is served, and its ETag."""

    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """A bar in every shape that it is served in, and what other pages' markup needs of it."""

    context: dict[str, Any]
    json: Shape
    svg: Shape
    page: Shape


def rendered(bar: Bar) -> Rendered:
    """All shapes of a bar, made once while nothing changes."""
    shown = context(bar)
    page = render_to_string("donations/embed.html", {"bar": shown, "livemode": settings.LIVEMODE})
    return Rendered(
        context=shown,
        json=_shape(json.dumps(meter(bar), separators=(",", ":"))),
        svg=_shape(picture(shown)),
        page=_shape(page),
    )


def _shape(text: str) -> Shape:
    """Each has a tag of its own: a new version of the site may draw the same figures otherwise."""
    body = text.encode()
    return Shape(body, f'"{hashlib.sha256(body).hexdigest()[:20]}"')


TEST_MODE = mark_safe(
    '<text x="620" y="32" font-size="13" font-weight="600" fill="#40504a" text-anchor="end">Test mode</text>'
)


def picture(shown: dict[str, Any]) -> str:
    """The bar as an SVG without script, style sheet or font of its own: for places that take images alone."""
    marks = [mark for mark in shown["marks"] if mark.room]
    anchors = ["start", *["middle"] * (len(marks) - 2), "end"][: len(marks)]
    words = [
        (20 + PICTURE_WIDTH * mark.place // 100, anchor, mark.label)
        for anchor, mark in zip(anchors, marks, strict=True)
    ]
    filled = PICTURE_WIDTH * shown["fill"] // 100
    return format_html(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 132" width="640" height="132" role="img" '
        'font-family="system-ui, sans-serif"><title>{text}</title>'
        '<rect width="640" height="132" rx="12" fill="#fff"/>{marks}'
        '<text x="{x}" y="64" font-size="24" font-weight="600" fill="#14201c" text-anchor="{anchor}">{raised}</text>'
        '<text x="20" y="32" font-size="13" letter-spacing="1.5" fill="#40504a">{label}</text>{mode}'
        '<rect x="20" y="78" width="600" height="14" rx="7" fill="#dfe5e2"/>{ticks}'
        '<rect x="20" y="78" width="{filled}" height="14" rx="7" fill="#0d5c4b"/></svg>\n',
        text=shown["text"],
        marks=format_html_join(
            "", '<text x="{}" y="114" font-size="14" fill="#40504a" text-anchor="{}">{}</text>', words
        ),
        ticks=format_html_join(
            "",
            '<rect x="{}" y="81" width="1" height="8" fill="#6f7d77"/>',
            ((20 + PICTURE_WIDTH * mark.place // 100,) for mark in shown["marks"][1:-1]),
        ),
        x=20 + filled,
        anchor="start" if shown["fill"] < 12 else "end" if shown["fill"] > 88 else "middle",
        raised=shown["raised_label"],
        label=shown["label"],
        mode="" if shown["livemode"] else TEST_MODE,
        filled=filled,
    )


def context(bar: Bar) -> dict[str, Any]:
    """What `_bar.html` shows: the meter, its marks as drawn, and a value within the scale for assistive technology."""
    return meter(bar) | {"marks": drawn_marks(bar), "now": max(0, min(bar.raised, bar.goal))}


def frame(kept: dict[str, str]) -> str:
    """The markup that shows a bar on another site. `kept`: the `campaign` and `month` that it asks for, if any."""
    query = f"?{urlencode(kept)}" if kept else ""
    return format_html(
        '<iframe src="{}" title="Reader support" width="100%" height="240" loading="lazy"></iframe>',
        f"{settings.SITE_URL}/embed/v1/meter{query}",
    )


def link(shown: dict[str, Any]) -> str:
    """The markup of a bar's button on another site."""
    return format_html('<a href="{}">{}</a>', f"{shown['url']}?source=article", shown["cta"])
