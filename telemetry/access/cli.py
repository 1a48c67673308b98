"""The commands about access: ``audit``, ``user``, ``token``. Each imports what it needs when it runs."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from telemetry.options import Config, Json, RunningDatabaseUrl, RunningDataDir, running_database_url

__all__ = ["audit_app"]

audit_app = typer.Typer(help="Check that the logs are what was written.", no_args_is_help=True)

out = Console()
err = Console(stderr=True)


@audit_app.callback()
def audit() -> None:
    """Check that the logs are what was written."""


@audit_app.command("verify")
def verify(
    anchor: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Compare with what an earlier run noted there, and note the ends of the logs. "
            "Keep it where who can change the database can't reach.",
            show_default=False,
        ),
    ] = None,
    database_url: RunningDatabaseUrl = None,
    data_dir: RunningDataDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Follow the hash chains of the alert log and the access log, and name the first broken link.

    Ends with status 1 when a link is broken.
    """
    from telemetry.access.audit import report, verify_database  # noqa: PLC0415
    from telemetry.config import load_settings  # noqa: PLC0415

    settings = load_settings(config, database_url=database_url, data_dir=data_dir)
    url = running_database_url(settings)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=as_json or not err.is_terminal,
    ) as bars:
        tasks = {}

        def tell(log: str, done: int, total: int) -> None:
            if log not in tasks:
                tasks[log] = bars.add_task(log, total=total)
            bars.update(tasks[log], completed=done)

        verdicts = verify_database(url, anchor, tell)
    found = report(verdicts)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        table = Table(
            "log", "", Column("rows", justify="right"), Column("what was found", overflow="fold"), box=None
        )
        for verdict in verdicts:
            if verdict.broken is not None:
                link, why = verdict.broken
                table.add_row(
                    verdict.log, Text("broken", "bold red"), str(verdict.rows), Text(f"link {link}: {why}")
                )
            elif verdict.head is None:
                table.add_row(verdict.log, Text("ok", "green"), "0", "empty")
            else:
                erased = f", personal part of {verdict.erased} erased" if verdict.erased else ""
                head = Text(f"ends at link {verdict.head.link} with {verdict.head.hash}{erased}")
                table.add_row(verdict.log, Text("ok", "green"), str(verdict.rows), head)
        out.print(table)
    if not found["ok"]:
        raise typer.Exit(1)
