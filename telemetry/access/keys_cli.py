"""The commands ``ringfence user`` and ``ringfence token``: who may use the API."""

from __future__ import annotations

import contextlib
import getpass
import json
import re
import sys
import time
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from geofence import to_rfc3339
from telemetry.access.errors import AccessError
from telemetry.access.who import Role
from telemetry.options import Config, Json, RunningDatabaseUrl, RunningDataDir, running_database_url

if TYPE_CHECKING:
    from telemetry.store.keys import KeyRing

__all__ = ["token_app", "user_app"]

DAY_US: Final = 86_400_000_000
ROLES: Final = [role.value for role in Role if role is not Role.LOCAL]

user_app = typer.Typer(help="Who may log in to console and API.", no_args_is_help=True)
token_app = typer.Typer(help="What programs show to the API.", no_args_is_help=True)

out = Console()
err = Console(stderr=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="1 to 64 of A-Z a-z 0-9 . _ @ -")]
RoleOption = Annotated[
    str,
    typer.Option("--role", metavar="ROLE", help=", ".join(ROLES) + "; docs/access.md says what each may."),
]
Groups = Annotated[
    list[str] | None,
    typer.Option("--group", metavar="GROUP", help="The caseload: repeat it. Left out with --everyone."),
]
Everyone = Annotated[bool, typer.Option("--everyone", help="No caseload: sees every participant.")]
Password = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the first line of the input.")
]


@user_app.command("add")
def add_user(
    *,
    name: Name,
    role: RoleOption,
    group: Groups = None,
    everyone: Everyone = False,
    password_stdin: Password = False,
    database_url: RunningDatabaseUrl = None,
    data_dir: RunningDataDir = None,
    config: Config = None,
) -> None:
    """Make an account; asks for its password."""
    from telemetry.access.secrets import hash_password  # noqa: PLC0415

    _check_name(name)
    groups = _groups(group, everyone=everyone)
    with _ring(config, database_url, data_dir) as ring:
        ring.add_account(name, _role(role), groups, hash_password(_password(name, from_stdin=password_stdin)))
    out.print(f"account {name} added; from now on everybody has to log in", highlight=False)


@user_app.command("list")
def list_users(
    database_url: RunningDatabaseUrl = None,
    data_dir: RunningDataDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show the accounts."""
    with _ring(config, database_url, data_dir) as ring:
        rows = [
            {
                "name": row.name,
                "role": row.role,
                "groups": row.groups,
                "created_at": to_rfc3339(row.created_us),
                "disabled_at": _time(row.disabled_us),
            }
            for row in ring.accounts()
        ]
    _show(rows, as_json=as_json)


@user_app.command("disable")
def disable_user(
    name: Name,
    database_url: RunningDatabaseUrl = None,
    data_dir: RunningDataDir = None,
    config: Config = None,
) -> None:
    """Let nobody log in with it any more, and end its sessions. A new password enables it again."""
    with _ring(config, database_url, data_dir) as ring:
        ring.disable_account(name)
    out.print(f"account {name} disabled, its sessions ended", highlight=False)


@user_app.command("password")
def set_password(
    name: Name,
    password_stdin: Password = False,
    database_url: RunningDatabaseUrl = None,
    data_dir: RunningDataDir = None,
    config: Config = None,
) -> None:
    """Set a password, which ends the account's sessions."""
    from telemetry.access.secrets import hash_password  # noqa: PLC0415

    with _ring(config, database_url, data_dir) as ring:
        ring.set_password(name, hash_password(_password(name, from_stdin=password_stdin)))
    out.print(f"password of {name} set, its sessions ended", highlight=False)


@token_app.command("add")
def add_token(
    *,
    name: Name,
    role: RoleOption,
    group: Groups = None,
    everyone: Everyone = False,
    days: Annotated[
        int, typer.Option(metavar="N", min=0, max=3650, help="Days until it ends; 0: never.")
    ] = 365,
    database_url: RunningDatabaseUrl = None,
    data_dir: RunningDataDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make a token and print it, once: only its hash is kept."""
    from telemetry.access.secrets import hash_token_secret, new_token  # noqa: PLC0415

    _check_name(name)
    groups = _groups(group, everyone=everyone)
    token_id, secret, text = new_token()
    expires_us = time.time_ns() // 1000 + days * DAY_US if days else None
    with _ring(config, database_url, data_dir) as ring:
        ring.add_token(
            token_id,
            name,
            role=_role(role),
            groups=groups,
            secret_hash=hash_token_secret(secret),
            expires_us=expires_us,
        )
    if as_json:
        typer.echo(json.dumps({"token_id": token_id, "token": text, "expires_at": _time(expires_us)}))
        return
    err.print(f"token {token_id} for {name}; it is shown this once:", highlight=False)
    typer.echo(text)


@token_app.command("list")
def list_tokens(
    database_url: RunningDatabaseUrl = None,
    data_dir: RunningDataDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show the tokens, without their secrets."""
    with _ring(config, database_url, data_dir) as ring:
        rows = [
            {
                "token_id": row.token_id,
                "name": row.name,
                "role": row.role,
                "groups": row.groups,
                "created_at": to_rfc3339(row.created_us),
                "expires_at": _time(row.expires_us),
                "revoked_at": _time(row.revoked_us),
            }
            for row in ring.tokens()
        ]
    _show(rows, as_json=as_json)


@token_app.command("revoke")
def revoke_token(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `ringfence token list` shows it.")],
    database_url: RunningDatabaseUrl = None,
    data_dir: RunningDataDir = None,
    config: Config = None,
) -> None:
    """Let nobody use it any more; a running `ringfence up` knows within seconds."""
    with _ring(config, database_url, data_dir) as ring:
        ring.revoke_token(token_id)
    out.print(f"token {token_id} revoked", highlight=False)


def _ring(
    config: Path | None, database_url: str | None, data_dir: Path | None
) -> contextlib.closing[KeyRing]:
    from telemetry.config import load_settings  # noqa: PLC0415
    from telemetry.store import Store  # noqa: PLC0415
    from telemetry.store.keys import KeyRing  # noqa: PLC0415

    url = running_database_url(load_settings(config, database_url=database_url, data_dir=data_dir))
    with contextlib.closing(Store.open(url)) as store:  # an empty database gets its tables
        store.migrate()
    return contextlib.closing(KeyRing.open(url, by=f"{getpass.getuser()} at the terminal"))


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._@-]{1,64}", name):
        raise AccessError(f"{name!r} can't be a name; write 1 to 64 of A-Z a-z 0-9 . _ @ -")


def _role(role: str) -> str:
    if role not in ROLES:
        raise AccessError(f"no role is called {role!r}; there are {', '.join(ROLES)}")
    return role


def _groups(groups: list[str] | None, *, everyone: bool) -> list[str] | None:
    """A caseload must be said: to forget it must not show everyone."""
    if everyone == bool(groups):
        raise AccessError("say whom it may see: --group GROUP, which can be repeated, or --everyone")
    return None if everyone else groups


def _password(name: str, *, from_stdin: bool) -> str:
    from telemetry.access.secrets import check_password  # noqa: PLC0415

    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = getpass.getpass(f"password of {name}: ")
        if getpass.getpass("again: ") != password:
            raise AccessError("the two differ; try again")
    check_password(name, password)
    return password


def _time(time_us: int | None) -> str | None:
    return None if time_us is None else to_rfc3339(time_us)


def _show(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, header_style="bold")
    for column in rows[0] if rows else ("nobody yet",):
        table.add_column(column.removesuffix("_at").replace("_", " "))
    for row in rows:
        groups = "everyone" if row["groups"] is None else ", ".join(row["groups"])
        table.add_row(*("" if value is None else str(value) for value in (row | {"groups": groups}).values()))
    out.print(table)
