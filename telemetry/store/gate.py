"""What the API's door asks of the database: whose name, token or cookie this is; and the access log."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from telemetry.store.access_rows import LOOK, LOOKS, PARTICIPANT_OF, look_row, look_values
from telemetry.store.cursors import read_cursor, write_cursor
from telemetry.store.keys import EVER_A_KEY
from telemetry.store.rows import bound, moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telemetry.access.looks import Look, LookRow
    from telemetry.store.pool import ReadingPool

__all__ = ["Gate", "StoredKey"]


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An account or token that is valid now. groups: None: everyone."""

    name: str
    role: str
    groups: Sequence[str] | None
    secret_hash: str


class Gate:
    """Shares the reader's pool. Every method raises StoreUnavailable when the database is away."""

    def __init__(self, pool: ReadingPool) -> None:
        self._pool = pool

    async def any_key(self) -> bool:
        """Whether somebody could ever log in, so that everybody has to."""
        return bool((await self._row("looking for accounts", EVER_A_KEY, {}))[0])

    async def account(self, name: str) -> StoredKey | None:
        """The account of this name, unless it is disabled."""
        row = await self._row_or_none(
            "looking an account up",
            "SELECT name, role, groups, password_hash FROM accounts"
            " WHERE name = %(name)s AND disabled_time IS NULL",
            {"name": name},
        )
        return None if row is None else StoredKey(*row)

    async def token(self, token_id: str) -> StoredKey | None:
        """The token of this id, unless it is revoked or past its time."""
        row = await self._row_or_none(
            "looking a token up",
            "SELECT name, role, groups, secret_hash FROM tokens WHERE token_id = %(token_id)s"
            " AND revoked_time IS NULL AND coalesce(expires_time, 'infinity') > now()",
            {"token_id": token_id},
        )
        return None if row is None else StoredKey(*row)

    async def session(self, cookie_hash: bytes) -> StoredKey | None:
        """The account whose session has this cookie, while the session lasts."""
        row = await self._row_or_none(
            "looking a session up",
            "SELECT a.name, a.role, a.groups, '' FROM sessions s JOIN accounts a ON a.name = s.account"
            " WHERE s.cookie_hash = %(hash)s AND s.expires_time > now() AND a.disabled_time IS NULL",
            {"hash": cookie_hash},
        )
        return None if row is None else StoredKey(*row)

    async def begin_session(self, cookie_hash: bytes, account: str, lasts_s: float, look: Look) -> None:
        """Begin a session, forget those that are over, and log it."""
        now_us = time.time_ns() // 1000
        values = {
            "hash": cookie_hash,
            "account": account,
            "now": moment(now_us),
            "expires": moment(now_us + int(lasts_s * 1e6)),
        }
        async with self._pool.use("beginning a session") as connection, connection.transaction():
            await connection.execute("DELETE FROM sessions WHERE expires_time < %(now)s", values)
            await connection.execute(
                "INSERT INTO sessions (cookie_hash, account, began_time, expires_time)"
                " VALUES (%(hash)s, %(account)s, %(now)s, %(expires)s)",
                values,
            )
            await connection.execute(LOOK, look_values(look, now_us))

    async def end_session(self, cookie_hash: bytes, look: Look) -> None:
        """End a session, and log it."""
        async with self._pool.use("ending a session") as connection, connection.transaction():
            await connection.execute(
                "DELETE FROM sessions WHERE cookie_hash = %(hash)s", {"hash": cookie_hash}
            )
            await connection.execute(LOOK, look_values(look, time.time_ns() // 1000))

    # --- the access log -------------------------------------------------------------------------

    async def note(self, look: Look) -> None:
        """Log a look; of one at a device also who wore it then."""
        async with self._pool.use("logging a look") as connection:
            if look.device_id is not None and look.participant is None:
                window = {
                    "device_id": look.device_id,
                    "from": bound(look.from_us or 0),
                    "to": bound(look.to_us if look.to_us is not None else 2**62),
                }
                cursor = await connection.execute(PARTICIPANT_OF, window)
                row = await cursor.fetchone()
                look = replace(look, participant=None if row is None else row[0])
            await connection.execute(LOOK, look_values(look, time.time_ns() // 1000))

    async def looks(
        self,
        *,
        groups: frozenset[str] | None,
        who: str | None,
        device_id: str | None,
        participant: str | None,
        what: str | None,
        from_us: int | None,
        to_us: int | None,
        cursor: str | None,
        limit: int,
    ) -> tuple[Sequence[LookRow], str | None]:
        """A page of the access log, newest first, and the cursor of the next.

        groups : only looks at participants and devices of this caseload; None: all
        """
        conditions = ["true"]
        values: dict[str, Any] = {"limit": limit + 1}
        for column, value in (
            ("who", who), ("device_id", device_id), ("participant", participant), ("what", what)
        ):  # fmt: skip
            if value is not None:
                conditions.append(f"a.{column} = %({column})s")
                values[column] = value
        for operator, name, time_us in ((">=", "from", from_us), ("<", "to", to_us)):
            if time_us is not None:
                conditions.append(f"a.time {operator} %({name})s")
                values[name] = bound(time_us)
        if groups is not None:
            conditions.append(_OF_CASELOAD)
            values["groups"] = sorted(groups)
        if cursor:
            after_us, values["after_link"] = read_cursor(cursor, "looks", int, int)
            values["after"] = bound(after_us)
            conditions.append("(a.time, a.link) < (%(after)s, %(after_link)s)")
        query = LOOKS.format(where=" AND ".join(conditions))
        async with self._pool.use("reading the access log") as connection:
            answer = await connection.execute(query, values, binary=True)
            rows = [look_row(row) for row in await answer.fetchall()]
        page = rows[:limit]
        more = len(rows) > limit
        return page, write_cursor("looks", page[-1].time_us, page[-1].link) if more else None

    async def _row(self, doing: str, query: str, values: dict[str, Any]) -> Any:
        row = await self._row_or_none(doing, query, values)
        assert row is not None
        return row

    async def _row_or_none(self, doing: str, query: str, values: dict[str, Any]) -> Any:
        async with self._pool.use(doing) as connection:
            cursor = await connection.execute(query, values, binary=True)
            return await cursor.fetchone()


_OF_CASELOAD = """
EXISTS (SELECT FROM enrollments e WHERE e.until_version IS NULL AND e.groups && %(groups)s::text[]
        AND (e.participant = a.participant OR (a.participant IS NULL AND e.device_id = a.device_id)))
"""
