"""Logging in and out, and who is logged in: for browsers, by a cookie that no script can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from telemetry.access.door import NotLetIn
from telemetry.access.who import PERMISSIONS, Permission, Role
from telemetry.api.guard import not_let_in
from telemetry.api.problems import Problem, problems

if TYPE_CHECKING:
    from telemetry.access.door import Door
    from telemetry.access.who import Who

__all__ = ["Me", "session_routes"]

_LONGEST: Final = 256


def _credential(value: Any) -> str:
    """Checked by hand, so that no message ever holds what was sent."""
    if not isinstance(value, str) or not 1 <= len(value) <= _LONGEST or "\0" in value:
        raise ValueError(f"must be text of 1 to {_LONGEST} characters")
    return value


class Credentials(BaseModel):
    """Name and password."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"name": "m.ito", "password": "four random words here"}]},
    )

    name: Annotated[str, BeforeValidator(_credential)]
    password: Annotated[str, BeforeValidator(_credential)]


class Me(BaseModel):
    """Who asks, and what that person may do."""

    name: str = Field(examples=["m.ito"])
    role: Role
    groups: list[str] | None = Field(description="the caseload; null: everyone", examples=[["north"]])
    how: str = Field(description="``loopback`` (no log-in is needed), ``session`` or ``token``")
    permissions: list[Permission]
    reason_needed: bool = Field(description="whether a look at a track or a record must say why")


def session_routes(door: Door, *, reason_needed: bool) -> APIRouter:
    """The route ``/session``."""
    router = APIRouter(tags=["access"])

    def me(who: Who) -> Me:
        return Me(
            name=who.name,
            role=who.role,
            groups=None if who.groups is None else sorted(who.groups),
            how=who.how,
            permissions=sorted(permission for permission in PERMISSIONS[who.role] if who.may(permission)),
            reason_needed=reason_needed,
        )

    @router.get("/session", summary="Who is logged in", responses=problems(401, 503))
    async def whoami(request: Request) -> Me:
        try:
            return me(await _sender(door, request))
        except NotLetIn as error:
            raise not_let_in(error) from error

    @router.post(
        "/session",
        summary="Log in",
        description="Sets a cookie that lasts for the session; it is HttpOnly, SameSite=Strict, and Secure "
        "over TLS. Failed tries are slowed down, by address and by account.",
        responses=problems(401, 403, 413, 422, 429, 503),
    )
    async def log_in(credentials: Credentials, request: Request, response: Response) -> Me:
        try:
            who, cookie = await door.log_in(credentials.name, credentials.password, _address(request))
        except NotLetIn as error:
            raise not_let_in(error) from error
        secure = request.url.scheme == "https"
        response.set_cookie(
            door.cookie_name(secure=secure),
            cookie,
            max_age=int(door.session_s),
            path="/",
            secure=secure,
            httponly=True,
            samesite="strict",
        )
        return me(who)

    @router.delete("/session", summary="Log out", status_code=204, responses=problems(401, 403, 503))
    async def log_out(request: Request, response: Response) -> None:
        try:
            who = await _sender(door, request)
        except NotLetIn as error:
            raise not_let_in(error) from error
        if who.how == "token":
            raise Problem(
                403, "not-permitted", "a token has no session", "revoke it with `ringfence token revoke`"
            )
        await door.log_out(who, request.headers.get("cookie"))
        secure = request.url.scheme == "https"
        response.delete_cookie(
            door.cookie_name(secure=secure), path="/", secure=secure, httponly=True, samesite="strict"
        )

    return router


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


async def _sender(door: Door, request: Request) -> Who:
    return await door.who(
        request.headers.get("authorization"), request.headers.get("cookie"), _address(request)
    )
