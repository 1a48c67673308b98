"""The one connection of a store: made when it is needed, given up when it breaks."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg

from telemetry.store.connect import Row, connect, shown
from telemetry.store.errors import StaleEpoch, StoreError, StoreUnavailable, translated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

__all__ = ["Link"]

TERMINATE_WAIT_MS = 5_000


class Link:
    """Opens, and opens again. Not for several threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._name = "ringfence"
        self._held: tuple[int, int] | None = None
        self._abandoned = False
        self._connection: Connection[Row] | None = connect(url, self._name)

    def abandon(self) -> None:
        """Give the database up for good, from another thread: who waits for it gets StoreUnavailable."""
        self._abandoned = True
        connection = self._connection
        if connection is None:
            return
        with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)  # wakes the wait, which the close of a descriptor would not

    def close(self) -> None:
        """Close the connection; the link can't be used any more."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def use(self, doing: str) -> Iterator[Connection[Row]]:
        """The connection, for one piece of work.

        doing : what it is, for messages
        Raises StoreUnavailable when the work may be tried again: then the next use opens a new connection.
        """
        connection = self._alive(doing)
        try:
            with translated(doing):
                yield connection
        except StoreError:
            if connection.broken:
                connection.close()
            raise
        except BaseException:
            connection.close()  # an interrupt in the middle leaves the protocol in an unknown state
            raise

    def take(self, share: int) -> None:
        """Serve this share: the session gets its name, and others of that name are ended."""
        self._held = None
        self._name = f"ringfence share {share}"
        with self.use(f"taking share {share}") as connection:
            connection.execute("SELECT set_config('application_name', %s, false)", (self._name,))
            # a session whose engine stands still must not keep the share's row locked for ever
            connection.execute("SET idle_in_transaction_session_timeout = '60s'")
            self._end_others(connection)

    def hold(self, share: int, epoch: int) -> None:
        """The share is ours with this epoch; a new connection makes sure that it still is."""
        self._held = (share, epoch)

    def _alive(self, doing: str) -> Connection[Row]:
        if self._abandoned:
            raise StoreUnavailable(f"{doing}: this engine stops and waits for the database no more")
        if self._connection is None or self._connection.closed:
            try:
                self._connection = connect(self.url, self._name)
            except StoreUnavailable:
                raise
            except (
                StoreError
            ) as error:  # it worked before, so it may work again: the batch must wait, not be lost
                raise StoreUnavailable(str(error)) from error
            if self._held is not None:
                self._come_back(self._connection, *self._held)
        if self._connection is None:
            raise StoreError(f"{doing}: the store is closed; open it again")
        return self._connection

    def _come_back(self, connection: Connection[Row], share: int, epoch: int) -> None:
        """After a break: end our own earlier session, which may still hold the share's row, unless another
        engine has taken the share.
        """
        try:
            with translated(f"coming back to {shown(self.url)}"):
                connection.execute("SET idle_in_transaction_session_timeout = '60s'")
                row = connection.execute("SELECT epoch FROM shares WHERE share = %s", (share,)).fetchone()
                if row == (epoch,):
                    self._end_others(connection)
        except BaseException:
            connection.close()
            raise
        if row != (epoch,):
            connection.close()
            raise StaleEpoch(share, epoch, None if row is None else row[0])

    def _end_others(self, connection: Connection[Row]) -> None:
        connection.execute(
            "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = %s AND pid <> pg_backend_pid()",
            (TERMINATE_WAIT_MS, self._name),
        ).fetchall()
