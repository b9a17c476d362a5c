"""A bar as JSON, and as what the pages' markup needs."""

import hashlib
import json
from typing import Any

from django.conf import settings

from donations import money
from donations.selectors.bar import Bar

VERSION = 1


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


def rendered(bar: Bar) -> tuple[bytes, str]:
    """`meter.json` as bytes, and their ETag."""
    body = json.dumps(meter(bar), separators=(",", ":")).encode()
    return body, f'"{hashlib.sha256(body).hexdigest()[:20]}"'


def context(bar: Bar) -> dict[str, Any]:
    """What `_bar.html` shows: the meter, and a value that stays within the scale for assistive technology."""
    shown = meter(bar)
    return shown | {"now": max(0, min(bar.raised, bar.goal)), "half": (shown["fill"] + 1) // 2}
