"""GitHub's own description of its REST API, as a judge of answers.

The description is OpenAPI 3.0, whose schemas are nearly JSON Schema: ``nullable`` is not, and is translated. An
object that the description lists the properties of may have no others: a name that GitHub does not know is a
mistake of the fake's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker

Schema = Any
_FORMATS = FormatChecker(formats=())
_SCHEMAS = "#/components/schemas/"
# What GitHub sends as null and its description does not.
_ALSO_NULL = (
    # A deleted fork: https://github.com/github/rest-api-description/issues/1811
    ("pull-request-simple", "head", "repo"),
    ("pull-request", "head", "repo"),
    # A deleted account: https://github.com/github/rest-api-description/issues/5562
    ("pull-request-simple", "head", "label"),
    ("pull-request", "head", "label"),
    ("pull-request", "head", "user"),
    # A label without a description: nullable in `pull-request`, forgotten in the listing's own copy.
    ("pull-request-simple", "labels", "description"),
)


class Description:
    def __init__(self, path: Path) -> None:
        document = json.loads(path.read_text())
        schemas = document["components"]["schemas"]
        for place in _ALSO_NULL:
            _at(schemas, place)["nullable"] = True
        self._operations = {
            (method.upper(), template): operation
            for template, methods in document["paths"].items()
            for method, operation in methods.items()
        }
        self._patterns = {
            template: re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))) for template in document["paths"]
        }
        self._responses = document["components"]["responses"]
        self._translated = {name: _translated(schema) for name, schema in schemas.items()}

    def operation(self, method: str, path: str) -> str | None:
        """The template of the path that a request is for, the one with the fewest variable parts."""
        found = [name for name, pattern in self._patterns.items() if pattern.fullmatch(path)]
        known = [name for name in found if (method, name) in self._operations]
        return min(known, key=lambda name: name.count("{"), default=None)

    def complaints(self, method: str, path: str, status: int, body: Any) -> list[str]:
        """What is wrong with an answer, a line each; none when it is as GitHub describes it."""
        template = self.operation(method, path)
        if template is None:
            return [f"GitHub has no {method} {path}"]
        schema = self._schema(method, template, status)
        whole = {**_translated(schema), "components": {"schemas": self._translated}}
        validator = Draft202012Validator(whole, format_checker=_FORMATS)
        return [line for error in validator.iter_errors(body) for line in _told(error, f"{method} {template} {status}")]

    def _schema(self, method: str, template: str, status: int) -> Schema:
        responses = self._operations[method, template]["responses"]
        response = responses.get(str(status))
        if response is None:
            if status < 400:
                return {"not": {}}
            # Every endpoint may answer with these, and most do not say so:
            # https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api
            return {"$ref": f"{_SCHEMAS}basic-error"}
        if "$ref" in response:
            response = self._responses[response["$ref"].rpartition("/")[2]]
        return response["content"]["application/json"]["schema"]


def _at(schemas: dict[str, Schema], place: tuple[str, ...]) -> dict[str, Any]:
    """The schema of a property; a copy of what it refers to is put there, so that it can be changed alone."""
    name, *keys = place
    schema = schemas[name]
    for key in keys:
        if schema.get("type") == "array":
            schema = schema["items"]
        properties = schema["properties"]
        properties[key] = dict(properties[key])
        if "$ref" in properties[key]:
            properties[key] = {"allOf": [{"$ref": properties[key]["$ref"]}]}
        schema = properties[key]
    found: dict[str, Any] = schema
    return found


def _translated(schema: Schema) -> Schema:
    """OpenAPI 3.0's dialect as JSON Schema's."""
    if isinstance(schema, list):
        return [_translated(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in ("example", "examples", "nullable", "default")}
    new = {key: _translated(value) for key, value in kept.items() if key not in ("properties", "enum")}
    if len(parts := kept.get("allOf", [])) > 1:
        # What is written down in place adds to the part that is named, which knows no others: it has to be open.
        new["allOf"] = [
            _translated({"additionalProperties": True, **part} if "properties" in part else part) for part in parts
        ]
    if "enum" in kept:
        new["enum"] = kept["enum"]
    if "properties" in kept:
        new["properties"] = {name: _translated(value) for name, value in kept["properties"].items()}
        new.setdefault("additionalProperties", False)
    return {"anyOf": [new, {"type": "null"}]} if schema.get("nullable") is True else new


def _told(error: Any, where: str) -> Iterator[str]:
    yield f"{where}: {error.json_path}: {error.message[:300]}"
    for part in error.context or ():
        yield f"    {part.json_path}: {part.message[:200]}"


@_FORMATS.checks("date-time")
def _is_moment(value: object) -> bool:
    if not isinstance(value, str):
        return True
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value):
        return False
    return datetime.fromisoformat(value) is not None


@_FORMATS.checks("uri")
def _is_address(value: object) -> bool:
    return not isinstance(value, str) or bool(urlsplit(value).scheme and urlsplit(value).netloc)
