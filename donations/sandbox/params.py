"""Form bodies and queries with bracket nesting, and the rules that check them.

A rule is a function `(value, path) -> clean value`; `path` is the parameter's name as Stripe spells it in errors,
such as `line_items[0][quantity]`. A value is a text, or a dict of values where the name had brackets.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .errors import ApiError, missing_parameter, not_here, unknown_parameter

Rule = Callable[[Any, str], Any]
NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
DEEPEST = 8
MOST_FIELDS = 1000
EMAIL = re.compile(r"[^@\s,<>()]+@[^@\s,<>()]+\.[^@\s,<>()]+")
LARGEST_WHOLE = 2**53


def nested(encoded: str) -> dict[str, Any]:
    """`a[b][0]=c` as {"a": {"b": {"0": "c"}}}. Raises ApiError for what can't be read."""
    root: dict[str, Any] = {}
    for name, value in pairs(encoded):
        match = NAME.fullmatch(name)
        if not match:
            raise unknown_parameter(name)
        parts = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
        _put(root, parts[:DEEPEST], value, name)
    return root


def pairs(encoded: str) -> list[tuple[str, str]]:
    """The fields of a form, in their order."""
    try:
        return parse_qsl(encoded, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise ApiError(f"Invalid request body: {error}") from error


def _put(root: dict[str, Any], parts: list[str], value: str, name: str) -> None:
    holder: Any = root
    for part in parts[:-1]:
        holder = holder.setdefault(part or str(len(holder)), {})
        if not isinstance(holder, dict):
            raise ApiError(f"Invalid object: {name}", param=name)
    holder[parts[-1] or str(len(holder))] = value


def text(limit: int = 5000) -> Rule:
    """A text that is not empty."""

    def check(value: Any, path: str) -> str:
        if not isinstance(value, str):
            raise ApiError("Invalid string", param=path)
        if not value:
            raise ApiError(
                f"You passed an empty string for '{path}'. We assume empty values are an attempt to unset a parameter; "
                f"however '{path}' cannot be unset. You should remove '{path}' from your request or supply a "
                "non-empty value.",
                code="parameter_invalid_empty",
                param=path,
            )
        if len(value) > limit:
            raise ApiError(f"Invalid string: {value[:20]}...; must be at most {limit} characters", param=path)
        return value

    return check


def whole(minimum: int = -LARGEST_WHOLE) -> Rule:
    """A whole number."""

    def check(value: Any, path: str) -> int:
        if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,16}", value, re.ASCII):
            raise ApiError(f"Invalid integer: {value}", code="parameter_invalid_integer", param=path)
        number = int(value)
        if number < minimum:
            wanted = "Invalid positive integer" if minimum == 1 else f"This value must be at least {minimum}"
            raise ApiError(wanted, code="parameter_invalid_integer", param=path)
        return number

    return check


def flag(value: Any, path: str) -> bool:
    """True or false."""
    if value not in ("true", "false"):
        raise ApiError(f"Invalid boolean: {value}", param=path)
    return bool(value == "true")


def choice(*values: str) -> Rule:
    """One of these words."""

    def check(value: Any, path: str) -> str:
        if value not in values:
            raise ApiError(f"Invalid {path}: must be one of {', '.join(values[:-1])}, or {values[-1]}", param=path)
        return str(value)

    return check


def url(value: Any, path: str) -> str:
    """An http or https address. `{CHECKOUT_SESSION_ID}` may stand in it."""
    address = text()(value, path)
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and address.isprintable()
    except ValueError:
        usable = False
    if not usable:
        raise ApiError("Not a valid URL", code="url_invalid", param=path)
    return str(address)


def email(value: Any, path: str) -> str:
    """An address that mail could reach."""
    address = text(512)(value, path)
    if not EMAIL.fullmatch(address):
        raise ApiError(f"Invalid email address: {address}", code="email_invalid", param=path)
    return str(address)


def metadata(value: Any, path: str) -> dict[str, str]:
    """At most 50 keys of 40 characters, with values of 500: https://docs.stripe.com/api/metadata."""
    if value == "":
        return {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ApiError("Invalid object", param=path)
    if len(value) > 50:
        raise ApiError("You can have up to 50 metadata keys.", param=path)
    for key, content in value.items():
        if len(key) > 40:
            raise ApiError(f"Metadata keys can be up to 40 characters long: {key}", param=path)
        if len(content) > 500:
            raise ApiError(f"Metadata values can be up to 500 characters long: {key}", param=f"{path}[{key}]")
    return {key: content for key, content in value.items() if content}


def merged(before: dict[str, str], given: dict[str, str]) -> dict[str, str]:
    """Metadata with what an update gives; the whole is unset by giving none."""
    return before | given if given else {}


def or_unset(rule: Rule) -> Rule:
    """What a rule takes, or an empty text, which unsets it."""
    return lambda value, path: None if value == "" else rule(value, path)


def listing(rule: Rule) -> Rule:
    """A list: `x[0]=…&x[1]=…` or `x[]=…`."""

    def check(value: Any, path: str) -> list[Any]:
        if not isinstance(value, dict) or not all(key.isdecimal() for key in value):
            raise ApiError("Invalid array", param=path)
        return [rule(value[key], f"{path}[{key}]") for key in sorted(value, key=int)]

    return check


def group(fields: Mapping[str, Rule], *, required: Sequence[str] = (), elsewhere: Sequence[str] = ()) -> Rule:
    """An object with these fields. `elsewhere` are those that Stripe has and the sandbox has not."""

    def check(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ApiError("Invalid object", param=path)
        for name in value:
            if name in elsewhere:
                raise not_here(f"`{_join(path, name)}`", _join(path, name))
            if name not in fields:
                raise unknown_parameter(_join(path, name))
        for name in required:
            if name not in value:
                raise missing_parameter(_join(path, name))
        return {name: fields[name](content, _join(path, name)) for name, content in value.items()}

    return check


def moment_or_range(value: Any, path: str) -> dict[str, int]:
    """`created=5`, or `created[gte]=5&created[lt]=9`."""
    if isinstance(value, str):
        return {"eq": whole()(value, path)}
    bounds: dict[str, int] = group({name: whole() for name in ("gt", "gte", "lt", "lte")})(value, path)
    return bounds


def _join(path: str, name: str) -> str:
    return f"{path}[{name}]" if path else name
