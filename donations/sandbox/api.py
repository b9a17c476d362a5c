"""The API under /v1/: how a call is answered. Which calls there are, `endpoints` says."""

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

from . import expand, idempotency, params
from .endpoints import ENDPOINTS, Call, Endpoint
from .errors import ApiError, no_key, unknown_url, wrong_key
from .idempotency import Kept
from .ids import new_id
from .objects import API_VERSION
from .store import Cause, Store, Tx
from .trouble import Setting, Trouble
from .web import Request, Response, as_json

Json = dict[str, Any]
TEST_KEY = re.compile(r"[sr]k_test_[A-Za-z0-9_]{1,240}", re.ASCII)


class Api:
    """Answers calls under /v1/."""

    def __init__(self, store: Store, trouble: Trouble) -> None:
        self.store = store
        self.trouble = trouble
        self.keys = idempotency.KeysInUse()

    def answer(self, request: Request) -> Response:
        """A call's answer, errors included."""
        request_id = new_id("request")
        headers = {"Request-Id": request_id, "Stripe-Version": API_VERSION}
        try:
            authenticate(request)
            key = _key(request)
            if not key:
                return self._suffering(
                    request, lambda told: as_json(*self._run(request, Cause(request_id), told), headers)
                )
            headers |= {"Idempotency-Key": key, "Original-Request": request_id}
            with self.keys.holding(key):
                return self._suffering(request, lambda told: self._once(request, key, request_id, headers, told))
        except ApiError as error:
            return as_json(error.body(), error.status, headers | error.headers)

    def _suffering(self, request: Request, do: Callable[[Setting], Response]) -> Response:
        """Do it, with whatever trouble there is before and after."""
        told = self.trouble.before(request.method, request.path)
        response = do(told)
        self.trouble.after(told)
        return response

    def _once(self, request: Request, key: str, request_id: str, headers: dict[str, str], told: Setting) -> Response:
        """Answer a call with an idempotency key: as before, if there was a before."""
        with self.store.transaction() as tx:
            kept = idempotency.find(tx, key, request.path, request.form)
        if kept is None:
            return as_json(*self._run(request, Cause(request_id, key), told), headers)
        headers |= {"Original-Request": kept.request, "Idempotent-Replayed": "true"}
        return as_json(kept.body, kept.status, headers)

    def _run(self, request: Request, cause: Cause, told: Setting) -> tuple[Json, int]:
        """Find the endpoint, check the parameters, do it, and keep the answer."""
        endpoint, ids = _find(request)
        encoded = request.form if request.method == "POST" else request.query
        given = endpoint.rule(params.nested(encoded), "")
        try:
            self.trouble.within(told)
            with self.store.transaction(cause) as tx:
                body = endpoint.run(Call(tx, given, ids, request.path, request.own))
                answer = _answer(tx, body, given)
                _keep(tx, cause, request, answer)
        except ApiError as error:
            answer = error.body(), error.status
            with self.store.transaction() as tx:
                _keep(tx, cause, request, answer)
        return answer


def authenticate(request: Request) -> None:
    """Any test key will do, as Bearer or as the user of Basic. Raises ApiError 401."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    key = credentials.strip() if scheme.lower() == "bearer" else ""
    if scheme.lower() == "basic":
        try:
            key = base64.b64decode(credentials, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            key = ""
    if not key:
        raise no_key()
    if not TEST_KEY.fullmatch(key):
        raise wrong_key(key)


def _key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "") if request.method == "POST" else ""
    idempotency.check_key(key)
    return key


def _find(request: Request) -> tuple[Endpoint, tuple[str, ...]]:
    for endpoint in ENDPOINTS:
        match = endpoint.path.fullmatch(request.path)
        if match and endpoint.method == request.method:
            return endpoint, match.groups()
    raise unknown_url(request.method, request.path)


def _answer(tx: Tx, done: Json | ApiError, given: Json) -> tuple[Json, int]:
    """What is answered: a refusal that is returned, rather than raised, leaves what was done in place."""
    if isinstance(done, ApiError):
        return done.body(), done.status
    return expand.expand(tx, done, given.get("expand", [])), 200


def _keep(tx: Tx, cause: Cause, request: Request, answer: tuple[Json, int]) -> None:
    if cause.idempotency_key:
        kept = Kept(cause.request or "", answer[1], answer[0])
        idempotency.keep(tx, cause.idempotency_key, request.path, request.form, kept)
