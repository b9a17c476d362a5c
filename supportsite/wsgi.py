"""The site as a WSGI application; each process that loads it also runs the in-process worker."""

import logging
import os
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from django.core.exceptions import SuspiciousOperation
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "supportsite.settings")
log = logging.getLogger(__name__)

site = get_wsgi_application()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The site. Django reads some headers before it guards against errors: what it cannot read there is a 400."""
    try:
        return site(environ, start_response)
    except (LookupError, ValueError, SuspiciousOperation) as error:
        log.warning("a request could not be read: %s", type(error).__name__)
        start_response("400 Bad Request", [("Content-Type", "text/plain"), ("Content-Length", "15")])
        return [b"cannot be read\n"]


from donations import ticker  # noqa: E402  (models load only once Django is set up)

ticker.start()
