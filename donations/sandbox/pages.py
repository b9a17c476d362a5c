"""Pages: templates filled in with everything escaped, sent with a policy that allows no script at all."""

import string
from functools import cache
from html import escape
from pathlib import Path

from .web import Response

HERE = Path(__file__).parent
STATIC = {"sandbox.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"}
POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def fill(template: str, /, **values: object) -> Html:
    """A file of templates/, with its `$names` filled in; all but Html is escaped."""
    return Html(_template(template).substitute({key: _safe(value) for key, value in values.items()}))


def tag(name: str, content: object = "", /, **attributes: str) -> Html:
    """One element. `class_` is class; an attribute that is empty is left out."""
    given = "".join(f' {key.rstrip("_")}="{_safe(value)}"' for key, value in attributes.items() if value)
    return Html(f"<{name}{given}>{_safe(content)}</{name}>")


def hidden(name: str, value: str) -> Html:
    """A field of a form that nobody sees."""
    return Html(f'<input type="hidden" name="{_safe(name)}" value="{_safe(value)}">')


def text(content: str) -> Html:
    return Html(escape(content))


def join(parts: list[Html]) -> Html:
    return Html("\n".join(parts))


def page(title: str, content: Html, *, status: int = 200, form_origins: tuple[str, ...] = ()) -> Response:
    """A whole page. A form's answer may lead to `form_origins`: browsers hold redirects to form-action, too."""
    targets = " ".join(("'self'", *filter(None, form_origins)))
    policy = f"{POLICY}; form-action {targets}"
    body = fill("base.html", title=title, content=content).encode()
    return Response(status, body, _headers("text/html; charset=utf-8") | {"Content-Security-Policy": policy})


def static(name: str) -> Response | None:
    """A file of static/."""
    if name not in STATIC:
        return None
    headers = _headers(STATIC[name]) | {"Cache-Control": "no-cache"}
    return Response(200, (HERE / "static" / name).read_bytes(), headers)


def _headers(kind: str) -> dict[str, str]:
    return {
        "Content-Type": kind,
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        # Not no-referrer: browsers would then send "Origin: null" with our own forms.
        "Referrer-Policy": "same-origin",
    }


def _safe(value: object) -> str:
    return value if isinstance(value, Html) else escape(str(value), quote=True)


@cache
def _template(name: str) -> string.Template:
    return string.Template((HERE / "templates" / name).read_text(encoding="utf-8"))
