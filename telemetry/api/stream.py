"""The live stream: every row of the outbox as a Server-Sent Event, and where the fleet is now.

One task looks into the database and every client reads what it found; a client that fell behind, or comes
back with ``Last-Event-ID``, is served from the database until it has caught up. No client has a queue: each
has a place in the sequence, so a slow one costs nobody memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from telemetry.access.door import NotLetIn
from telemetry.access.who import Permission, Who
from telemetry.api.guard import need
from telemetry.api.positions import columns_json
from telemetry.api.problems import Problem, problems
from telemetry.store import StoreError
from telemetry.store.caseload import CASELOAD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from telemetry.access.door import Door
    from telemetry.api.reader import EventRow, PositionRow, Reader

__all__ = ["HEARTBEAT_S", "Hub", "stream_routes"]

log = logging.getLogger(__name__)

OUTBOX_LOOK_S: Final = 0.5  # the database says at once that there is news; this is for a lost word
POSITIONS_LOOK_S: Final = 1.0  # devices report at most about once a second
RETRY_S: Final = 0.5  # while the database is away; each try waits for it by itself
HEARTBEAT_S: Final = 10.0  # proxies drop a connection that is silent for 30 s or more
CASELOAD_LOOK_S: Final = 10.0  # how soon a change of a caseload shows in the positions of a stream
CATCH_UP_ROWS: Final = 500
KEPT_EVENTS: Final = 2_000
KEPT_DELTAS: Final = 30  # half a minute; who is further behind loads all positions again
OVERLAP_US: Final = 5_000_000  # a batch can be committed after a later one was received


def sse(event: str, data: bytes, event_id: int | None = None) -> bytes:
    """One event of the stream. ``data`` is JSON on one line."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {event}\ndata: ".encode() + data + b"\n\n"


class Hub:
    """Looks into the store while somebody listens, and lets all listeners read what is new."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._changed = asyncio.Event()  # set once and replaced: whoever waits on it wakes
        self._events: deque[EventRow] = deque()
        # _events holds every row with an id above _from_id, up to _newest_id; None: nobody listens
        self._from_id: int | None = None
        self._newest_id = 0
        self._deltas: deque[tuple[int, bytes, Sequence[PositionRow]]] = deque(maxlen=KEPT_DELTAS)
        self._delta_number = 0
        self._fix_times: dict[str, int] = {}
        self._received_us: int | None = None  # None: nobody listens
        self._positions_lock = asyncio.Lock()
        self._listeners = 0
        self._position_listeners = 0
        self._somebody = asyncio.Event()  # listens
        self._news = asyncio.Event()  # in the outbox
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._problems: dict[str, str] = {}  # by watch: why it can't read the database

    @property
    def problem(self) -> str | None:
        """Why the database can't be read; None: it can."""
        return next(iter(self._problems.values()), None)

    def start(self) -> None:
        """Begin; on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._tasks = [
            asyncio.create_task(self._watch(self._look_for_events, OUTBOX_LOOK_S), name="outbox watch"),
            asyncio.create_task(
                self._watch(self._look_for_positions, POSITIONS_LOOK_S), name="positions watch"
            ),
            asyncio.create_task(self._hear(), name="outbox notices"),
        ]

    def close_soon(self) -> None:
        """End every stream, from any thread: a server that stops waits for its responses to end."""
        if self._loop is not None and not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._end_streams(), self._loop)

    async def close(self) -> None:
        """End every stream and the tasks."""
        await self._end_streams()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def listen(
        self, after_id: int | None, still: Callable[[], Awaitable[bool]], *, positions: bool
    ) -> AsyncIterator[bytes]:
        """The stream of one client as bytes; of a caseload, where the request has one.

        after_id : the last id that it has; None: begin with what comes next
        still    : whether the client may go on; asked at each heartbeat
        """
        newest = await self._reader.newest_outbox_id()
        resumed = after_id is not None and after_id <= newest  # a greater one is of another database
        at = after_id if resumed and after_id is not None else newest
        return self._stream(at, {"newest_id": str(newest), "resumed": resumed}, still, positions=positions)

    async def _stream(
        self, at: int, hello: dict[str, Any], still: Callable[[], Awaitable[bool]], *, positions: bool
    ) -> AsyncIterator[bytes]:
        mine = _Caseload(self._reader)
        self._listeners += 1
        self._position_listeners += positions
        self._somebody.set()
        try:
            if positions:  # before the greeting, so that who loads all positions after it misses no move
                with contextlib.suppress(StoreError):
                    await self._look_for_positions()
            delta = self._delta_number
            yield b"retry: 1000\n\n" + sse("hello", msgspec.json.encode(hello), at)
            heartbeat_at_s = time.monotonic() + HEARTBEAT_S
            in_trouble = False
            while not self._closed:
                changed = self._changed  # taken before looking: what comes meanwhile ends the wait at once
                quiet = True
                if in_trouble != (self.problem is not None):
                    in_trouble, quiet = not in_trouble, False
                    detail = msgspec.json.encode({"detail": self.problem})
                    yield sse("trouble", detail) if in_trouble else sse("recovered", b"{}")
                rows, up_to = await self._rows_after(at)
                for row in rows:
                    yield sse("alert", row.payload, row.id)
                    quiet = False
                at = max(at, up_to)
                if positions and delta != self._delta_number:
                    for text in await self._deltas_after(delta, mine):
                        yield text
                    delta, quiet = self._delta_number, False
                if not quiet:
                    continue
                if time.monotonic() >= heartbeat_at_s:
                    heartbeat_at_s = time.monotonic() + HEARTBEAT_S
                    if not await still():
                        yield sse("logged-out", b"{}")
                        return
                    yield b": beat\n\n"
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), max(heartbeat_at_s - time.monotonic(), 0.01))
        finally:
            self._listeners -= 1
            self._position_listeners -= positions
            if not self._listeners:
                self._somebody.clear()

    async def _rows_after(self, at: int) -> tuple[Sequence[EventRow], int]:
        """The next events of a client, and up to which id it has then seen all that it may see."""
        newest = self._newest_id
        if CASELOAD.get() is None and self._from_id is not None and at >= self._from_id:
            rows: Sequence[EventRow] = [row for row in self._events if row.id > at]
            return rows, rows[-1].id if rows else at
        if at >= newest and self._from_id is not None:
            return [], at
        try:
            rows = await self._reader.outbox_since(at, CATCH_UP_ROWS)
        except StoreError:
            return [], at  # the watch reports it; the client keeps its place
        return rows, rows[-1].id if len(rows) == CATCH_UP_ROWS else max([newest, *(r.id for r in rows[-1:])])

    async def _deltas_after(self, number: int, mine: _Caseload) -> list[bytes]:
        """What a client that has seen the delta of this number lacks; a copy, because the deque goes on."""
        if self._deltas[0][0] > number + 1:
            return [sse("positions-reset", b"{}")]
        lacking = [(text, rows) for at, text, rows in self._deltas if at > number]
        if CASELOAD.get() is None:
            return [text for text, _ in lacking]
        devices = await mine.devices()
        parts = ([row for row in rows if row.device_id in devices] for _, rows in lacking)
        return [sse("positions", await columns_json(part)) for part in parts if part]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _end_streams(self) -> None:
        self._closed = True
        self._wake()

    async def _watch(self, look: Callable[[], Awaitable[bool]], period_s: float) -> None:
        """Look again and again while somebody listens; tell the listeners of what is new, and of trouble."""
        name = look.__name__
        while True:
            await self._somebody.wait()
            was = self.problem
            self._news.clear()
            try:
                changed = await look()
                self._problems.pop(name, None)
            except StoreError as error:
                if was is None:
                    log.warning("the stream can't read the database: %s", error)
                changed, self._problems[name] = False, str(error)
            if changed or self.problem != was:
                self._wake()
            if look == self._look_for_events and self.problem is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), period_s)
            else:
                await asyncio.sleep(period_s if self.problem is None else RETRY_S)

    async def _hear(self) -> None:
        """Let the outbox watch look as soon as the database says that there is news."""
        while True:
            await self._somebody.wait()
            with contextlib.suppress(StoreError):
                async for _ in self._reader.outbox_wakes():
                    self._news.set()
                    if not self._listeners:
                        break
            await asyncio.sleep(RETRY_S)

    async def _look_for_events(self) -> bool:
        """Read what is new in the outbox, while somebody listens."""
        if not self._listeners:
            self._events.clear()
            self._from_id = None
            return False
        if self._from_id is None:
            self._from_id = self._newest_id = await self._reader.newest_outbox_id()
        rows = await self._reader.outbox_since(self._newest_id, CATCH_UP_ROWS)
        self._events.extend(rows)
        while len(self._events) > KEPT_EVENTS:
            self._from_id = self._events.popleft().id
        if rows:
            self._newest_id = rows[-1].id
        if len(rows) == CATCH_UP_ROWS:
            self._news.set()
        return bool(rows)

    async def _look_for_positions(self) -> bool:
        """Read where devices have moved; the first look only learns where they are."""
        if not self._position_listeners:
            self._received_us = None
            return False
        async with self._positions_lock:
            first = self._received_us is None
            since_us = None if self._received_us is None else self._received_us - OVERLAP_US
            rows = await self._reader.positions(since_us)
            self._received_us = max((row.received_time_us for row in rows), default=self._received_us or 0)
            moved = self._newer(rows)
            if first or not moved:
                return False
            self._delta_number += 1
            self._deltas.append((self._delta_number, sse("positions", await columns_json(moved)), moved))
            return True

    def _newer(self, rows: Sequence[PositionRow]) -> list[PositionRow]:
        known = self._fix_times
        moved = [row for row in rows if known.get(row.device_id) != row.fix_time_us]
        known.update((row.device_id, row.fix_time_us) for row in moved)
        return moved


class _Caseload:
    """The devices of the request's caseload, looked up now and then."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._devices: frozenset[str] = frozenset()
        self._looked_s: float | None = None

    async def devices(self) -> frozenset[str]:
        """Their ids; when the database is away, those known before."""
        now_s = time.monotonic()
        if self._looked_s is None or now_s - self._looked_s > CASELOAD_LOOK_S:
            with contextlib.suppress(StoreError):
                self._devices = frozenset(row.device_id for row in await self._reader.positions(None))
                self._looked_s = now_s
        return self._devices


def stream_routes(hub: Hub, door: Door) -> APIRouter:
    """The route ``/stream``."""
    router = APIRouter(tags=["alerts"])

    @router.get(
        "/stream",
        summary="Alerts as they happen (Server-Sent Events)",
        description=_DESCRIPTION,
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}}},
            **problems(422, 503),
        },
    )
    async def stream(
        *,
        request: Request,
        who: Annotated[Who, need(Permission.SEE)],
        positions: Annotated[bool, Query(description="also say where devices have moved")] = False,
        after: Annotated[
            str | None,
            Query(alias="last_event_id", description="as the header Last-Event-ID; the header wins"),
        ] = None,
        last_event_id: Annotated[str | None, Header(description="the last id that was received")] = None,
    ) -> StreamingResponse:
        after_id = _event_id(last_event_id if last_event_id is not None else after)

        async def still() -> bool:
            headers = request.headers
            address = request.client.host if request.client else ""
            try:
                return who == await door.who(headers.get("authorization"), headers.get("cookie"), address)
            except NotLetIn:
                return False
            except StoreError:
                return True  # while nobody can be asked

        return StreamingResponse(
            await hub.listen(after_id, still, positions=positions),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},  # nginx would hold events back
        )

    return router


_DESCRIPTION: Final = """
`hello` comes first and names the newest event. Then each step of an alert comes once, in order, as an
`alert` event: CloudEvents 1.0 JSON, the same that is published over MQTT, with an `id`. Connect again with
`Last-Event-ID` and the stream goes on behind it without a gap; browsers do so by themselves. When `hello`
says `resumed: false` to a client that sent an id, that id is not of this database: load `/alerts` anew.

With `positions=true`, a `positions` event each second holds the devices that moved, as `/positions` writes
them. It has no `id`. After `positions-reset` load `/positions` anew: the client fell too far behind.

`logged-out` ends the stream when the session is over, or the token is revoked.

`trouble` says that the database does not answer; the stream stays, and goes on without a gap after
`recovered`.
"""
_EXAMPLE: Final = 'id: 41\nevent: alert\ndata: {"specversion":"1.0","type":"org.ringfence.alert.opened"}\n\n'


def _event_id(text: str | None) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Problem(
            422,
            "invalid-value",
            f"Last-Event-ID is {text[:40]!r}; ids of this stream are whole numbers",
            "send the last id that the stream gave, or none to begin with what comes next",
        )
    return int(text)
