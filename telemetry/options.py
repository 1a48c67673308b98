"""Options that several subcommands share, and the database that those mean which ask a running engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from telemetry.config import Settings

__all__ = ["Config", "DataDir", "Json", "RunningDataDir", "RunningDatabaseUrl", "running_database_url"]

Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="TOML file of settings; flags and RINGFENCE_* win.", show_default=False
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where broker, database and state are kept.",
        show_default="~/.local/state/ringfence",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
RunningDatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="PostgreSQL or TimescaleDB. Left out: that of the running `ringfence up`.",
        show_default=False,
    ),
]
RunningDataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Data directory of the running `ringfence up`.", show_default=False
    ),
]


def running_database_url(settings: Settings) -> str:
    """The database that the settings name, or that of the `ringfence up` that runs on the data directory."""
    from telemetry.config import SettingsError  # noqa: PLC0415 - keeps `ringfence --help` quick
    from telemetry.services.state import read_state  # noqa: PLC0415

    running = read_state(settings.data_dir)
    url = settings.database_url or (running.database_url if running else None)
    if url is None:
        raise SettingsError(
            f"no `ringfence up` runs on {settings.data_dir}; start it, or name a database with --database-url"
        )
    return url
