"""Following the API's stream of alerts from a terminal, across lost connections."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LIVE_STATES", "TIMEOUT", "Event", "TailError", "events", "load_alert", "load_alerts", "reason"]

CONNECT_TIMEOUT_S: Final = 5.0
SILENCE_S: Final = 30.0  # three heartbeats: the connection is dead
TIMEOUT: Final = httpx.Timeout(CONNECT_TIMEOUT_S, read=SILENCE_S)
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 10.0
LIVE_STATES: Final = ("open", "acknowledged")
MOST_LOADED: Final = 1000


class TailError(Exception):
    """Nothing that can be followed answers; the message says the remedy."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the stream. ``id`` is empty where the stream gave none."""

    id: str
    kind: str
    data: bytes


class _NotReady(httpx.HTTPError):
    """Ringfence answers, but has no database now: worth waiting for."""


def events(client: httpx.Client) -> Iterator[Event]:
    """The events of the stream, across lost connections; kind ``lost`` tells of one.

    After a loss the stream goes on behind the last id, so no step of an alert is missed.
    """
    last_id, wait_s, answered = "", FIRST_WAIT_S, False
    while True:
        try:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
            with client.stream("GET", "/api/v1/stream", headers=headers) as response:
                _check(client, response)
                answered, wait_s = True, FIRST_WAIT_S
                for event in parse(response.iter_bytes()):
                    last_id = event.id or last_id
                    yield event
            problem = "the server ended the stream"
        except httpx.HTTPError as error:
            if not answered and not isinstance(error, _NotReady):
                raise TailError(
                    f"nothing answers at {client.base_url} ({reason(error)}); start `ringfence up`, "
                    "or name its address with --url"
                ) from error
            problem = reason(error)
        yield Event("", "lost", problem.encode())
        time.sleep(wait_s)
        wait_s = min(wait_s * 2, LONGEST_WAIT_S)


def parse(chunks: Iterator[bytes]) -> Iterator[Event]:
    """Events out of the bytes of a stream (the WHATWG format, lines ended by LF); a comment is a ``beat``.

    Split as bytes: text may hold line separators of Unicode, which end no line here.
    """
    pending = b""
    event_id, kind = "", "message"
    data: list[bytes] = []
    for chunk in chunks:
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if not line:
                if data:
                    yield Event(event_id, kind, b"\n".join(data))
                event_id, kind, data = "", "message", []
            elif not name:
                yield Event("", "beat", b"")
            elif name == b"id":
                event_id = value.decode()
            elif name == b"event":
                kind = value.decode()
            elif name == b"data":
                data.append(value)


def load_alerts(client: httpx.Client) -> list[dict[str, Any]]:
    """The alerts that somebody has to work on."""
    answer = client.get("/api/v1/alerts", params={"state": LIVE_STATES, "limit": MOST_LOADED})
    answer.raise_for_status()
    return list(msgspec.json.decode(answer.content)["items"])


def load_alert(client: httpx.Client, alert_id: str) -> dict[str, Any]:
    """One alert as it is now."""
    answer = client.get(f"/api/v1/alerts/{alert_id}")
    answer.raise_for_status()
    return dict(msgspec.json.decode(answer.content))


def _check(client: httpx.Client, response: httpx.Response) -> None:
    kind = response.headers.get("content-type", "").partition(";")[0]
    if response.status_code == 200 and kind == "text/event-stream":
        return
    if response.status_code == 503 and kind == "application/problem+json":
        response.read()
        raise _NotReady(str(response.json()["detail"]))
    if response.status_code in {401, 403, 429} and kind == "application/problem+json":
        response.read()
        raise TailError(f"{response.json()['detail']}; set RINGFENCE_TOKEN, `ringfence token add` makes one")
    raise TailError(
        f"what answers at {client.base_url} is no Ringfence (status {response.status_code}, "
        f"{kind or 'no type'}); name the address that `ringfence up` printed with --url"
    )


def reason(error: httpx.HTTPError) -> str:
    """What went wrong, in words."""
    return str(error) or type(error).__name__
