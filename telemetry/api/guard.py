"""Lets in who may come, and keeps other web sites out.

Each request under ``/api/v1`` is somebody's: the door says whose, and a route names the permission that it
needs. A page of another site can make a browser send requests here. It must not read anything (DNS
rebinding: its own name resolves to our address, so the Host header is checked) and must not change anything
(so a changing request with a foreign Origin is refused, one with a cookie and no Origin too, and no CORS
header is ever sent).
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException

from telemetry.access.door import NotLetIn
from telemetry.access.who import Permission, Who
from telemetry.api.problems import Problem, problem_response, store_problem
from telemetry.store.caseload import CASELOAD
from telemetry.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from telemetry.access.door import Door

__all__ = ["PUBLIC_PATHS", "Guard", "Need", "acting", "content_security_policy", "need"]

# Nobody has to be known for these; all else under API_ROOT is somebody's, whether or not a route says so.
PUBLIC_PATHS: Final = frozenset({"/api/v1/session", "/api/v1/openapi.json", "/api/v1/asyncapi.json"})
PRIVATE: Final = ("/api/v1", "/metrics")

MOST_BODY_BYTES: Final = 16 << 20  # a zone of 100,000 vertices has 4 MB as GeoJSON
MOST_PUBLIC_BODY_BYTES: Final = 16 << 10  # of who is not known yet

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def content_security_policy(tile_url: str | None) -> str:
    """Scripts, styles and workers come from here alone; tiles also from their server, where one is set."""
    tiles = ""
    if tile_url:
        parts = urlsplit(tile_url)
        tiles = f" {parts.scheme}://{parts.netloc}" if parts.netloc else ""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "worker-src 'self'",
            f"img-src 'self' data: blob:{tiles}",
            f"connect-src 'self'{tiles}",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


LOOKS: Final = {Permission.TRACK: "track", Permission.RECORD: "record"}  # what is logged, and as what
_EXPORTS: Final = ("csv", "geojson", "geo+json", "mfjson", "mf+json", "pdf", "html")


class Need:
    """A dependency that lets a request pass when its sender has this permission, and says who that is.

    What needs TRACK or RECORD is a look at a person: it is logged here, so that no route can forget it.
    """

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(self, request: Request) -> Who:
        """The sender; Problem 403."""
        who: Who = request.state.who  # the guard has set it: without the guard nobody is let in
        if not who.may(self.permission):
            lack = f"has the role {who.role.value}, which may not do this ({self.permission.value})"
            if who.may_for_everyone(self.permission):
                lack = f"has a caseload, and this ({self.permission.value}) is for all"
            raise Problem(
                403,
                "not-permitted",
                f"{who.name} {lack}",
                "ask somebody who may; docs/access.md lists what each role may do",
            )
        if self.permission in LOOKS:
            asked = f"{request.query_params.get('format', '')} {request.headers.get('accept', '')}"
            taken = self.permission is Permission.TRACK and any(name in asked for name in _EXPORTS)
            await request.app.state.looking.note(who, request, "export" if taken else LOOKS[self.permission])
        return who


def need(permission: Permission) -> Any:
    """A dependency on a permission, for the annotation of a route's parameter.

    Every route needs one; a test walks all routes and fails for one without.
    """
    return Depends(Need(permission))


def acting(who: Who, said: str) -> str:
    """The name that a step is logged with: whoever is logged in. Only the local user may say another."""
    return said if who.how == "loopback" else who.name


class _HeadAnswered(Exception):  # noqa: N818
    """A HEAD has its answer: what would be the body is not made."""


class Guard:
    """ASGI middleware: who sent it, from where, how long it may be, and the security headers of the answer.

    door          : knows who sends a request
    allowed_hosts : names besides loopback ones under which the API is reached
    any_address   : numeric addresses are fine as Host: the API listens off loopback
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        door: Door,
        allowed_hosts: Sequence[str] = (),
        any_address: bool = False,
        tile_url: str | None = None,
    ) -> None:
        self._app = app
        self._door = door
        self._allowed = frozenset(host.lower() for host in allowed_hosts)
        self._any_address = any_address
        self._headers = (
            ("Content-Security-Policy", content_security_policy(tile_url)),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Permissions-Policy", "geolocation=(), camera=(), microphone=()"),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"
        if is_head:  # answered as GET, without the body
            scope = {**scope, "method": "GET"}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers:
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
                headers.setdefault("Cache-Control", "no-store")
            await send(message)
            if is_head and message["type"] == "http.response.start":
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                raise _HeadAnswered

        headers = Headers(scope=scope)
        try:
            problem = self._objection(scope, headers) or await self._identify(scope, headers)
            if problem is not None:
                await problem_response(problem)(scope, receive, send_with_headers)
                return
            await self._app(scope, _bounded(receive, _most_bytes(scope["path"])), send_with_headers)
        except _HeadAnswered:
            return

    async def _identify(self, scope: Scope, headers: Headers) -> Problem | None:
        """Note in the scope who sent the request; a problem when that is nobody."""
        path = scope["path"]
        if path in PUBLIC_PATHS or not path.startswith(PRIVATE):
            return None
        address = scope["client"][0] if scope.get("client") else ""
        try:
            who = await self._door.who(headers.get("authorization"), headers.get("cookie"), address)
        except NotLetIn as error:
            return not_let_in(error)
        except StoreError as error:
            return store_problem(error)
        scope.setdefault("state", {})["who"] = who
        CASELOAD.set(who.groups)  # of this request alone: each runs in a context of its own
        return None

    def _objection(self, scope: Scope, headers: Headers) -> Problem | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return Problem(
                403,
                "foreign-host",
                f"the Host header is {host[:120]!r}, which is not a name of this machine",
                "ask at http://127.0.0.1 or http://localhost, or let RINGFENCE_ALLOWED_HOSTS hold the name",
            )
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > _most_bytes(scope["path"]):
            return too_large(_most_bytes(scope["path"]))
        if scope["method"] in _SAFE_METHODS:
            return None
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site")
        foreign = origin is not None and not _same_origin(origin, host, scope["scheme"])
        if foreign or site not in {None, "same-origin", "none"}:
            return Problem(
                403,
                "foreign-origin",
                f"the request comes from a page of another site ({(origin or 'not named')[:120]})",
                "only this site's own pages, and programs that send no Origin header, may change anything",
            )
        if headers.get("cookie") and headers.get("authorization") is None and origin is None and site is None:
            return Problem(
                403,
                "foreign-origin",
                "the request has a cookie, but does not say from which page it comes",
                "programs send `Authorization: Bearer` and a token, and no cookie",
            )
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name.endswith(".localhost") or name in self._allowed:
            return True
        try:  # a numeric address can't be rebound
            return ipaddress.ip_address(name).is_loopback or self._any_address
        except ValueError:
            return False


def not_let_in(error: NotLetIn) -> Problem:
    """The door's refusal as a problem: 401, or 429 when it is a matter of time."""
    if error.wait_s:
        return Problem(429, error.kind, error.detail, error.remedy, wait_s=round(error.wait_s, 1))
    return Problem(401, error.kind, error.detail, error.remedy)


def too_large(most_bytes: int) -> Problem:
    """The answer to a body past its limit."""
    return Problem(
        413,
        "body-too-large",
        f"the request's body has more than {most_bytes} bytes",
        "send less at once: zones one by one, for instance",
    )


def _most_bytes(path: str) -> int:
    return MOST_PUBLIC_BODY_BYTES if path in PUBLIC_PATHS else MOST_BODY_BYTES


def _same_origin(origin: str, host: str, scheme: str) -> bool:
    """A page of our host; over TLS it must have come over TLS. A proxy may speak TLS in our place."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.netloc.lower() == host.lower() and (scheme != "https" or parts.scheme == "https")


def _bounded(receive: Receive, most_bytes: int) -> Receive:
    """A body that is longer than it said, or did not say, is refused as it comes."""
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most_bytes:
            raise HTTPException(413)
        return message

    return bounded
