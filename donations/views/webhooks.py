"""The processor's deliveries: verified, stored, answered; all else is the inbox's."""

import logging

from django.db import Error
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.views.decorators.csrf import csrf_exempt

from donations import inbox, ticker
from donations.processors.base import BadDelivery
from donations.reconnecting import reconnecting

log = logging.getLogger(__name__)
LARGEST_BODY = 256 * 1024
HEADERS = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}


@csrf_exempt
def stripe(request: HttpRequest) -> HttpResponse:
    """200 once the event is stored; 400 or 413 for what is no delivery; 503 while the database is away."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"], headers=HEADERS)
    if _length(request) > LARGEST_BODY:
        return _answer(b"too large\n", 413)
    body, signature = _body(request), request.META.get("HTTP_STRIPE_SIGNATURE")
    if len(body) > LARGEST_BODY:
        return _answer(b"too large\n", 413)
    try:
        reconnecting(lambda: inbox.receive(processor="stripe", body=body, signature=signature))
    except BadDelivery:
        return _answer(b"not a delivery\n", 400)
    except Error:
        log.exception("a delivery could not be stored; its sender will repeat it")
        return _answer(b"try again later\n", 503)
    ticker.wake()
    return _answer(b"", 200)


def _answer(words: bytes, status: int) -> HttpResponse:
    """Plain words to a program: a browser that shows them has nothing to load, and no page to show them in."""
    return HttpResponse(words, status=status, content_type="text/plain", headers=HEADERS)


def _body(request: HttpRequest) -> bytes:
    """The body, or one byte more than is taken of it.

    Django reads nothing of what tells no length, as what a proxy hands on in chunks. A server that marks the end of
    a body by itself says so; any other could be read for ever. What breaks off has no good signature.
    """
    ends = request.META.get("wsgi.input_terminated") and not request.META.get("CONTENT_LENGTH")
    found: bytes = (request.META["wsgi.input"] if ends else request).read(LARGEST_BODY + 1)
    return found


def _length(request: HttpRequest) -> int:
    length = request.META.get("CONTENT_LENGTH") or "0"
    return int(length) if length.isascii() and length.isdigit() and len(length) < 12 else LARGEST_BODY + 1
