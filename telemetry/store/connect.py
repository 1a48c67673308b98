"""Connections: how they are made, what every session sets, and what a server must be."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from telemetry.store.errors import StoreError, refused_connection, translated

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = [
    "OLDEST_SERVER",
    "SESSION_SQL",
    "Row",
    "check_server",
    "connect",
    "connection_options",
    "holder_name",
    "shown",
]

OLDEST_SERVER: Final = 14  # older ones lack what the schema uses, and are out of support
CONNECT_TIMEOUT_S: Final = 5

# Keepalives find a dead peer in about 15 s instead of two hours. The rest holds for every session, whatever
# the role or the database sets: a commit must be on disk before the acknowledgement goes out.
_KEEPALIVE: Final = {
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
_SESSION: Final = {
    "client_encoding": "UTF8",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "DateStyle": "ISO",
    "default_transaction_isolation": "read committed",
    "jit": "off",  # short queries over many partitions: compiling them costs more than they do
}

Row = tuple[Any, ...]


def shown(url: str) -> str:
    """The URL as it may be logged: no password, no options."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "the database URL"
    if parts.scheme not in {"postgresql", "postgres"}:
        return "the database URL"
    options = dict(pair.partition("=")[::2] for pair in parts.query.split("&") if pair)
    where = host or options.get("host", "").replace("%2F", "/") or "localhost"
    return f"postgresql://{parts.username or ''}@{where}{f':{port}' if port else ''}{parts.path}"


def holder_name() -> str:
    """Host and process id, for people who look into ``shares``."""
    return f"{socket.gethostname()}:{os.getpid()}"


def connection_options(url: str, application_name: str) -> dict[str, Any]:
    """What psycopg's ``connect`` is given besides the URL. What the URL says itself is left as it is."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error as error:
        raise refused_connection(error, shown(url)) from error
    options: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S, **_KEEPALIVE}
    options = {name: value for name, value in options.items() if name not in given}
    options["application_name"] = application_name
    return options


def connect(url: str, application_name: str) -> Connection[Row]:
    """A connection in autocommit mode, its server checked and its session set.

    Raises StoreUnavailable when there is nobody to talk to, StoreError when trying again would not help.
    """
    options = connection_options(url, application_name)
    try:
        connection = psycopg.connect(url, autocommit=True, **options)
    except psycopg.Error as error:
        raise refused_connection(error, shown(url)) from error
    try:
        check_server(connection.info.server_version, shown(url))
        with translated("setting the session up"):
            connection.execute(SESSION_SQL)
    except BaseException:
        connection.close()
        raise
    return connection


def check_server(version: int, shown_url: str) -> None:
    """Refuse a server that is too old. version: as libpq numbers it, 150004 for 15.4."""
    if version < OLDEST_SERVER * 10_000:
        raise StoreError(
            f"{shown_url}: this server is PostgreSQL {version // 10_000}; Ringfence needs {OLDEST_SERVER} or "
            "newer: upgrade the server, or use another"
        )


# `off` would acknowledge what a crash of the server loses; stricter values are kept.
_SYNCHRONOUS: Final = """
set_config('synchronous_commit', CASE current_setting('synchronous_commit')
    WHEN 'off' THEN 'on' WHEN 'local' THEN 'on' ELSE current_setting('synchronous_commit') END, false)
"""
SESSION_SQL: Final = "SELECT " + ", ".join(
    [*(f"set_config('{name}', '{value}', false)" for name, value in _SESSION.items()), _SYNCHRONOUS]
)
