"""The sandbox's controls, under /_control/: POST of a JSON object (or of a form, by our own dashboard).

    GET  state                       a summary: settings, counts, the latest objects, and how events were delivered
    POST deliveries                  {"mode": "normal" | "twice" | "never", "release": true}
                                     never: events are held, nothing is sent; twice: two deliveries of each event.
                                     Any other mode than never lets the held ones go, unless release is false
    POST trouble                     {"mode": "none" | "down" | "slow" | "late" | "429" | "refuse", "seconds": 10}
    POST sessions/<cs_…>/pay         {"card": "4242424242424242"} or {"method": "delayed"}; also "email", "name".
                                     The answer's "declined" says why the card was declined; null: it was not
    POST sessions/<cs_…>/expire      {}
    POST payments/<pi_…>/settle      {}  a delayed payment's money arrives
    POST payments/<pi_…>/fail        {}  it does not
    POST refunds                     {"payment_intent": "pi_…", "amount": 500, "outcome": "succeed" | "pending" |
                                     "fail_later", "reason": "duplicate"}, as from Stripe's dashboard: by default all
                                     that is left, and succeed. "sum": "5.00" may stand for "amount"
    POST refunds/<re_…>/succeed      {}  a pending refund reaches the donor
    POST refunds/<re_…>/fail         {}  a pending or succeeded refund does not, after all
    POST events/<evt_…>/deliver      {}  deliver once more, whatever the mode

Answers are JSON, 200 with the object that changed, or an error of Stripe's shape. A browser's form is answered by a
303 to the dashboard. Requests that another site's page sends are refused.
"""

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from . import amounts, checkout, events, params, payments, refunds, state
from .deliveries import Courier
from .errors import ApiError, missing, unknown_url
from .payments import CARDS, NotPayable, Payer
from .store import Store, Tx
from .trouble import Trouble
from .web import Request, Response, as_json, see_other

Json = dict[str, Any]
Fields = dict[str, str]
LARGEST_SUM = Decimal(10) ** 9


class Control:
    """Answers what is asked under /_control/."""

    def __init__(self, store: Store, trouble: Trouble, courier: Courier) -> None:
        self.store = store
        self.trouble = trouble
        self.courier = courier

    def answer(self, request: Request) -> Response:
        path = request.path.removeprefix("/_control/")
        try:
            if not request.is_same_origin():
                raise ApiError("Only the sandbox's own pages may do this in a browser.", status=403)
            if (request.method, path) == ("GET", "state"):
                return as_json(self.state())
            if request.method != "POST":
                raise unknown_url(request.method, request.path)
            done = self._do(path, request.fields())
        except ApiError as error:
            return as_json(error.body(), error.status)
        return as_json(done) if request.wants_json() else see_other("/")

    def state(self) -> Json:
        with self.store.transaction() as tx:
            return state.summary(tx) | {"trouble": self.trouble.now}

    def _do(self, path: str, fields: Fields) -> Json:
        if path == "trouble":
            self.trouble.set(fields.get("mode", ""), _seconds(fields.get("seconds", "10")))
            return self.trouble.now
        for pattern, action in ACTIONS:
            match = re.fullmatch(pattern, path, re.ASCII)
            if match:
                with self.store.transaction() as tx:
                    done = action(tx, fields, *match.groups())
                self.courier.wake()
                return done
        raise unknown_url("POST", f"/_control/{path}")


def _set_deliveries(tx: Tx, fields: Fields) -> Json:
    mode = fields.get("mode", "")
    if mode not in events.MODES:
        raise ApiError(f"mode must be one of {', '.join(events.MODES)}", param="mode")
    tx.set_setting("deliveries", mode)
    lets_go = mode != "never" and fields.get("release", "true") != "false"
    return {"mode": mode, "released": events.release(tx, twice=mode == "twice") if lets_go else 0}


def _pay(tx: Tx, fields: Fields, session_id: str) -> Json:
    payer = Payer(fields.get("email") or None, fields.get("name") or None)
    try:
        if fields.get("method") == "delayed":
            payments.pay_by_debit(tx, session_id, payer)
            declined = ""
        else:
            declined = payments.pay_by_card(tx, session_id, _card(fields), payer).message
    except NotPayable as problem:
        raise ApiError(f"This Checkout Session has a status of `{problem}`: it can't be paid.") from problem
    return checkout.find(tx, session_id) | {"declined": declined or None}


def _card(fields: Fields) -> str:
    number = re.sub(r"[ -]", "", fields.get("card", "4242424242424242"))
    if number not in CARDS:
        raise ApiError(f"card must be one of {', '.join(CARDS)}", code="incorrect_number", param="card")
    return number


def _refund(tx: Tx, fields: Fields) -> Json:
    outcome = fields.get("outcome") or "succeed"
    if outcome not in refunds.OUTCOMES:
        raise ApiError(f"outcome must be one of {', '.join(refunds.OUTCOMES)}", param="outcome")
    given = {name: fields[name] for name in ("payment_intent", "charge", "amount", "reason") if fields.get(name)}
    checked: Json = params.group(refunds.FIELDS)(given, "")
    if fields.get("sum", "").strip():
        checked["amount"] = _minor(fields["sum"], payments.find(tx, checked.get("payment_intent", "")))
    return refunds.create(tx, checked, outcome=outcome)


def _minor(text: str, intent: Json) -> int:
    """A typed sum, such as 5.00, in minor units of a payment's currency."""
    try:
        value = Decimal(text.strip().replace(",", ""))
        if not value.is_finite() or not 0 < value < LARGEST_SUM:
            raise InvalidOperation
    except InvalidOperation as error:
        raise ApiError(f"{text} is not an amount", param="sum") from error
    minor = value.scaleb(amounts.exponent(intent["currency"]))
    if minor != int(minor):
        raise ApiError(f"{text} has too many decimal places", param="sum")
    return int(minor)


def _deliver(tx: Tx, fields: Fields, event_id: str) -> Json:
    event = tx.get("event", event_id)
    if event is None:
        raise missing("event", event_id)
    events.queue(tx, event_id, by_hand=True)
    return events.shown(tx, event)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ApiError("seconds must be a number", param="seconds") from error


ACTIONS: tuple[tuple[str, Callable[..., Json]], ...] = (
    ("deliveries", _set_deliveries),
    ("refunds", _refund),
    (r"sessions/(\w+)/pay", _pay),
    (r"sessions/(\w+)/expire", lambda tx, fields, session: checkout.expire(tx, session)),
    (r"payments/(\w+)/settle", lambda tx, fields, intent: payments.settle(tx, intent)),
    (r"payments/(\w+)/fail", lambda tx, fields, intent: payments.fail(tx, intent)),
    (r"refunds/(\w+)/succeed", lambda tx, fields, refund: refunds.succeed(tx, refund)),
    (r"refunds/(\w+)/fail", lambda tx, fields, refund: refunds.fail(tx, refund)),
    (r"events/(\w+)/deliver", _deliver),
)
