"""``ringfence alerts tail``: an operator's live view in a terminal, over the API's stream."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from geofence import from_rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Event", "TailError", "events", "tail"]

CONNECT_TIMEOUT_S: Final = 5.0
SILENCE_S: Final = 30.0  # three heartbeats: the connection is dead
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 10.0
MIN_SHOWN: Final = 3
SEVERITIES: Final = ("critical", "high", "low", "info")
STYLES: Final = {"critical": "bold white on red", "high": "bold yellow", "low": "cyan", "info": "dim"}
LIVE_STATES: Final = ("open", "acknowledged")


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


def tail(
    http_url: str, *, as_json: bool, console: Console | None = None, client: httpx.Client | None = None
) -> None:
    """Follow alerts until Ctrl-C: a live table, or with ``as_json`` the CloudEvents, one on a line.

    Where the output is no terminal, each step is a line of text.
    client : shows who we are; left out: one that shows nothing
    Raises TailError when nothing answers at ``http_url``; once it did, a lost connection is made again and
    goes on where it ended.
    """
    http_url = http_url.rstrip("/")
    console = console or Console()
    timeout = httpx.Timeout(CONNECT_TIMEOUT_S, read=SILENCE_S)
    try:
        client = client or httpx.Client(base_url=http_url, timeout=timeout, trust_env=False)
        client.timeout = timeout
        with client:
            if as_json:
                _print_json(client)
            elif console.is_terminal:
                _show_table(client, console)
            else:
                _print_lines(client)
    except KeyboardInterrupt:
        return
    except BrokenPipeError:  # the reader of our output has ended
        nowhere = os.open(
            os.devnull, os.O_WRONLY
        )  # for the interpreter's last flush: it would fail, and say so
        os.dup2(nowhere, sys.stdout.fileno())
        return


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
                    f"nothing answers at {client.base_url} ({_reason(error)}); start `ringfence up`, "
                    "or name its address with --url"
                ) from error
            problem = _reason(error)
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


def _reason(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__


def _print_json(client: httpx.Client) -> None:
    for event in events(client):
        if event.kind == "alert":
            _write(event.data.decode())
        elif event.kind == "lost":
            _complain(event)


def _print_lines(client: httpx.Client) -> None:
    for event in events(client):
        if event.kind == "alert":
            told = msgspec.json.decode(event.data)
            step, data = str(told["type"]).rpartition(".")[2], told["data"]
            who = f"{data['device_id']} {data['rule_id']}"
            _write(printable(f"{told['time']} {step} {data['severity']} {who}: {data['sentence']}"))
        elif event.kind == "lost":
            _complain(event)


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _complain(event: Event) -> None:
    sys.stderr.write(f"connection lost ({printable(event.data.decode())}); trying again\n")


def _show_table(client: httpx.Client, console: Console) -> None:
    board = Board()
    with Live(
        get_renderable=lambda: board.render(console.height), console=console, refresh_per_second=2
    ) as live:
        for event in events(client):
            if event.kind == "lost":
                board.state = f"connection lost ({event.data.decode()}); trying again"
            else:
                follow(client, board, event)
            live.refresh()


def follow(client: httpx.Client, board: Board, event: Event) -> None:
    """Bring the board up to date after one event; what can't be loaded now is loaded after the next one."""
    try:
        if event.kind == "hello" or board.stale:
            board.replace(load_alerts(client))
        elif event.kind == "alert":
            board.put(load_alert(client, str(msgspec.json.decode(event.data)["data"]["alert_id"])))
        board.state, board.stale = "live", False
    except httpx.HTTPError as error:
        board.state, board.stale = f"the alerts can't be loaded ({_reason(error)}); trying again", True


def load_alerts(client: httpx.Client) -> list[dict[str, Any]]:
    """The alerts that somebody has to work on."""
    answer = client.get("/api/v1/alerts", params={"state": LIVE_STATES, "limit": 1000})
    answer.raise_for_status()
    return list(msgspec.json.decode(answer.content)["items"])


def load_alert(client: httpx.Client, alert_id: str) -> dict[str, Any]:
    """One alert as it is now."""
    answer = client.get(f"/api/v1/alerts/{alert_id}")
    answer.raise_for_status()
    return dict(msgspec.json.decode(answer.content))


class Board:
    """The alerts that are shown: those to do, most severe first, then newest."""

    def __init__(self) -> None:
        self.state = "connecting"
        self.stale = False  # a step of an alert was heard of, but could not be loaded
        self._alerts: dict[str, dict[str, Any]] = {}

    def replace(self, alerts: list[dict[str, Any]]) -> None:
        """Show these."""
        self._alerts = {alert["alert_id"]: alert for alert in alerts}

    def put(self, alert: dict[str, Any]) -> None:
        """Show this one as it is now; one that is done goes away."""
        if alert["state"] in LIVE_STATES:
            self._alerts[alert["alert_id"]] = alert
        else:
            self._alerts.pop(alert["alert_id"], None)

    def render(self, height: int) -> Table:
        """The table as it is now, for a terminal of ``height`` lines."""
        alerts = sorted(self._alerts.values(), key=lambda alert: str(alert["opened_at"]), reverse=True)
        alerts.sort(key=lambda alert: (alert["state"] != "open", SEVERITIES.index(alert["severity"])))
        shown = alerts[: max(MIN_SHOWN, (height - 4) // 2)]  # a sentence takes up to two lines
        title = Text(f"Ringfence: {len(alerts)} alert{'' if len(alerts) == 1 else 's'} to do", style="bold")
        if len(shown) < len(alerts):
            title.append(f", the first {len(shown)} shown", style="not bold")
        title.append(f"  {printable(self.state)}", style="green" if self.state == "live" else "bold red")
        table = Table(title=title, expand=True, box=None, pad_edge=False)
        for name, options in (
            ("severity", {"no_wrap": True}),
            ("state", {"no_wrap": True}),
            ("age", {"justify": "right", "no_wrap": True}),
            ("id", {"no_wrap": True}),
            ("device", {"no_wrap": True}),
            ("what happened", {"ratio": 1}),
            ("sure", {"justify": "right", "no_wrap": True}),
        ):
            table.add_column(name, **options)
        now_us = time.time_ns() // 1000
        for alert in shown:
            table.add_row(
                Text(alert["severity"], style=STYLES[alert["severity"]]),
                alert["state"],
                age(now_us - from_rfc3339(alert["opened_at"])),
                Text(alert["alert_id"][-6:], style="dim"),  # what `ringfence alerts acknowledge` takes
                Text(printable(alert["device_id"]), style="bold"),
                Text(printable(alert["sentence"])),
                "" if alert["confidence"] is None else percent(alert["confidence"]),
            )
        return table


def percent(share: float) -> str:
    """A probability, never rounded up to certainty."""
    return "100 %" if share == 1 else f"{min(share * 100, 99.9):.1f} %"


def age(elapsed_us: int) -> str:
    """A length of time in its two greatest units: ``40 s``, ``4 min``, ``3 h 10 min``, ``2 d 4 h``."""
    seconds = max(elapsed_us // 1_000_000, 0)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3_600:
        return f"{seconds // 60} min"
    if seconds < 86_400:
        return f"{seconds // 3_600} h {seconds % 3_600 // 60} min"
    return f"{seconds // 86_400} d {seconds % 86_400 // 3_600} h"


def printable(text: str) -> str:
    """The text without control characters: names of zones must not steer the terminal."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
