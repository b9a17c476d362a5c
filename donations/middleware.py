"""What every request passes: whom we believe about the caller, how text is read, and what a page may load."""

import codecs
import logging
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network

from csp.constants import HEADER
from csp.middleware import CSPMiddleware
from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.loader import render_to_string
from django.template.response import SimpleTemplateResponse
from django.urls import resolve, reverse

from donations.reconnecting import AWAY

log = logging.getLogger(__name__)
SAFE = {"GET", "HEAD"}


class TrustedProxies:
    """Take X-Forwarded-For and -Proto from our own proxies, and drop them from everybody else."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.networks = [ip_network(name, strict=False) for name in settings.TRUSTED_PROXIES]

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Set REMOTE_ADDR and the scheme to what the last trusted proxy says."""
        chain = request.META.pop("HTTP_X_FORWARDED_FOR", "")
        scheme = request.META.pop("HTTP_X_FORWARDED_PROTO", "")
        request.META["REMOTE_ADDR"] = _plain(request.META.get("REMOTE_ADDR", ""))
        if self.networks and self._trusted(request.META["REMOTE_ADDR"]):
            if scheme in {"http", "https"}:
                request.META["wsgi.url_scheme"] = scheme
                request.environ["wsgi.url_scheme"] = scheme  # type: ignore[attr-defined]
            named = [_plain(name.strip()) for name in chain.split(",") if name.strip()]
            strangers = [name for name in named if not self._trusted(name)]
            if strangers:
                request.META["REMOTE_ADDR"] = strangers[-1]
        return self.get_response(request)

    def _trusted(self, address: str) -> bool:
        try:
            place = ip_address(address)
        except ValueError:
            return False
        return any(place in network for network in self.networks)


def _plain(address: str) -> str:
    """An IPv4 address as such: a server that listens on IPv6 writes it as ::ffff:203.0.113.7."""
    if ":" not in address:
        return address
    try:
        return str(IPv6Address(address).ipv4_mapped or address)
    except ValueError:
        return address


class ContentSecurityPolicy(CSPMiddleware):
    """The site's policy on every response that brings none of its own; for one that does, none is put together."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Leave a response with a policy alone."""
        return response if HEADER in response else super().process_response(request, response)


class Utf8Alone:
    """Read every request as UTF-8. Python knows encodings by name that are none of text, and fails on them later."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Refuse a body in another encoding; where there is none to be read, pass over what was said of it."""
        if request.encoding and codecs.lookup(request.encoding).name != "utf-8":
            if request.method not in {"GET", "HEAD"}:
                return HttpResponse("Send it as UTF-8.\n", status=415, content_type="text/plain")
            request.encoding = "utf-8"
        return self.get_response(request)


class AdminWithoutNul:
    """Refuse an address of the admin's with a NUL: it looks up whatever it is asked, and PostgreSQL fails on one."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """400, in words."""
        has_nul = "\x00" in request.path_info or "%00" in request.META.get("QUERY_STRING", "")
        if has_nul and request.path_info.startswith(reverse("admin:index")):
            return HttpResponse("No page has such an address.\n", status=400, content_type="text/plain")
        return self.get_response(request)


class BoundedBodies:
    """Refuse a body that is larger than any form of ours: Django would take in a file that nobody asked for."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """413, unread. What tells no length is not read by anything behind us."""
        length = request.META.get("CONTENT_LENGTH") or "0"
        if length.isascii() and length.isdigit() and int(length[:20]) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            return HttpResponse("This is more than the site takes at once.\n", status=413, content_type="text/plain")
        return self.get_response(request)


class DatabaseAway:
    """Answer for the database while it is away: with the page after all, or with a sentence and 503."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """A form must not be the one that finds a dead connection: it would be refused, as nobody sends it twice."""
        if request.method not in SAFE and not connection.in_atomic_block and not _is_alive():
            connection.close()
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, problem: Exception) -> HttpResponse | None:
        """What only reads is asked once more on a new connection; a form is not: it may have been done already."""
        if not isinstance(problem, AWAY):
            return None
        connection.close()
        if request.method in SAFE and request.resolver_match:
            asked = request.resolver_match
            try:
                response = asked.func(request, *asked.args, **asked.kwargs)
                return response.render() if isinstance(response, SimpleTemplateResponse) else response
            except AWAY as again:
                problem = again
                connection.close()
        page = request.resolver_match.view_name if request.resolver_match else ""
        log.error("the page %s could not be answered: the database is away", page, exc_info=problem)
        words = render_to_string("503.html", {"livemode": settings.LIVEMODE})
        return HttpResponse(words, status=503, headers={"Retry-After": "5", "Cache-Control": "no-store"})


def _is_alive() -> bool:
    """Whether the connection that was kept answers; none that was opened yet is none that is dead."""
    return connection.connection is None or connection.is_usable()


class DeliveriesFirst:
    """Answer the processor's deliveries here: they have no session, no user and no form, and come by the thousand."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        path = reverse("webhook-stripe")
        # The processor follows no redirect: an endpoint that was typed without the last slash would get nothing.
        self.paths = {path, path.removesuffix("/")}
        self.view: Callable[[HttpRequest], HttpResponse] = resolve(path).func

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """The webhook's view, with nothing of what stands behind us between; every other page as ever."""
        if request.path in self.paths:
            return self.view(request)
        return self.get_response(request)
