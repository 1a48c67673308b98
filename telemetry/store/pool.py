"""The pool of connections that the API reads with."""

from __future__ import annotations

import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg_pool import AsyncConnectionPool

from telemetry.store._kernels.copy_rows import POSTGRES_EPOCH_US
from telemetry.store.connect import SESSION_SQL, Row, check_server, connection_options, shown
from telemetry.store.errors import translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from psycopg import AsyncConnection
    from psycopg.abc import Buffer

__all__ = ["ReadingPool"]

MOST_CONNECTIONS: Final = 8
WAIT_S: Final = 2.0  # for a connection: a page of an operator should say soon that the database is away
STATEMENT_TIMEOUT: Final = "30s"

_INT64: Final = struct.Struct(">q")


class _TimeUsLoader(Loader):
    """timestamptz as int microseconds since 1970: exact, and three times as fast as by way of a datetime."""

    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        value: int = _INT64.unpack(data)[0]
        return value + POSTGRES_EPOCH_US


class ReadingPool:
    """Connections in autocommit mode that give times as microseconds. ``binary=True`` is needed for that."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._pool: AsyncConnectionPool[AsyncConnection[Row]] | None = None

    async def open(self) -> None:
        """Open on the running event loop; the database may be away, then later uses fail until it is back."""
        self._pool = AsyncConnectionPool(
            self.url,
            kwargs={**connection_options(self.url, "ringfence reader"), "autocommit": True},
            min_size=1,
            max_size=MOST_CONNECTIONS,
            timeout=WAIT_S,
            reconnect_timeout=10.0,
            configure=self._configure,
            check=AsyncConnectionPool.check_connection,
            open=False,
            name="ringfence reader",
        )
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close every connection."""
        if self._pool is not None:
            await self._pool.close(timeout=1.0)

    async def _configure(self, connection: AsyncConnection[Any]) -> None:
        check_server(connection.info.server_version, shown(self.url))
        await connection.execute(SESSION_SQL)
        await connection.execute(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'")
        connection.adapters.register_loader("timestamptz", _TimeUsLoader)

    @asynccontextmanager
    async def use(self, doing: str) -> AsyncIterator[AsyncConnection[Row]]:
        """A connection for one piece of work. StoreUnavailable, within two seconds: there is none."""
        assert self._pool is not None, "the reader is not open; call open() on the event loop first"
        with translated(doing):
            async with self._pool.connection() as connection:
                yield connection
