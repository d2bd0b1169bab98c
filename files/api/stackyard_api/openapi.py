"""The api's operations as data: the routes are made of them, and so is the OpenAPI document."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from stackyard_api.problems import ProblemBody

Endpoint = Callable[[Request], Awaitable[Response]]
Schema = dict[str, Any]

PROBLEM = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a request may have in its path, query or head besides its body."""

    name: str
    place: str
    about: str
    schema: Schema
    required: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a status comes with: a type of JSON body, another media type, or no body at all."""

    type: Any = None
    media: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """A method on a path; its endpoint's docstring is its description."""

    method: str
    path: str
    endpoint: Endpoint
    answers: Mapping[int, Answer]
    body: Any = None
    parameters: Sequence[Parameter] = ()
    # Statuses that come as a problem, besides those that any operation may have.
    problems: Sequence[int] = ()

    @property
    def name(self) -> str:
        """The endpoint's name, which is the operation's id."""
        return getattr(self.endpoint, "__name__", "")

    @property
    def about(self) -> str:
        """What the operation does, in a sentence or two."""
        return " ".join((self.endpoint.__doc__ or "").split())


def document(operations: Sequence[Operation], version: str, prefix: str) -> Schema:
    """The OpenAPI 3.1 document; `prefix` is where clients find the paths."""
    types = [answer.type for each in operations for answer in each.answers.values() if answer.type]
    bodies = [each.body for each in operations if each.body]
    named = list(dict.fromkeys([*types, *bodies, ProblemBody]))
    schemas, components = msgspec.json.schema_components(
        named, ref_template="#/components/schemas/{name}"
    )
    schema = dict(zip(named, schemas, strict=True))
    paths: Schema = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schema)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Stackyard's api", "version": version},
        "servers": [{"url": prefix or "/"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(each: Operation, schema: Mapping[Any, Schema]) -> Schema:
    made: Schema = {
        "operationId": each.name,
        "summary": each.about.partition(". ")[0].rstrip("."),
        "description": each.about,
        "responses": {},
    }
    if each.parameters:
        made["parameters"] = [
            {
                "name": parameter.name,
                "in": parameter.place,
                "description": parameter.about,
                "required": parameter.required,
                "schema": parameter.schema,
            }
            for parameter in each.parameters
        ]
    if each.body:
        made["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema[each.body]}},
        }
    for status, answer in each.answers.items():
        response: Schema = {"description": HTTPStatus(status).phrase}
        if answer.type:
            response["content"] = {answer.media: {"schema": schema[answer.type]}}
        elif answer.media != "application/json":
            response["content"] = {answer.media: {"schema": {"type": "string"}}}
        if answer.headers:
            response["headers"] = {
                name: {"description": about, "schema": {"type": "string"}}
                for name, about in answer.headers.items()
            }
        made["responses"][str(status)] = response
    problem = {"content": {PROBLEM: {"schema": schema[ProblemBody]}}}
    for status in [*each.problems, 503]:
        made["responses"].setdefault(
            str(status), {"description": HTTPStatus(status).phrase} | problem
        )
    return made


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="stylesheet" href="{style}">
</head>
<body>
<header><h1>{title} {version}</h1></header>
<main class="docs">
<p>As <a href="openapi.json">OpenAPI 3.1</a>. Errors come as {problem}.</p>
{operations}
</main>
</body>
</html>
"""


def page(described: Schema, style: str) -> str:
    """The document as a page to read; `style` is the address of a style sheet."""
    parts = []
    prefix = described["servers"][0]["url"].rstrip("/")
    for path, methods in described["paths"].items():
        for method, each in methods.items():
            parts.append(f"<h2><code>{method.upper()} {escape(prefix + path)}</code></h2>")
            parts.append(f"<p>{escape(each['description'])}</p><ul>")
            for parameter in each.get("parameters", []):
                text = f"{parameter['description']} ({parameter['in']})"
                parts.append(f"<li><code>{parameter['name']}</code> {escape(text)}</li>")
            if "requestBody" in each:
                (content,) = each["requestBody"]["content"].values()
                parts.append(f"<li>body: {_shape(content['schema'], described)}</li>")
            for status, response in each["responses"].items():
                shapes = [
                    f"{media} {_shape(content['schema'], described)}"
                    for media, content in response.get("content", {}).items()
                    if media != PROBLEM
                ]
                headers = [f"<code>{name}</code>" for name in response.get("headers", {})]
                text = ", ".join([escape(response["description"]), *shapes, *headers])
                parts.append(f"<li>{status}: {text}</li>")
            parts.append("</ul>")
    info = described["info"]
    return PAGE.format(
        title=escape(info["title"]),
        version=info["version"],
        style=style,
        problem=f"<code>{PROBLEM}</code>",
        operations="\n".join(parts),
    )


def _shape(schema: Schema, described: Schema) -> str:
    """A schema in a line: the fields of an object, else its type."""
    name = schema.get("$ref", "").rpartition("/")[2]
    full = described["components"]["schemas"].get(name, schema)
    fields = ", ".join(full.get("properties", {}))
    return f"<code>{escape(name)} {{{escape(fields)}}}</code>" if fields else full.get("type", "")
