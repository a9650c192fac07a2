"""What browsers post: forms and JSON, read strictly. Whatever is wrong with one is answered with one sentence."""

from __future__ import annotations

import json
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request

from seedpo.study.errors import UNREADABLE, Refusal

FIELDS = 20
"""Fields of a form at most."""

Body = TypeVar("Body", bound="Posted")


class Posted(BaseModel):
    """What one route expects: these fields and no others, each once."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


async def read_json(request: Request, expected: type[Body]) -> Body:
    """The JSON object of a request, each value of the type that is expected.

    Raises:
        Refusal: 415 or 422.
    """
    _require_type(request, "application/json")
    try:
        content = json.loads((await request.body()).decode(), object_pairs_hook=_once)
        return expected.model_validate(content, strict=True)
    except (ValueError, RecursionError):  # pydantic's errors are values' errors
        raise Refusal(422, UNREADABLE) from None


async def read_form(request: Request, expected: type[Body]) -> Body:
    """The fields of a posted form; no body is a form without fields.

    Raises:
        Refusal: 415 or 422.
    """
    body = await request.body()
    if body:
        _require_type(request, "application/x-www-form-urlencoded")
    return _fields(body, expected)


def read_query(request: Request, expected: type[Body]) -> Body:
    """The fields of a request's query.

    Raises:
        Refusal: 422.
    """
    return _fields(request.scope["query_string"], expected)


def _fields(encoded: bytes, expected: type[Body]) -> Body:
    try:
        text = encoded.decode()
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=FIELDS)
        return expected.model_validate(_once(pairs))
    except ValueError:
        raise Refusal(422, UNREADABLE) from None


def _require_type(request: Request, expected: str) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != expected:
        raise Refusal(415, UNREADABLE)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a field stands there twice")
    return values
