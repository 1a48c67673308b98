"""Errors as ``application/problem+json`` (RFC 9457): what is wrong, the value, the remedy."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec
from fastapi import Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from telemetry.store import (
    AlertConflict,
    BadCursor,
    NoSuchAlert,
    RulesConflict,
    RulesScheduled,
    RulesTooSoon,
    StoreError,
    StoreUnavailable,
    TooManyPings,
)

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

__all__ = [
    "PROBLEM_JSON",
    "FieldError",
    "Problem",
    "ProblemShape",
    "install",
    "problem_response",
    "problems",
    "store_problem",
]

log = logging.getLogger(__name__)

PROBLEM_JSON: Final = "application/problem+json"
RETRY_AFTER_S: Final = 2  # a database that restarts is back in about this time

_TITLES: Final = {
    400: "The request can't be read",
    401: "Nobody is logged in",
    403: "Not allowed",
    404: "Not found",
    405: "This address does not take that method",
    406: "No such format",
    409: "Not possible in this state",
    412: "Something changed meanwhile",
    413: "The request is too large",
    415: "The body has the wrong type",
    422: "A value can't be used",
    428: "The request must say what it was made on",
    429: "Too many tries",
    500: "An error of the server",
    503: "Not available now",
}


class Problem(Exception):  # noqa: N818 - named after the document that it becomes
    """Ends a request with a problem document.

    kind   : a short stable word for programs; the document's ``type`` is ``urn:ringfence:problem:`` and this
    detail : what is wrong, with the value
    remedy : what to do about it
    """

    def __init__(self, status: int, kind: str, detail: str, remedy: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.remedy = remedy
        self.more = more


class FieldError(BaseModel):
    """One value of the request that can't be used."""

    where: str = Field(
        description="place in the request, or as a JSON pointer in the document of zones and rules",
        examples=["query.from", "/rules/rules/3/zones"],
    )
    detail: str = Field(description="what is wrong with it")


class ProblemShape(BaseModel):
    """A problem document (RFC 9457)."""

    model_config = ConfigDict(
        title="Problem",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:ringfence:problem:no-such-device",
                    "title": "Not found",
                    "status": 404,
                    "detail": "no device 'a17' is known",
                    "remedy": "GET /api/v1/devices lists those that are",
                }
            ]
        },
    )

    type: str = Field(description="stable name of the kind of problem")
    title: str
    status: int
    detail: str = Field(description="what is wrong, with the value")
    remedy: str = Field(description="what to do about it")
    reasons: list[str] | None = Field(None, description="of ``/readyz``: everything that is not ready")
    errors: list[FieldError] | None = Field(None, description="every value that can't be used")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that can end in these problems."""
    return {
        status: {
            "description": _TITLES[status],
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The document as a response."""
    document = {
        "type": f"urn:ringfence:problem:{problem.kind}",
        "title": _TITLES.get(problem.status, "Error"),
        "status": problem.status,
        "detail": problem.detail,
        "remedy": problem.remedy,
        **problem.more,
    }
    headers = dict(headers or {})
    if problem.status == 503:
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    elif problem.status == 429:
        headers.setdefault("Retry-After", str(max(round(problem.more.get("wait_s", 1)), 1)))
    elif problem.status == 401:
        headers.setdefault("WWW-Authenticate", 'Bearer realm="ringfence"')
    return Response(msgspec.json.encode(document), problem.status, headers, PROBLEM_JSON)


def install(app: FastAPI) -> None:
    """Make every error of the app a problem document."""
    for error, handler in (
        (Problem, _on_problem),
        (RequestValidationError, _on_invalid),
        (HTTPException, _on_http),
        (StoreError, _on_store),
        (Exception, _on_bug),
    ):
        app.add_exception_handler(error, handler)  # type: ignore[arg-type]


async def _on_problem(_request: Request, problem: Problem) -> Response:
    return problem_response(problem)


async def _on_invalid(_request: Request, error: RequestValidationError) -> Response:
    found = [_field_error(item) for item in error.errors()]
    detail = "; ".join(f"{item['where']}: {item['detail']}" for item in found[:3])
    if len(found) > 3:
        detail += f"; and {len(found) - 3} more"
    return problem_response(
        Problem(
            422,
            "invalid-value",
            detail,
            "GET /api/v1/openapi.json describes every parameter and body",
            errors=found,
        )
    )


def _field_error(item: Any) -> dict[str, str]:
    where = ".".join(str(part) for part in item["loc"])
    detail = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        detail = "there is no such parameter; check its spelling"
    elif item["type"] != "value_error" and isinstance(item.get("input"), str | int | float):
        detail += f" (it is {str(item['input'])[:80]!r})"
    return {"where": where, "detail": detail}


async def _on_http(request: Request, error: HTTPException) -> Response:
    """What the framework itself refuses: no such path, wrong method, a body that is no JSON."""
    path = request.url.path
    detail, remedy = {
        404: (f"there is nothing at {path}", "GET /api/v1/openapi.json lists every path"),
        405: (
            f"{request.method} is not possible at {path}",
            f"use {error.headers['Allow']}" if error.headers else "GET /api/v1/openapi.json lists what is",
        ),
    }.get(error.status_code, (str(error.detail), "GET /api/v1/openapi.json describes what is expected"))
    if error.status_code == 413:
        detail, remedy = (
            "the request's body is too large",
            "send less at once: zones one by one, for instance",
        )
    kinds = {404: "no-such-path", 405: "wrong-method", 413: "body-too-large"}
    kind = kinds.get(error.status_code, "bad-request")
    return problem_response(
        Problem(error.status_code, kind, detail, remedy), dict(error.headers) if error.headers else None
    )


async def _on_store(_request: Request, error: StoreError) -> Response:
    return problem_response(store_problem(error))


def store_problem(error: StoreError) -> Problem:
    """What the store refuses is the caller's to mend; that it does not answer is ours."""
    match error:
        case NoSuchAlert():
            return Problem(404, "no-such-alert", str(error), "GET /api/v1/alerts lists those that are known")
        case AlertConflict():
            remedy = "load the alert again: somebody else, or the engine, may have moved it on"
            return Problem(409, "alert-conflict", str(error), remedy, state=error.state)
        case RulesConflict():
            return Problem(
                412,
                "version-conflict",
                str(error),
                f"GET /api/v1/versions/{error.newest}/diff?since={error.base} says what changed",
                newest=error.newest,
            )
        case RulesScheduled():
            return Problem(
                409,
                "rules-scheduled",
                str(error),
                "give `effective_at` that time or a later one, or cancel it first: "
                "DELETE /api/v1/versions/scheduled",
            )
        case TooManyPings():
            return Problem(422, "too-many-pings", str(error), "ask for a shorter time; an hour always works")
        case RulesTooSoon():
            return Problem(422, "too-soon", str(error), "leave `effective_at` out, or give a later time")
        case BadCursor():
            remedy = "leave `cursor` out to begin anew; a cursor goes with the filters that it came with"
            return Problem(422, "bad-cursor", str(error), remedy)
    if not isinstance(error, StoreUnavailable):
        log.error("the store refused a request: %s", error)
    return Problem(
        503,
        "database-unavailable",
        str(error),
        "try again; when it stays so, `ringfence doctor` says what is wrong with the database",
    )


async def _on_bug(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem_response(
        Problem(
            500,
            "server-error",
            "the server met an error that it does not know",
            "the server's log has it; please report it",
        )
    )
