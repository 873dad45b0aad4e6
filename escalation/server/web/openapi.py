"""The API's own description: an OpenAPI 3.1 document, made of the table of routes and of their types.

Nothing is said twice: paths, roles, bodies, parameters and answers come from the rules, shapes and bounds
from the types that bodies are read as and views are made of. Pages are for people and not in it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from escalation.server.web.access import Role
from escalation.server.web.handlers import JSON, Rule, json_answer

PATH: Final = "/api/v1/openapi.json"

_OUTSIDE: Final = frozenset({"/livez", "/metrics", "/readyz"})
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_CODES: Final = {
    400: "The request is wrong; the message says how.",
    401: "No credentials, or they fit nobody.",
    403: "The role does not allow it, or it comes from another origin.",
    404: "There is none of this name.",
    409: "State or policy forbids it, or it is no longer what was shown.",
    410: "Too late.",
    413: "The body is too long.",
    415: "The body is not application/json.",
    429: "Too many failed attempts.",
    503: "Nothing can be kept or read now.",
}
_ALWAYS: Final = (400,)
_WITH_CREDENTIALS: Final = (401, 403, 429, 503)
_WITH_A_NAME: Final = (404,)
_WITH_A_QUERY: Final = (409,)
_WITH_A_BODY: Final = (404, 409, 410, 413, 415)


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorView:
    """What was refused: a code for programs, and a sentence."""

    code: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """The body of every refusal."""

    error: ErrorView


def with_description(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Return the rules and the one that answers with their description, in the order of their paths."""

    async def described(_request: Request) -> Response:
        return answer

    own = Rule("GET", PATH, Role.VIEWER, described, "This description.", answer=dict[str, Any])
    whole = tuple(sorted((*rules, own), key=lambda rule: (rule.path, rule.method)))
    answer = json_answer(document(whole))
    return whole


def document(rules: Sequence[Rule]) -> dict[str, Any]:
    """Return the OpenAPI document of these rules."""
    told = [rule for rule in rules if rule.path.startswith("/api/") or rule.path in _OUTSIDE]
    types = dict.fromkeys(
        (Problem, *(kind for rule in told for kind in (rule.body, rule.answer) if kind is not None))
    )
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    shapes = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for rule in told:
        paths.setdefault(rule.path, {})[rule.method.lower()] = _operation(rule, shapes)
    found: dict[str, Any] = _portable(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Host Nanobot",
                "version": "1",
                "summary": "Incidents, recommendations and the decisions of people.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "security": [{"token": []}, {"name_and_token": []}],
            "paths": paths,
            "components": {
                "schemas": {name.lstrip("_"): shape for name, shape in sorted(components.items())},
                "securitySchemes": {
                    "token": {"type": "http", "scheme": "bearer"},
                    "name_and_token": {"type": "http", "scheme": "basic"},
                },
            },
        }
    )
    return found


def _operation(rule: Rule, shapes: Mapping[Any, Any]) -> dict[str, Any]:
    names = _PARAMETER.findall(rule.path)
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in names
    ]
    for each in rule.query:
        schema = msgspec.json.schema(each.type)
        parameters.append(
            {
                "name": each.name,
                "in": "query",
                "description": each.says,
                "required": each.required,
                "schema": schema,
            }
        )
    operation: dict[str, Any] = {
        "operationId": _operation_id(rule),
        "summary": rule.says,
        "parameters": parameters,
        "responses": {"200": {"description": "Done.", "content": {rule.media: _content(rule, shapes)}}}
        | {str(code): _refusal(code, shapes) for code in sorted(_refusals(rule, named=bool(names)))},
    }
    if rule.role is None:
        operation["security"] = []
    else:
        operation["x-role"] = rule.role.value
    if rule.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": shapes[rule.body]}}}
    return operation


def _operation_id(rule: Rule) -> str:
    words = _PARAMETER.sub("one", rule.path.removeprefix("/api/v1/")).replace(".", "/").split("/")
    return "_".join((rule.method.lower(), *filter(None, words)))


def _content(rule: Rule, shapes: Mapping[Any, Any]) -> dict[str, Any]:
    if rule.answer is not None:
        return {"schema": shapes[rule.answer]}
    return {"schema": {} if rule.media == JSON else {"type": "string"}}


def _refusals(rule: Rule, *, named: bool) -> set[int]:
    return {
        *_ALWAYS,
        *(_WITH_CREDENTIALS if rule.role is not None else (503,)),
        *(_WITH_A_NAME if named else ()),
        *(_WITH_A_QUERY if rule.query else ()),
        *(_WITH_A_BODY if rule.method != "GET" else ()),
    }


def _refusal(code: int, shapes: Mapping[Any, Any]) -> dict[str, Any]:
    return {"description": _CODES[code], "content": {JSON: {"schema": shapes[Problem]}}}


def _portable(value: Any) -> Any:
    """Return a schema in the dialect of JSON Schema, its parts called by names without an underscore."""
    match value:
        case dict():
            return {key: _portable(_plain(key, each)) for key, each in value.items()}
        case list() | tuple():
            return [_portable(each) for each in value]
        case _:
            return value


def _plain(key: str, value: Any) -> Any:
    match key, value:
        case "pattern", str():
            return value.replace(r"\Z", "$")
        case "$ref", str():
            return value.replace("/_", "/")
        case _:
            return value
