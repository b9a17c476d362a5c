"""Is this JSON what Stripe would send, is this form what Stripe would take? By Stripe's OpenAPI description.

The description, `openapi-v1.json`, lies in the folder that the environment variable STRIPE_REFERENCE names, beside
`event-types.json` and `events/*.json`. Checks are strict: a field that the description does not have is an error.
An error is a text, "where: what"; an empty list says that all is well.

    from tests.conformance.openapi import description
    description().request_errors("POST", "/v1/refunds", "payment_intent=pi_1&amount=500")
"""

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

Json = dict[str, Any]
ROOT = "stripe:"
DATA_KEYS = {"enum", "default", "example"}


class NoReference(Exception):
    """There is no description to compare with; the text says why."""


class Description:
    """Stripe's API as it describes it itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        spec = json.loads((folder / "openapi-v1.json").read_bytes())
        self.version = spec["info"]["version"]
        self.paths: Json = spec["paths"]
        self.schemas: Json = _strict(spec["components"]["schemas"])
        self.event_types: Json = json.loads((folder / "event-types.json").read_bytes())
        resource = Resource.from_contents({"$defs": self.schemas}, default_specification=DRAFT202012)
        self._registry: Registry[Any] = Registry().with_resource(ROOT, resource)

    # ---- what Stripe sends

    def object_errors(self, found: Any, name: str) -> list[str]:
        """Errors of an object by its schema's name, such as charge."""
        return self._errors(found, {"$ref": f"{ROOT}#/$defs/{name}"})

    def response_errors(self, method: str, path: str, status: int, body: Any) -> list[str]:
        """Errors of an answer; any status but 200 has the error's shape."""
        if status != 200:
            return self.object_errors(body, "error")
        answer = self._operation(method, path)["responses"]["200"]["content"]["application/json"]["schema"]
        return self._errors(body, _strict(answer))

    def event_errors(self, event: Json) -> list[str]:
        """Errors of an event, of its object, and of what it says the object was before."""
        subject, previous = event["data"]["object"], event["data"].get("previous_attributes")
        name = subject.get("object", "")
        errors = self.object_errors(event, "event") + self.object_errors(subject, name)
        if event["type"] not in self.event_types:
            errors.append(f"type: {event['type']} is not a type of Stripe's")
        if previous is not None:
            errors += self._previous_errors(previous, name)
        return errors

    def _previous_errors(self, previous: Json, name: str) -> list[str]:
        """A part of an object: no field may be missing where all may be."""
        schema = {"$ref": f"{ROOT}#/$defs/{name}"}
        found = self._validator(schema).iter_errors(previous)
        leaves = (best_match([error]) or error for error in found if error.validator != "required")
        return [_text(leaf) for leaf in leaves if leaf.validator != "required"]

    # ---- what Stripe takes

    def request_errors(self, method: str, path: str, form_body: str) -> list[str]:
        """Errors of a form body for an endpoint."""
        operation = self._operation(method, path)
        schema = operation["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
        return self._form_errors(form_body, _strict(schema))

    def query_errors(self, path: str, query: str) -> list[str]:
        """Errors of a GET's query."""
        found = [given for given in self._operation("GET", path).get("parameters", []) if given["in"] == "query"]
        fields = {given["name"]: given["schema"] for given in found}
        return self._form_errors(query, _strict({"type": "object", "properties": fields}))

    def request_fields(self, method: str, path: str) -> set[str]:
        """The names of what an endpoint takes, at the top."""
        operation = self._operation(method, path)
        if method == "GET":
            return {given["name"] for given in operation.get("parameters", []) if given["in"] == "query"}
        return set(operation["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]["properties"])

    def _form_errors(self, encoded: str, schema: Json) -> list[str]:
        return self._errors(self._typed(nested(encoded), schema), schema)

    def _typed(self, value: Any, schema: Json) -> Any:
        """A form's texts as what the schema wants them to be."""
        if "$ref" in schema:
            return self._typed(value, self.schemas[schema["$ref"].rsplit("/", 1)[1]])
        if "anyOf" in schema:
            tries = [self._typed(value, part) for part in schema["anyOf"]]
            fitting = (t for t, part in zip(tries, schema["anyOf"], strict=True) if not self._errors(t, part))
            return next(fitting, tries[0])
        if isinstance(value, dict):
            return self._typed_dict(value, schema)
        return _typed_text(value, schema.get("type"))

    def _typed_dict(self, value: Json, schema: Json) -> Any:
        if schema.get("type") == "array":
            order = sorted(value, key=lambda key: int(key) if key.isdigit() else 0)
            return [self._typed(value[key], schema.get("items", {})) for key in order]
        rest = schema.get("additionalProperties")
        other = rest if isinstance(rest, dict) else {}
        return {key: self._typed(v, schema.get("properties", {}).get(key, other)) for key, v in value.items()}

    # ---- how

    def _operation(self, method: str, path: str) -> Json:
        """The description of an endpoint; a path that is written out wins over one with a placeholder."""
        for template in sorted(self.paths, key=lambda known: known.count("{")):
            pattern = re.sub(r"\{[^}]+\}", "[^/]+", template)
            if re.fullmatch(pattern, path) and method.lower() in self.paths[template]:
                operation: Json = self.paths[template][method.lower()]
                return operation
        raise AssertionError(f"Stripe has no {method} {path}")

    def _errors(self, found: Any, schema: Json) -> list[str]:
        return [_text(best_match([error]) or error) for error in self._validator(schema).iter_errors(found)]

    def _validator(self, schema: Json) -> Draft202012Validator:
        return Draft202012Validator(schema, registry=self._registry)


@cache
def description() -> Description:
    """The description that STRIPE_REFERENCE leads to. Raises NoReference."""
    folder = os.environ.get("STRIPE_REFERENCE")
    if not folder:
        raise NoReference("STRIPE_REFERENCE is not set: it names the folder with Stripe's openapi-v1.json")
    if not (Path(folder) / "openapi-v1.json").is_file():
        raise NoReference(f"STRIPE_REFERENCE is {folder}, where there is no openapi-v1.json")
    return Description(Path(folder))


def nested(encoded: str) -> Json:
    """`a[b]=c` as {"a": {"b": "c"}}."""
    root: Json = {}
    for name, value in parse_qsl(encoded, keep_blank_values=True):
        *parents, last = name.replace("]", "").split("[")
        holder = root
        for part in parents:
            holder = holder.setdefault(part, {})
        holder[last or str(len(holder))] = value
    return root


def _strict(given: Any) -> Any:
    """OpenAPI 3.0 as JSON Schema 2020-12: `nullable` spelled out, unknown fields refused, extensions left out."""
    if isinstance(given, list):
        return [_strict(part) for part in given]
    if not isinstance(given, dict):
        return given
    kept = {key: part if key in DATA_KEYS else _strict(part) for key, part in given.items() if not _is_extension(key)}
    if isinstance(kept.get("$ref"), str):
        kept["$ref"] = kept["$ref"].replace("#/components/schemas/", f"{ROOT}#/$defs/")
    if kept.get("type") == "object" and kept.get("properties") and "additionalProperties" not in kept:
        kept["additionalProperties"] = False
    return _or_null(kept) if kept.pop("nullable", None) is True else kept


def _is_extension(key: str) -> bool:
    return key.startswith("x-")


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _typed_text(value: Any, kind: Any) -> Any:
    if kind == "integer" and re.fullmatch(r"-?\d+", value):
        return int(value)
    if kind == "number" and re.fullmatch(r"-?\d+(\.\d+)?", value):
        return float(value)
    if kind == "boolean":
        return {"true": True, "false": False}.get(value, value)
    return value


def _text(error: ValidationError) -> str:
    return f"{'/'.join(map(str, error.absolute_path)) or 'it'}: {error.message[:200]}"
