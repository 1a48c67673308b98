"""Keeps other web sites out of an API that listens on loopback without a log-in.

A page of another site can make the operator's browser send requests here. It must not read anything (DNS
rebinding: its own name resolves to 127.0.0.1, so the Host header is checked) and must not change anything
(so a changing request with a foreign Origin is refused, and no CORS header is ever sent).
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.datastructures import Headers, MutableHeaders

from telemetry.access.who import LOCAL_USER, Permission, Who
from telemetry.api.problems import Problem, problem_response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "Need", "content_security_policy", "need"]

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


class Need:
    """A dependency that lets a request pass when its sender has this permission, and says who that is."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(self, request: Request) -> Who:
        """The sender; Problem 403."""
        who: Who = getattr(request.state, "who", LOCAL_USER)
        if not who.may(self.permission):
            raise Problem(
                403,
                "not-permitted",
                f"{who.name} has the role {who.role.value}, which may not do this ({self.permission.value})",
                "ask a supervisor to do it, or for another role; docs/access.md lists what each role may do",
            )
        return who


def need(permission: Permission) -> Any:
    """What a route needs, for its signature: ``who: Annotated[Who, need(Permission.EDIT)]``.

    Every route needs one; a test walks all routes and fails for one without.
    """
    return Depends(Need(permission))


class Guard:
    """ASGI middleware: refuses foreign hosts and origins, and sets the security headers of every response.

    allowed_hosts : names besides loopback ones under which a reverse proxy asks
    """

    def __init__(
        self, app: ASGIApp, *, allowed_hosts: Sequence[str] = (), tile_url: str | None = None
    ) -> None:
        self._app = app
        self._allowed = frozenset(host.lower() for host in allowed_hosts)
        self._headers = (
            ("Content-Security-Policy", content_security_policy(tile_url)),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers:
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        problem = self._objection(scope["method"], Headers(scope=scope))
        if problem is not None:
            await problem_response(problem)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def _objection(self, method: str, headers: Headers) -> Problem | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return Problem(
                403,
                "foreign-host",
                f"the Host header is {host[:120]!r}, which is not a name of this machine",
                "ask at http://127.0.0.1 or http://localhost; a reverse proxy must pass one of these as Host",
            )
        if method in _SAFE_METHODS:
            return None
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        if foreign or headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            return Problem(
                403,
                "foreign-origin",
                f"the request comes from a page of another site ({(origin or 'not named')[:120]})",
                "only this site's own pages, and programs that send no Origin header, may change anything",
            )
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name.endswith(".localhost") or name in self._allowed:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False
