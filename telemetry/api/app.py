"""The HTTP application: probes, the API under ``/api/v1``, and the console at ``/``."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse

from telemetry.access.door import Door
from telemetry.access.who import Permission, Who
from telemetry.api import problems
from telemetry.api.alerts import alert_routes
from telemetry.api.channels import channel_routes
from telemetry.api.devices import device_routes
from telemetry.api.editing import editing_routes
from telemetry.api.fleet import fleet_routes
from telemetry.api.guard import Guard, need
from telemetry.api.history import history_routes
from telemetry.api.looking import Looking, look_routes
from telemetry.api.problems import Problem, ProblemShape, problem_response
from telemetry.api.records import record_routes
from telemetry.api.rules import rules_routes
from telemetry.api.schedule import schedule_routes
from telemetry.api.session import session_routes
from telemetry.api.stream import Hub, stream_routes
from telemetry.console import mount_console
from telemetry.store import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from telemetry.api.health import Health
    from telemetry.api.reader import Reader

__all__ = ["API_ROOT", "create_app"]

API_ROOT: Final = "/api/v1"
PROBE_TIMEOUT_S: Final = 3.0  # the reader itself says within two seconds that the database is away

_DESCRIPTION: Final = """
Where supervised people's devices are, which rules they broke and how sure that is, and the alerts that
operators work on.

Lists are `{"items": […], "next": cursor or null}`: give `next` as `cursor` to go on. Times are RFC 3339;
answers use `Z`. Errors are `application/problem+json` and say the remedy. Ids of alerts and violations
are text.
"""


def create_app(
    reader: Reader,
    health: Health,
    *,
    zones_read_only: bool,
    version: str,
    tile_url: str | None = None,
    allowed_hosts: Sequence[str] = (),
    loopback: bool = True,
    keys_needed: bool = False,
    session_s: float = 12 * 3600.0,
    reason_needed: bool = False,
) -> FastAPI:
    """The application, not yet running: its lifespan opens and closes ``reader`` on the server's event loop.

    zones_read_only : zones and rules come from files
    tile_url        : raster tiles under the console's map, as https://…/{z}/{x}/{y}.png
    allowed_hosts   : names besides loopback ones that a reverse proxy may pass as Host
    loopback        : it can be reached from this machine alone: nobody logs in until somebody can
    keys_needed     : a proxy brings people from elsewhere, so on loopback too everybody logs in
    session_s       : how long a log-in of a browser lasts
    reason_needed   : a look at a person's track or record must say why

    ``app.state.hub.close_soon()`` ends the live streams, from any thread; call it before the server is told
    to stop, because a server waits for its open responses.
    """
    hub = Hub(reader)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await reader.open()
        hub.start()
        try:
            yield
        finally:
            await hub.close()
            await reader.close()

    app = FastAPI(
        title="Ringfence",
        version=version,
        summary="Location pings against zones and times: decisions and alerts.",
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_url=f"{API_ROOT}/openapi.json",
        docs_url=None,  # both load their scripts from other servers
        redoc_url=None,
        lifespan=lifespan,
        separate_input_output_schemas=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.hub = hub
    far = keys_needed or not loopback  # people reach it from elsewhere
    door = Door(reader.gate, loopback=not far, session_s=session_s)
    app.state.looking = Looking(reader.gate, needs_reason=reason_needed)
    app.add_middleware(
        Guard, door=door, allowed_hosts=allowed_hosts, any_address=not loopback, tile_url=tile_url
    )
    problems.install(app)
    for routes in (
        fleet_routes(reader),
        device_routes(reader),
        schedule_routes(reader),
        rules_routes(reader, read_only=zones_read_only),
        editing_routes(reader, read_only=zones_read_only),
        history_routes(reader),
        alert_routes(reader),
        channel_routes(reader),
        stream_routes(hub, door),
        session_routes(door, reason_needed=reason_needed),
        look_routes(reader.gate),
        record_routes(reader),
    ):
        app.include_router(routes, prefix=API_ROOT)
    _add_probes(app, reader, health, tell_reasons=not far)
    mount_console(app, version=version, tile_url=tile_url)
    _describe_problems(app)
    return app


def _add_probes(app: FastAPI, reader: Reader, health: Health, *, tell_reasons: bool) -> None:
    @app.get("/healthz", tags=["operations"], summary="The process lives")
    async def healthz() -> dict[str, Any]:
        return {"status": "alive", **health.live()}

    @app.get(
        "/readyz",
        tags=["operations"],
        summary="The database answers and every subscription stands",
        responses=problems.problems(503),
    )
    async def readyz() -> Response:
        reasons = health.ready()
        try:
            if not reasons:  # else it is known; and a database that hangs would hold the answer up
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    await reader.check()
        except StoreError as error:
            reasons = [*reasons, str(error)]
        except TimeoutError:
            reasons = [*reasons, f"the database did not answer within {PROBE_TIMEOUT_S:g} s"]
        if reasons:
            if not tell_reasons:  # anybody may ask, and reasons name servers
                reasons = ["the log of `ringfence up` says why"]
            return problem_response(
                Problem(
                    503,
                    "not-ready",
                    "; ".join(reasons),
                    "`ringfence doctor` checks broker and database and says what to do",
                    reasons=reasons,
                )
            )
        return Response(msgspec.json.encode({"status": "ready"}), media_type="application/json")

    @app.get(
        "/metrics",
        tags=["operations"],
        summary="Counters and gauges for Prometheus",
        response_class=PlainTextResponse,
        responses=problems.problems(401, 403, 503),
    )
    async def metrics(_who: Annotated[Who, need(Permission.MEASURE)]) -> Response:
        return Response(health.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _describe_problems(app: FastAPI) -> None:
    """Give the OpenAPI document one schema of a problem, also where FastAPI describes its own errors."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            shape = ProblemShape.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(shape.pop("$defs", {}))
            schemas["Problem"] = shape
            for operations in document["paths"].values():
                for operation in operations.values():
                    for parameter in operation.get("parameters", ()):
                        parameter["schema"] = _without_null(parameter["schema"])
                    if "422" in operation["responses"]:
                        operation["responses"].update({"422": problems.problems(422)[422]})
            _describe_access(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _describe_access(document: dict[str, Any]) -> None:
    """Say how to log in, and that any route but the public ones may ask for it."""
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "`ringfence token add` makes one"},
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": Door.cookie_name(secure=False),
            "description": "from POST /api/v1/session; over TLS its name begins with `__Host-`",
        },
    }
    refused = problems.problems(401, 403)
    for path, operations in document["paths"].items():
        if not path.startswith((API_ROOT, "/metrics")) or path.endswith("/session"):
            continue
        for operation in operations.values():
            operation["security"] = [{"token": []}, {"session": []}, {}]
            operation["responses"] = refused | operation["responses"]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """An optional parameter is left out, never null; FastAPI describes the Python type."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {name: value for name, value in schema.items() if name != "anyOf"} | dict(kinds[0])
