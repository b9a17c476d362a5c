"""The API under /v1/: which endpoints there are, what they take, and how a call is answered.

An endpoint is a row of ENDPOINTS. To add one: a row, its rule, and a function from a Call to an answer.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import checkout, events, expand, idempotency, lists, params, payments, refunds
from .errors import ApiError, missing, no_key, unknown_url, wrong_key
from .idempotency import Kept
from .ids import new_id
from .objects import API_VERSION
from .store import Cause, Store, Tx
from .trouble import Trouble
from .web import Request, Response, as_json

Json = dict[str, Any]
TEST_KEY = re.compile(r"[sr]k_test_[A-Za-z0-9_]{1,240}", re.ASCII)
Filters = Mapping[str, Callable[[Any], lists.Filter]]
EXPAND = {"expand": lists.FIELDS["expand"]}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an endpoint: its checked parameters, the ids in its path, and who asks."""

    tx: Tx
    given: Json
    ids: tuple[str, ...]
    path: str
    origin: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method and path, the rule of its parameters, and what it does."""

    method: str
    path: re.Pattern[str]
    rule: params.Rule
    run: Callable[[Call], Json]


def _endpoint(
    method: str, path: str, fields: Mapping[str, params.Rule], run: Callable[[Call], Json], **more: Any
) -> Endpoint:
    pattern = re.compile(re.sub(r"\{[a-z]+\}", r"([A-Za-z0-9_]+)", path), re.ASCII)
    return Endpoint(method, pattern, params.group({**fields, **EXPAND}, **more), run)


def _list(kind: str, filters: Filters) -> Callable[[Call], Json]:
    def run(call: Call) -> Json:
        used = [make(call.given[name]) for name, make in filters.items() if name in call.given]
        return lists.page(call.tx, kind, call.given, used, call.path)

    return run


def _retrieve_charge(call: Call) -> Json:
    charge = call.tx.get("charge", call.ids[0])
    if charge is None:
        raise missing("charge", call.ids[0], "charge")
    return charge


def _retrieve_event(call: Call) -> Json:
    event = call.tx.get("event", call.ids[0])
    if event is None:
        raise missing("event", call.ids[0])
    return events.shown(call.tx, event)


def _list_events(call: Call) -> Json:
    if "type" in call.given and "types" in call.given:
        raise ApiError("You may only specify one of these parameters: type, types.")
    page = _list("event", EVENT_FILTERS)(call)
    return page | {"data": [events.shown(call.tx, event) for event in page["data"]]}


def _line_items(call: Call) -> Json:
    checkout.find(call.tx, call.ids[0])
    return lists.whole(checkout.line_items(call.tx, call.ids[0]), call.path)


def _of_types(types: list[str]) -> lists.Filter:
    return f"json_extract(body, '$.type') IN ({','.join('?' * len(types))})", tuple(types)


def _delivered(done: bool) -> lists.Filter:
    undelivered = "EXISTS (SELECT 1 FROM deliveries d WHERE d.event = objects.id AND d.state != 'delivered')"
    return f"NOT {undelivered}" if done else undelivered, ()


def _of_type(pattern: str) -> lists.Filter:
    """A type, or many by a star at the end: `charge.*`."""
    return "json_extract(body, '$.type') GLOB ?", (re.sub(r"[\[\]?]", "", pattern),)


EVENT_FILTERS: Filters = {"type": _of_type, "types": _of_types, "delivery_success": _delivered}
SESSION_FILTERS = {"payment_intent": lists.field_is("payment_intent"), "status": lists.field_is("status")}
REFUND_FILTERS = {name: lists.field_is(name) for name in ("charge", "payment_intent")}
_text = params.text()
_session_list = {"payment_intent": _text, "status": params.choice("complete", "expired", "open")}
_event_list = {"type": _text, "types": params.listing(_text), "delivery_success": params.flag}
_items_list = {name: lists.FIELDS[name] for name in ("limit", "starting_after", "ending_before")}
_customer = ("customer", "customer_account")

ENDPOINTS = (
    _endpoint(
        "POST",
        "/v1/checkout/sessions",
        checkout.FIELDS,
        lambda call: checkout.create(call.tx, call.given, origin=call.origin),
        elsewhere=checkout.ELSEWHERE,
    ),
    _endpoint(
        "GET",
        "/v1/checkout/sessions",
        lists.FIELDS | _session_list,
        _list("checkout.session", SESSION_FILTERS),
        elsewhere=(*_customer, "customer_details", "payment_link", "subscription"),
    ),
    _endpoint("GET", "/v1/checkout/sessions/{id}", {}, lambda call: checkout.find(call.tx, call.ids[0])),
    _endpoint("GET", "/v1/checkout/sessions/{id}/line_items", _items_list, _line_items),
    _endpoint("POST", "/v1/checkout/sessions/{id}/expire", {}, lambda call: checkout.expire(call.tx, call.ids[0])),
    _endpoint("GET", "/v1/payment_intents", lists.FIELDS, _list("payment_intent", {}), elsewhere=_customer),
    _endpoint(
        "GET", "/v1/payment_intents/{id}", {"client_secret": _text}, lambda call: payments.find(call.tx, call.ids[0])
    ),
    _endpoint(
        "GET",
        "/v1/charges",
        lists.FIELDS | {"payment_intent": _text},
        _list("charge", {"payment_intent": lists.field_is("payment_intent")}),
        elsewhere=("customer", "transfer_group"),
    ),
    _endpoint("GET", "/v1/charges/{id}", {}, _retrieve_charge),
    _endpoint(
        "POST",
        "/v1/refunds",
        refunds.FIELDS,
        lambda call: refunds.create(call.tx, call.given),
        elsewhere=refunds.ELSEWHERE,
    ),
    _endpoint(
        "GET",
        "/v1/refunds",
        lists.FIELDS | {"charge": _text, "payment_intent": _text},
        _list("refund", REFUND_FILTERS),
    ),
    _endpoint("GET", "/v1/refunds/{id}", {}, lambda call: refunds.find(call.tx, call.ids[0])),
    _endpoint(
        "POST",
        "/v1/refunds/{id}",
        refunds.UPDATE_FIELDS,
        lambda call: refunds.update(call.tx, call.ids[0], call.given),
    ),
    _endpoint("GET", "/v1/events", lists.FIELDS | _event_list, _list_events),
    _endpoint("GET", "/v1/events/{id}", {}, _retrieve_event),
)


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
                self.trouble.before(request.method, request.path)
                return as_json(*self._run(request, Cause(request_id)), headers)
            headers |= {"Idempotency-Key": key, "Original-Request": request_id}
            with self.keys.holding(key):
                return self._once(request, key, request_id, headers)
        except ApiError as error:
            return as_json(error.body(), error.status, headers)

    def _once(self, request: Request, key: str, request_id: str, headers: dict[str, str]) -> Response:
        """Answer a call with an idempotency key: as before, if there was a before."""
        self.trouble.before(request.method, request.path)
        with self.store.transaction() as tx:
            kept = idempotency.find(tx, key, request.path, request.form)
        if kept is None:
            return as_json(*self._run(request, Cause(request_id, key)), headers)
        self.trouble.after()
        headers |= {"Original-Request": kept.request, "Idempotent-Replayed": "true"}
        return as_json(kept.body, kept.status, headers)

    def _run(self, request: Request, cause: Cause) -> tuple[Json, int]:
        """Find the endpoint, check the parameters, do it, and keep the answer."""
        endpoint, ids = _find(request)
        encoded = request.query if request.method == "GET" else request.form
        given = endpoint.rule(params.nested(encoded), "")
        try:
            with self.store.transaction(cause) as tx:
                body = endpoint.run(Call(tx, given, ids, request.path, request.own))
                answer = expand.expand(tx, body, given.get("expand", [])), 200
                _keep(tx, cause, request, answer)
        except ApiError as error:
            answer = error.body(), error.status
            with self.store.transaction() as tx:
                _keep(tx, cause, request, answer)
        self.trouble.after()
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


def _keep(tx: Tx, cause: Cause, request: Request, answer: tuple[Json, int]) -> None:
    if cause.idempotency_key:
        kept = Kept(cause.request or "", answer[1], answer[0])
        idempotency.keep(tx, cause.idempotency_key, request.path, request.form, kept)
