"""What every request passes: whom we believe about the caller, and what a page may load."""

from collections.abc import Callable
from ipaddress import ip_address, ip_network

from csp.constants import HEADER
from csp.middleware import CSPMiddleware
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase


class TrustedProxies:
    """Take X-Forwarded-For and -Proto from our own proxies, and drop them from everybody else."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.networks = [ip_network(name, strict=False) for name in settings.TRUSTED_PROXIES]

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Set REMOTE_ADDR and the scheme to what the last trusted proxy says."""
        chain = request.META.pop("HTTP_X_FORWARDED_FOR", "")
        scheme = request.META.pop("HTTP_X_FORWARDED_PROTO", "")
        if self.networks and self._trusted(request.META.get("REMOTE_ADDR", "")):
            if scheme in {"http", "https"}:
                request.META["wsgi.url_scheme"] = scheme
                request.environ["wsgi.url_scheme"] = scheme  # type: ignore[attr-defined]
            strangers = [name.strip() for name in chain.split(",") if not self._trusted(name.strip())]
            if strangers:
                request.META["REMOTE_ADDR"] = strangers[-1]
        return self.get_response(request)

    def _trusted(self, address: str) -> bool:
        try:
            place = ip_address(address)
        except ValueError:
            return False
        return any(place in network for network in self.networks)


class ContentSecurityPolicy(CSPMiddleware):
    """The site's policy on every response that brings none of its own; for one that does, none is put together."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Leave a response with a policy alone."""
        return response if HEADER in response else super().process_response(request, response)
