"""What the API says when it says no: https://docs.stripe.com/api/errors and https://docs.stripe.com/error-codes."""

from typing import Any

Json = dict[str, Any]


class ApiError(Exception):
    """An answer of Stripe's error shape. `kind` is its `type`; `status` the HTTP status."""

    def __init__(
        self, message: str, *, status: int = 400, kind: str = "invalid_request_error", code: str = "", param: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.headers: dict[str, str] = {}

    def body(self) -> Json:
        """The error as JSON; what is not known is left out, as Stripe does."""
        error: Json = {"message": self.message, "type": self.kind}
        if self.code:
            error |= {"code": self.code, "doc_url": doc_url(self.code)}
        if self.param:
            error["param"] = self.param
        return {"error": error}


def doc_url(code: str) -> str:
    return f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"


def no_key() -> ApiError:
    return ApiError(
        "You did not provide an API key. You need to provide your API key in the Authorization header, "
        "using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). "
        "See https://stripe.com/docs/api#authentication for details.",
        status=401,
    )


def wrong_key(key: str) -> ApiError:
    shown = f"{key[:8]}{'*' * max(0, min(len(key) - 12, 24))}{key[-4:]}" if len(key) > 12 else "*" * len(key)
    return ApiError(f"Invalid API Key provided: {shown}", status=401)


def missing(kind: str, object_id: str, param: str = "id") -> ApiError:
    return ApiError(f"No such {kind}: '{object_id}'", status=404, code="resource_missing", param=param)


def missing_in(kind: str, object_id: str, param: str) -> ApiError:
    """An object that a parameter names and that is not there: 400, where a missing URL is 404."""
    return ApiError(f"No such {kind}: '{object_id}'", code="resource_missing", param=param)


def unknown_url(method: str, path: str) -> ApiError:
    return ApiError(
        f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or we can help at "
        "https://support.stripe.com/.",
        status=404,
    )


def not_here(what: str, param: str = "") -> ApiError:
    """Something that Stripe has and the sandbox has not (yet): never answered as if it had been done."""
    return ApiError(f"The sandbox does not have {what} yet.", param=param)


def unknown_parameter(param: str) -> ApiError:
    return ApiError(f"Received unknown parameter: {param}", code="parameter_unknown", param=param)


def missing_parameter(param: str) -> ApiError:
    return ApiError(f"Missing required param: {param}.", code="parameter_missing", param=param)


def other_parameters(key: str) -> ApiError:
    return ApiError(
        "Keys for idempotent requests can only be used with the same parameters they were first used with. "
        f"Try using a key other than '{key}' if you meant to execute a different request.",
        kind="idempotency_error",
    )


def other_endpoint(key: str, first: str, now: str) -> ApiError:
    return ApiError(
        "Keys for idempotent requests can only be used for the same endpoint they were first used for "
        f"('{first}' vs '{now}'). Try using a key other than '{key}' if you meant to execute a different request.",
        kind="idempotency_error",
    )


def key_in_use(key: str) -> ApiError:
    return ApiError(
        "There is currently another in-progress request using this Idempotent Key (that probably means you submitted "
        f"twice, and the other request is still going through): {key}. Please try again later.",
        status=409,
        kind="idempotency_error",
        code="idempotency_key_in_use",
    )


def declined(message: str) -> ApiError:
    return ApiError(message, status=402, kind="card_error", code="card_declined")


def down(status: int = 503) -> ApiError:
    return ApiError("Sorry, the sandbox was told to be down.", status=status, kind="api_error")


def failed() -> ApiError:
    return ApiError("Sorry, the sandbox was told to fail.", status=500, kind="api_error")


def too_many() -> ApiError:
    error = ApiError(
        "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.",
        status=429,
        code="rate_limit",
    )
    error.headers = {"Retry-After": "1", "Stripe-Rate-Limited-Reason": "global-rate"}
    return error


def refused_amount() -> ApiError:
    return ApiError("The sandbox was told to refuse every amount.", code="amount_too_small")
