"""The live table in a terminal, and the keys that choose an alert and acknowledge it.

Whatever happens (an event of the stream, a key, the answer to a step) is a function of the board. Threads
put them into one inbox, the main thread applies them in turn and draws: nothing that waits stops the table.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import select
import termios
import threading
import tty
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import httpx
import msgspec
from rich.live import Live

from telemetry.alerts.board import Board
from telemetry.alerts.by_id import take_step
from telemetry.alerts.stream import TailError, events, load_alert, load_alerts, reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

__all__ = ["show_table"]

DRAW_EVERY_S: Final = 0.5  # ages grow also when nothing comes
KEY_LOOK_S: Final = 0.2  # how soon the reader of keys sees that it shall end
KEY: Final = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
UP: Final = (b"k", b"\x1b[A", b"\x1bOA")
DOWN: Final = (b"j", b"\x1b[B", b"\x1bOB")
ESCAPE: Final = b"\x1b"

Step = Callable[[Board], None]
Inbox = queue.SimpleQueue[Step]


class _Quit(Exception):  # noqa: N818
    """The operator ended it with a key."""


def show_table(client: httpx.Client, console: Console, keyboard: int | None) -> None:
    """Draw the alerts to do until the operator ends it.

    keyboard : file descriptor of the terminal that keys come from; None: there is none
    """
    inbox: Inbox = queue.SimpleQueue()
    board = Board(keys=keyboard is not None)
    ended = threading.Event()
    start(lambda: follow(client, inbox))
    with contextlib.ExitStack() as stack:
        stack.callback(ended.set)
        if keyboard is not None:
            stack.enter_context(single_keys(keyboard))
            start(lambda: read_keys(keyboard, client, inbox, ended))
        stack.enter_context(contextlib.suppress(_Quit))
        live = stack.enter_context(Live(console=console, auto_refresh=False))
        while True:
            live.update(board.render(console.height), refresh=True)
            with contextlib.suppress(queue.Empty):
                inbox.get(timeout=DRAW_EVERY_S)(board)


def start(work: Callable[[], None]) -> None:
    """Run it in a thread that ends with the program."""
    threading.Thread(target=work, daemon=True).start()


# --- the stream


def follow(client: httpx.Client, inbox: Inbox) -> None:
    """Tell of each event; what can't be loaded now is loaded after the next one."""
    stale = False
    try:
        for event in events(client):
            if event.kind == "lost":
                inbox.put(telling(f"connection lost ({event.data.decode()}); trying again"))
                continue
            try:
                if event.kind == "hello" or stale:
                    inbox.put(replacing(load_alerts(client)))
                elif event.kind == "alert":
                    inbox.put(
                        putting(load_alert(client, msgspec.json.decode(event.data)["data"]["alert_id"]))
                    )
                stale = False
                inbox.put(telling("live"))
            except httpx.HTTPError as error:
                stale = True
                inbox.put(telling(f"the alerts can't be loaded ({reason(error)}); trying again"))
    except Exception as error:  # noqa: BLE001  # told to the main thread, which raises it
        inbox.put(raising(error))


def telling(state: str) -> Step:
    """Show how the connection is."""
    return lambda board: setattr(board, "state", state)


def replacing(alerts: list[dict[str, object]]) -> Step:
    """Show these alerts."""
    return lambda board: board.replace(alerts)


def putting(alert: dict[str, object], said: str | None = None) -> Step:
    """Show an alert as it is now, and what came of a key."""

    def put(board: Board) -> None:
        board.put(alert)
        board.said = board.said if said is None else said

    return put


def saying(said: str) -> Step:
    """Show what came of a key."""
    return lambda board: setattr(board, "said", said)


def raising(error: BaseException) -> Step:
    """End the table with this error."""

    def fail(_board: Board) -> None:
        raise error

    return fail


# --- the keys


@contextlib.contextmanager
def single_keys(keyboard: int) -> Iterator[None]:
    """Have the terminal give each key at once and show none; as it was before, afterwards."""
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def read_keys(keyboard: int, client: httpx.Client, inbox: Inbox, ended: threading.Event) -> None:
    """Put what each key does into the inbox, until the table has ended or nothing can be typed any more."""
    while not ended.is_set():
        if not select.select([keyboard], [], [], KEY_LOOK_S)[0]:
            continue
        typed = os.read(keyboard, 1024)
        if not typed:
            return
        for key in KEY.findall(typed):
            inbox.put(meaning(key, client, inbox))


def meaning(key: bytes, client: httpx.Client, inbox: Inbox) -> Step:
    """What a key does to the board; nothing, where it means nothing."""
    if key in UP:
        return lambda board: board.move(-1)
    if key in DOWN:
        return lambda board: board.move(1)
    if key.isdigit():
        return lambda board: board.type(key.decode())
    if key == ESCAPE:
        return Board.forget
    if key == b"a":
        return lambda board: acknowledge(board, client, inbox)
    if key == b"q":
        return raising(_Quit())
    return lambda _board: None


def acknowledge(board: Board, client: httpx.Client, inbox: Inbox) -> None:
    """Ask the API to acknowledge the chosen alert; its answer comes through the inbox."""
    alert = board.chosen
    if alert is None:
        board.said = "choose an alert first"
    elif alert["state"] != "open":
        board.said = "it is acknowledged already"
    else:
        alert_id = str(alert["alert_id"])
        board.said = "acknowledging…"
        start(lambda: inbox.put(answered(client, alert_id)))


def answered(client: httpx.Client, alert_id: str) -> Step:
    """The step that shows what the API says to an acknowledgement."""
    try:
        alert = take_step(client, alert_id, "acknowledge", {})
    except TailError as error:
        return saying(str(error))
    return putting(alert, f"{alert['device_id']} acknowledged by {alert['log'][-1]['who']}")
