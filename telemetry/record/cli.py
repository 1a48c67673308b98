"""The commands ``ringfence record`` and ``ringfence erase``."""

from __future__ import annotations

import getpass
import sys
import time
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

import typer
from rich.console import Console

from telemetry.access.errors import AccessError
from telemetry.options import Config, RunningDatabaseUrl, RunningDataDir, running_database_url

__all__ = ["erase", "record"]

out = Console()

Participant = Annotated[str, typer.Argument(metavar="PARTICIPANT", help="As the roster names the person.")]


def record(
    *,
    participant: Participant,
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="html, pdf or json; else by the file's name.")
    ] = "",
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it there.", show_default=False)
    ] = None,
    positions: Annotated[bool, typer.Option("--positions", help="With every position.")] = False,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why you look, for the log.")] = None,
    database_url: RunningDatabaseUrl = None,
    data_dir: RunningDataDir = None,
    config: Config = None,
) -> None:
    """Write all that is recorded about a participant, in plain words. The look is logged."""
    from telemetry.config import load_settings  # noqa: PLC0415
    from telemetry.record.writers import write_html, write_json, write_pdf  # noqa: PLC0415
    from telemetry.store.keys import KeyRing  # noqa: PLC0415
    from telemetry.store.records import read_record  # noqa: PLC0415

    writers = {"html": write_html, "pdf": write_pdf, "json": write_json}
    form = form or (out_file.suffix.lstrip(".").lower() if out_file else "") or "html"
    if form not in writers:
        raise AccessError(f"no record can be written as {form!r}; there are {', '.join(writers)}")
    url = running_database_url(load_settings(config, database_url=database_url, data_dir=data_dir))
    ring = KeyRing.open(url, by=_me())
    try:
        ring.log_look("record", participant, reason)
    finally:
        ring.close()
    found = read_record(url, participant, groups=None, positions=positions)
    if found is None:
        raise AccessError(f"no roster names a participant {participant!r}; GET /api/v1/devices shows who is")
    data = writers[form](found)
    if out_file is None:
        sys.stdout.buffer.write(data)
        return
    try:
        out_file.write_bytes(data)
    except OSError as error:
        raise AccessError(f"--out {out_file}: {error.strerror}; give a file that can be written") from error


def erase(
    *,
    participant: Participant,
    before: Annotated[str, typer.Option(metavar="TIME", help="Erase what is older; RFC 3339.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="On whose order, for the log.")],
    decisions: Annotated[
        bool, typer.Option("--decisions", help="Also violations, transitions and alerts that are over.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    database_url: RunningDatabaseUrl = None,
    data_dir: RunningDataDir = None,
    config: Config = None,
) -> None:
    """Erase what was recorded about a participant before a time. The logs' chains stay whole.

    Decisions stay unless --decisions says otherwise, and who looked at the person always does.
    """
    from geofence import from_rfc3339  # noqa: PLC0415
    from telemetry.config import load_settings  # noqa: PLC0415
    from telemetry.store.erasure import erase as erase_stored  # noqa: PLC0415

    try:
        before_us = from_rfc3339(before)
    except ValueError as error:
        raise AccessError(f"--before {before!r} is no time; write it like 2026-11-24T08:00:00Z") from error
    if before_us > time.time_ns() // 1000:
        raise AccessError(f"--before {before} lies ahead; give a time that is past")
    url = running_database_url(load_settings(config, database_url=database_url, data_dir=data_dir))
    if not yes:
        typer.confirm(f"Erase what is recorded about {participant} before {before}, for good?", abort=True)
    counts = erase_stored(url, participant, before_us, by=_me(), reason=reason, decisions=decisions)
    for table, rows in counts.items():
        out.print(f"{table}: {rows} rows", highlight=False)


def _me() -> str:
    return f"{getpass.getuser()} at the terminal"
