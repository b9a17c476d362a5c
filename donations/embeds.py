"""A bar as JSON, as a picture, as a page for a frame, and as what other pages' markup needs."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.template.loader import render_to_string
from django.utils.html import format_html, format_html_join

from donations import money
from donations.selectors.bar import Bar

VERSION = 1
PICTURE_WIDTH = 600  # between the margins; the picture is 640 × 132


def meter(bar: Bar) -> dict[str, Any]:
    """`meter.json`, version 1, field by field as docs/embedding.md has it. Fields are only ever added."""
    percent = bar.raised * 100 // bar.goal if bar.goal else 0
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
        "text": f"{raised} raised of the {money.format_minor(bar.goal, bar.currency)} goal in {bar.month.label}",
        "gifts": bar.gifts,
        "supporters": bar.supporters,
        "cta": f"Support {settings.SITE_NAME}",
        "url": f"{settings.SITE_URL}/give/{bar.campaign}/",
        "time_zone": bar.time_zone,
        "as_of": bar.changed_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "livemode": settings.LIVEMODE,
    }


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


def picture(shown: dict[str, Any]) -> str:
    """The bar as an SVG without script, style sheet or font of its own: for places that take images alone."""
    last = max(1, len(shown["scale"]) - 1)
    anchors = ["start", *["middle"] * (last - 1), "end"]
    marks = [
        (20 + PICTURE_WIDTH * place // last, anchor, mark["label"])
        for place, (anchor, mark) in enumerate(zip(anchors, shown["scale"], strict=False))
    ]
    filled = PICTURE_WIDTH * shown["fill"] // 100
    return format_html(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 132" width="640" height="132" role="img" '
        'font-family="system-ui, sans-serif"><title>{text}</title>'
        '<rect width="640" height="132" rx="12" fill="#fff"/>{marks}'
        '<text x="{x}" y="64" font-size="24" font-weight="600" fill="#14201c" text-anchor="{anchor}">{raised}</text>'
        '<text x="20" y="32" font-size="13" letter-spacing="1.5" fill="#40504a">{label}</text>'
        '<rect x="20" y="78" width="600" height="14" rx="7" fill="#dfe5e2"/>'
        '<rect x="20" y="78" width="{filled}" height="14" rx="7" fill="#0d5c4b"/></svg>\n',
        text=shown["text"],
        marks=format_html_join(
            "", '<text x="{}" y="114" font-size="14" fill="#40504a" text-anchor="{}">{}</text>', marks
        ),
        x=20 + filled,
        anchor="start" if shown["fill"] < 12 else "end" if shown["fill"] > 88 else "middle",
        raised=shown["raised_label"],
        label=shown["label"],
        filled=filled,
    )


def context(bar: Bar) -> dict[str, Any]:
    """What `_bar.html` shows: the meter, and a value that stays within the scale for assistive technology."""
    shown = meter(bar)
    return shown | {"now": max(0, min(bar.raised, bar.goal)), "half": (shown["fill"] + 1) // 2}
