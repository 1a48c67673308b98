"""``ringfence quarantine``: look at what could not be taken in, and have it taken in again after a repair."""

from __future__ import annotations

import contextlib
import getpass
import json
import socket
import time
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from telemetry.config import SettingsError, load_settings
from telemetry.options import Config, Json, RunningDatabaseUrl, RunningDataDir, running_database_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telemetry.store import QuarantineRow, Store, Wanted

__all__ = ["app"]

SHOWN_BYTES: Final = 2_048  # of a payload in a terminal
MOST_REPLAYS: Final = 100_000  # at once
POLL_S: Final = 0.2

app = typer.Typer(help="Messages that could not be taken in.", no_args_is_help=True)
out = Console()

Reason = Annotated[
    str | None, typer.Option(metavar="WORD", help="Only of this reason, as not_json or misdated.")
]
Topic = Annotated[str | None, typer.Option(metavar="TEXT", help="Only of topics that hold this text.")]
Device = Annotated[str | None, typer.Option(metavar="ID", help="Only of this device's topics.")]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Received then or later, as 2026-11-24T08:00:00Z.")
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Received before then.")]


@app.command("list")
def list_(
    *,
    reason: Reason = None,
    topic: Topic = None,
    device: Device = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most so many, the newest.")] = 50,
    database_url: RunningDatabaseUrl = None,
    data_dir: RunningDataDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List quarantined messages, newest first."""
    with _store(config, database_url, data_dir) as store:
        wanted = _wanted(reason=reason, topic=topic, device=device, since=since, until=until)
        rows = store.quarantine.find(wanted, limit)
    if as_json:
        typer.echo(json.dumps({"items": [_document(row) for row in rows]}, indent=2))
        return
    table = Table("id", "received", "reason", Column("topic", overflow="fold"), "bytes", "replay", box=None)
    for row in rows:
        table.add_row(
            str(row.quarantine_id),
            _time(row.received_us),
            row.reason,
            Text(row.topic),
            str(row.payload_bytes),
            _replay_state(row),
        )
    out.print(table if rows else "nothing is quarantined that fits")


@app.command()
def show(
    quarantine_id: Annotated[int, typer.Argument(metavar="ID", help="Number from `quarantine list`.")],
    *,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the bytes as they came, and nothing else.")
    ] = False,
    database_url: RunningDatabaseUrl = None,
    data_dir: RunningDataDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show one quarantined message: why, from where, and its bytes."""
    with _store(config, database_url, data_dir) as store:
        (row,) = _named(store, [quarantine_id])
    if raw:
        typer.get_binary_stream("stdout").write(row.payload)
    elif as_json:
        typer.echo(json.dumps(_document(row) | {"payload": row.payload.hex()}, indent=2))
    else:
        for name, value in _document(row).items():
            out.print(Text(f"{name:<16}{value}"), soft_wrap=True)
        out.print()
        out.print(Text(_readable(row.payload[:SHOWN_BYTES])), soft_wrap=True)
        if len(row.payload) > SHOWN_BYTES:
            out.print(f"… {len(row.payload) - SHOWN_BYTES} more bytes; --raw writes them all")


@app.command()
def replay(
    quarantine_ids: Annotated[
        list[int] | None,
        typer.Argument(metavar="[ID]…", help="Numbers; left out: all that the filters give."),
    ] = None,
    *,
    reason: Reason = None,
    topic: Topic = None,
    device: Device = None,
    since: Since = None,
    until: Until = None,
    again: Annotated[bool, typer.Option("--again", help="Also those that were replayed before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which they are.")] = False,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long to wait for the engine.")
    ] = 15.0,
    database_url: RunningDatabaseUrl = None,
    data_dir: RunningDataDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Have the engine take quarantined messages in again, through decode and admission.

    What is stored already is not stored twice. Ends with status 1 when some were refused again, or wait.
    """
    ids, filters = quarantine_ids or None, (reason, topic, device, since, until)
    if ids is None and not any(filters):
        raise SettingsError(
            "quarantine replay: nothing says which messages; give their numbers, or --reason, --topic, "
            "--device, --since or --until"
        )
    with _store(config, database_url, data_dir) as store:
        if ids is None:
            wanted = _wanted(reason=reason, topic=topic, device=device, since=since, until=until, again=again)
            rows = [row for row in store.quarantine.find(wanted, MOST_REPLAYS) if row.payload_sha256 is None]
        else:
            rows = [row for row in _named(store, ids) if again or row.asked_us is None]
        if not dry_run:
            store.quarantine.ask(rows, f"{getpass.getuser()}@{socket.gethostname()}")
            rows = _outcome(store, rows, wait)
    refused = sum(row.refused_again is True for row in rows)
    waiting = 0 if dry_run else sum(row.taken_us is None for row in rows)
    if as_json:
        typer.echo(json.dumps({"items": [_document(row) for row in rows]}, indent=2))
    elif dry_run:
        out.print(
            f"{len(rows)} messages would be replayed: {[row.quarantine_id for row in rows]}", soft_wrap=True
        )
    else:
        out.print(
            f"{len(rows)} messages asked for: {len(rows) - refused - waiting} taken in, "
            f"{refused} refused again, {waiting} wait for the engine",
            soft_wrap=True,
        )
    if refused or waiting:
        raise typer.Exit(1)


@contextlib.contextmanager
def _store(config: Path | None, database_url: str | None, data_dir: Path | None) -> Iterator[Store]:
    from telemetry.store import Store  # noqa: PLC0415 - keeps `ringfence --help` quick

    url = running_database_url(load_settings(config, database_url=database_url, data_dir=data_dir))
    with contextlib.closing(Store.open(url)) as store:
        yield store


def _wanted(
    *,
    reason: str | None,
    topic: str | None,
    device: str | None,
    since: str | None,
    until: str | None,
    again: bool = True,
) -> Wanted:
    from telemetry.store import Wanted  # noqa: PLC0415

    return Wanted(
        reason=reason,
        topic=topic,
        device=device,
        from_us=_moment("--since", since),
        to_us=_moment("--until", until),
        replayed=None if again else False,
    )


def _moment(option: str, text: str | None) -> int | None:
    from geofence import from_rfc3339  # noqa: PLC0415

    if text is None:
        return None
    try:
        return from_rfc3339(text)
    except ValueError as error:
        raise SettingsError(f"{option} {text}: write the time as 2026-11-24T08:00:00Z") from error


def _named(store: Store, ids: list[int]) -> list[QuarantineRow]:
    from telemetry.store import Wanted  # noqa: PLC0415

    rows = store.quarantine.find(Wanted(ids=ids), len(ids))
    missing = set(ids) - {row.quarantine_id for row in rows}
    if missing:
        raise SettingsError(
            f"no quarantined message has the number {', '.join(map(str, sorted(missing)))}; "
            "`ringfence quarantine list` names those that are kept"
        )
    return rows


def _outcome(store: Store, rows: list[QuarantineRow], wait_s: float) -> list[QuarantineRow]:
    """The same rows, once all were taken in or the time is over."""
    deadline_s = time.monotonic() + wait_s
    while rows:
        rows = _named(store, [row.quarantine_id for row in rows])
        if all(row.taken_us is not None for row in rows) or time.monotonic() > deadline_s:
            break
        time.sleep(POLL_S)
    return rows


def _replay_state(row: QuarantineRow) -> str:
    if row.asked_us is None:
        return ""
    if row.taken_us is None:
        return "waits for the engine"
    return "refused again" if row.refused_again else "taken in"


def _document(row: QuarantineRow) -> dict[str, Any]:
    return {
        "id": row.quarantine_id,
        "received": _time(row.received_us),
        "topic": row.topic,
        "reason": row.reason,
        "detail": row.detail,
        "payload_bytes": row.payload_bytes,
        "payload_whole": row.payload_sha256 is None,
        "share": row.share,
        "batch": row.batch,
        "asked": None if row.asked_us is None else _time(row.asked_us),
        "asked_by": row.asked_by,
        "taken": None if row.taken_us is None else _time(row.taken_us),
        "refused_again": row.refused_again,
    }


def _time(time_us: int) -> str:
    from geofence import to_rfc3339  # noqa: PLC0415

    return to_rfc3339(time_us)


def _readable(payload: bytes) -> str:
    """As text where it is text, else as hexadecimal with the characters beside."""
    with contextlib.suppress(UnicodeDecodeError):
        text = payload.decode()
        if text.isprintable():
            return text
    lines = (payload[at : at + 16] for at in range(0, len(payload), 16))
    return "\n".join(
        f"{16 * number:06x}  {line.hex(' '):<47}  "
        + "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
        for number, line in enumerate(lines)
    )
