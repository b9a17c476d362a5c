"""The sandbox as one WSGI application: the API, the payment page, the dashboard and its controls."""

import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import billing_pages, dashboard, pages, pay_page
from .api import Api
from .clock import Clock
from .control import Control
from .deliveries import Courier, Target
from .errors import ApiError
from .jobs import Ticker
from .store import StateUnusable, Store
from .trouble import HungUp, Trouble
from .web import Request, Response, as_json, origin_of, request_of

StartResponse = Callable[..., Any]


class Sandbox:
    """A local Stripe. `start` its threads, call it as a WSGI application, `close` it."""

    def __init__(self, state: Path, target: Target, *, public_url: str = "", clock: Clock | None = None) -> None:
        self.public_url = origin_of(public_url)
        self.own_names: frozenset[str] | None = None
        self.store = Store(state, clock or Clock())
        self.trouble = Trouble(self.store)
        self.courier = Courier(self.store, target)
        self.ticker = Ticker(self.store)
        self.api = Api(self.store, self.trouble)
        self.control = Control(self.store, self.trouble, self.courier)
        self.store.after_commit = self.courier.wake

    def start(self) -> None:
        self.courier.start()
        self.ticker.start()

    def close(self) -> None:
        """Stop at once; what was under way stays queued in the state."""
        self.trouble.stop()
        self.ticker.stop()
        self.courier.stop()
        self.store.close()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        response = self._answer(environ)
        length = {"Content-Length": str(len(response.body))}
        start_response(response.status_line, list((response.headers | length).items()))
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else response.body]

    def _answer(self, environ: dict[str, Any]) -> Response:
        try:
            return self.route(request_of(environ, self.public_url))
        except ApiError as error:
            return as_json(error.body(), error.status)
        except HungUp:
            # The server ends the connection, without a word.
            raise
        except StateUnusable:
            return as_json(ApiError("The sandbox is stopping.", kind="api_error").body(), 503)
        except Exception:  # noqa: BLE001 (whatever it is, the caller gets an answer, and the log the reason)
            traceback.print_exc(file=sys.stderr)
            return as_json(ApiError("The sandbox made a mistake; its log says which.", kind="api_error").body(), 500)

    def route(self, request: Request) -> Response:
        """The response of the room that a path belongs to."""
        if self.own_names is not None and request.host not in self.own_names:
            # A page elsewhere whose name was made to lead here: it must not steer us.
            raise ApiError(f"The sandbox does not answer to the name {request.host}.", status=403)
        path = request.path
        if path.startswith("/v1/"):
            return self.api.answer(request)
        if path.startswith("/_control/"):
            return self.control.answer(request)
        if path.startswith("/pay/"):
            return pay_page.answer(self.store, request, path.removeprefix("/pay/"))
        if path.startswith("/invoice/"):
            return billing_pages.invoice(self.store, request, path.removeprefix("/invoice/"))
        if path.startswith("/portal/"):
            return billing_pages.portal(self.store, request, path.removeprefix("/portal/"))
        if path == "/":
            return dashboard.answer(self.control.state(), self.courier.target.url)
        return pages.static(path.removeprefix("/static/")) or pages.page(
            "Not found",
            pages.fill("closed.html", title="Not found", text="There is no such page.", back=""),
            status=404,
        )
