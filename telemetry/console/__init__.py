"""The console at ``/``: plain HTML, CSS and ES modules, served as they lie here; there is no build step."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastapi import FastAPI
    from starlette.requests import Request

__all__ = ["VENDOR_DIR", "mount_console"]

_HERE: Final = Path(__file__).parent
STATIC_DIR: Final = _HERE / "static"
VENDOR_DIR: Final = _HERE / "vendor"

# Written down, because mimetypes reads the machine's own tables and a module with a wrong type does not run.
_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is served."""

    media_type: str
    etag: str
    body: bytes

    @classmethod
    def of(cls, body: bytes, suffix: str) -> Asset:
        """A file's content with its type and tag."""
        return cls(_MEDIA_TYPES[suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"', body)


def mount_console(app: FastAPI, *, version: str, tile_url: str | None) -> None:
    """Serve the page at ``/`` and its files under ``/console/``; they are read once, now."""
    settings = msgspec.json.encode({"version": version, "tile_url": tile_url})
    assets = {
        "/": Asset.of((STATIC_DIR / "index.html").read_bytes(), ".html"),
        "/console/settings.json": Asset.of(settings, ".json"),
        **_files(STATIC_DIR, "/console/"),
        **_files(VENDOR_DIR, "/console/vendor/"),
    }
    for path, asset in assets.items():
        app.router.routes.append(Route(path, _serve(asset), methods=["GET", "HEAD"]))


def _files(directory: Path, prefix: str) -> dict[str, Asset]:
    return {
        prefix + path.relative_to(directory).as_posix(): Asset.of(path.read_bytes(), path.suffix)
        for path in sorted(directory.rglob("*"))
        if path.suffix in _MEDIA_TYPES and path.name != "index.html"
    }


def _serve(asset: Asset) -> Callable[[Request], Coroutine[None, None, Response]]:
    async def serve(request: Request) -> Response:
        # A browser asks each time and mostly gets a 304, so that an upgrade shows at once.
        headers = {"ETag": asset.etag, "Cache-Control": "no-cache"}
        if asset.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(asset.body, media_type=asset.media_type, headers=headers)

    return serve
