"""``ringfence alerts tail``: an operator's live view in a terminal, over the API's stream."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import httpx
import msgspec
from rich.console import Console

from telemetry.alerts.board import printable
from telemetry.alerts.live import show_table
from telemetry.alerts.stream import TIMEOUT, events

if TYPE_CHECKING:
    from telemetry.alerts.stream import Event

__all__ = ["tail"]


def tail(
    http_url: str, *, as_json: bool, console: Console | None = None, client: httpx.Client | None = None
) -> None:
    """Follow alerts until Ctrl-C: a live table, or with ``as_json`` the CloudEvents, one on a line.

    Where the output is no terminal, each step is a line of text. Where the input is a terminal too, keys
    choose an alert of the table and acknowledge it.
    client : shows who we are; left out: one that shows nothing
    Raises TailError when nothing answers at ``http_url``; once it did, a lost connection is made again and
    goes on where it ended.
    """
    http_url = http_url.rstrip("/")
    console = console or Console()
    try:
        client = client or httpx.Client(base_url=http_url, timeout=TIMEOUT, trust_env=False)
        client.timeout = TIMEOUT
        with client:
            if as_json:
                _print_json(client)
            elif console.is_terminal:
                show_table(client, console, sys.stdin.fileno() if sys.stdin.isatty() else None)
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
