"""Requests and responses: what is between WSGI and the rooms."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from . import params
from .errors import ApiError

Environ = Mapping[str, Any]
LARGEST_BODY = 1_000_000
SHORT_LIST = 10


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. `headers` have lower-case names; `own` is the origin by which we were called."""

    method: str
    path: str
    query: str
    body: bytes
    headers: dict[str, str]
    own: str

    @property
    def host(self) -> str:
        """The name that we were called by, without its port."""
        return re.sub(r":\d*$", "", self.headers.get("host", "localhost")).lower()

    @property
    def form(self) -> str:
        """The form body. Raises ApiError if it is not UTF-8."""
        try:
            return self.body.decode("ascii")
        except UnicodeDecodeError as error:
            raise ApiError("Invalid request body: a form is ASCII, with %-escapes") from error

    def fields(self) -> dict[str, str]:
        """The fields of a browser's form, or of a flat JSON object; the last of a name counts."""
        if self.headers.get("content-type", "").startswith("application/json"):
            return _flat_json(self.body)
        return dict(params.pairs(self.form))

    def wants_json(self) -> bool:
        return not self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")

    def is_same_origin(self) -> bool:
        """Whether one of our own pages, or no browser at all, sent this."""
        if self.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return False
        return self.headers.get("origin", self.own) == self.own


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response; its length is added when it is sent."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def status_line(self) -> str:
        return f"{self.status} {HTTPStatus(self.status).phrase}"


def request_of(environ: Environ, public_url: str) -> Request:
    """The request of a WSGI environment. `public_url`, if set, stands for the origin of all our addresses."""
    headers = {k[5:].replace("_", "-").lower(): v for k, v in environ.items() if k.startswith("HTTP_")}
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    return Request(
        method=environ["REQUEST_METHOD"],
        path=environ.get("PATH_INFO", "/") or "/",
        query=environ.get("QUERY_STRING", ""),
        body=_body(environ),
        headers=headers,
        own=public_url or f"http://{headers.get('host', 'localhost')}",
    )


def _body(environ: Environ) -> bytes:
    text = environ.get("CONTENT_LENGTH") or "0"
    length = int(text) if text.isascii() and text.isdigit() else 0
    if length > LARGEST_BODY:
        raise ApiError("The request body is too large.", status=413)
    body: bytes = environ["wsgi.input"].read(length) if length else b""
    return body


def _flat_json(body: bytes) -> dict[str, str]:
    """A JSON object of texts, numbers and booleans, as a form would send it."""
    try:
        given = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise ApiError("The body is not JSON.") from error
    if not isinstance(given, dict) or any(isinstance(value, dict | list) for value in given.values()):
        raise ApiError("The body must be a JSON object of texts, numbers and booleans.")
    return {name: _text(value) for name, value in given.items() if value is not None}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def as_json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON as Stripe writes it: indented, UTF-8. A long list goes without: nobody reads it, and it takes as long."""
    long = isinstance(content, dict) and len(content.get("data", ())) > SHORT_LIST
    body = json.dumps(content, indent=None if long else 2, ensure_ascii=False).encode()
    plain = {"Content-Type": "application/json", "Cache-Control": "no-cache, no-store"}
    return Response(status, body, plain | (headers or {}))


def see_other(location: str) -> Response:
    return Response(303, b"", {"Location": location, "Cache-Control": "no-store"})


def origin_of(address: str) -> str:
    """The origin of a URL, in ASCII and fit for a header; empty where there is none."""
    try:
        parts = urlsplit(address)
        host = (parts.hostname or "").encode("idna").decode()
        port = f":{parts.port}" if parts.port else ""
    except (ValueError, UnicodeError):
        return ""
    host = f"[{host}]" if ":" in host else host
    usable = parts.scheme in ("http", "https") and host and not set(host) & set(" ;,'\"")
    return f"{parts.scheme}://{host}{port}" if usable else ""
