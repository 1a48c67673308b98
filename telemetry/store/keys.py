"""Accounts and tokens as an administrator keeps them. Each change is logged in the same transaction."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from psycopg import errors as pg

from telemetry.access.looks import Look
from telemetry.store.access_rows import LOOK, look_values
from telemetry.store.errors import StoreError
from telemetry.store.link import Link
from telemetry.store.rows import moment, time_us_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from psycopg import Connection

__all__ = ["EVER_A_KEY", "AccountRow", "KeyRing", "NoSuchKey", "TokenRow"]


class NoSuchKey(StoreError, LookupError):  # noqa: N818
    """No account or token has this name."""


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An account. groups: its caseload, None: everyone."""

    name: str
    role: str
    groups: Sequence[str] | None
    created_us: int
    disabled_us: int | None


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token, without its secret."""

    token_id: str
    name: str
    role: str
    groups: Sequence[str] | None
    created_us: int
    expires_us: int | None
    revoked_us: int | None


class KeyRing:
    """One connection, for one thread.

    by : who makes the changes, for the log: the user of the terminal
    """

    def __init__(self, link: Link, by: str) -> None:
        self._link = link
        self._by = by

    @classmethod
    def open(cls, url: str, *, by: str) -> Self:
        """Connect. Raises StoreUnavailable, StoreError."""
        return cls(Link(url), by)

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def any(self) -> bool:
        """Whether somebody can log in: an account or a token that is valid."""
        with self._link.use("looking for accounts") as connection:
            row = connection.execute(ANY_KEY).fetchone()
        return row == (True,)

    def add_account(self, name: str, role: str, groups: Sequence[str] | None, password_hash: str) -> None:
        """Make an account. Raises StoreError when the name is taken."""
        now = _now()
        with self._link.use("adding an account") as connection, connection.transaction():
            try:
                connection.execute(
                    "INSERT INTO accounts (name, role, groups, password_hash, created_time, password_time)"
                    " VALUES (%s, %s, %s, %s, %s, %s)",
                    (name, role, _list(groups), password_hash, now, now),
                )
            except pg.UniqueViolation as error:
                raise StoreError(
                    f"there is an account {name} already; choose another name, or set its password"
                ) from error
            self._log(connection, "account", f"added {name} as {role}, {_caseload(groups)}")

    def set_password(self, name: str, password_hash: str) -> None:
        """Set a password, which ends the sessions of the account; it is enabled again. Raises NoSuchKey."""
        with self._link.use("setting a password") as connection, connection.transaction():
            found = connection.execute(
                "UPDATE accounts SET password_hash = %s, password_time = %s, disabled_time = NULL"
                " WHERE name = %s RETURNING name",
                (password_hash, _now(), name),
            ).fetchone()
            if found is None:
                raise NoSuchKey(f"there is no account {name}; `ringfence user list` shows those there are")
            connection.execute("DELETE FROM sessions WHERE account = %s", (name,))
            self._log(connection, "account", f"set the password of {name}")

    def disable_account(self, name: str) -> None:
        """Let nobody log in with it any more, and end its sessions. Raises NoSuchKey."""
        with self._link.use("disabling an account") as connection, connection.transaction():
            found = connection.execute(
                "UPDATE accounts SET disabled_time = coalesce(disabled_time, %s) WHERE name = %s"
                " RETURNING name",
                (_now(), name),
            ).fetchone()
            if found is None:
                raise NoSuchKey(f"there is no account {name}; `ringfence user list` shows those there are")
            connection.execute("DELETE FROM sessions WHERE account = %s", (name,))
            self._log(connection, "account", f"disabled {name}")

    def accounts(self) -> list[AccountRow]:
        """All of them, by name."""
        with self._link.use("listing accounts") as connection:
            rows = connection.execute(
                "SELECT name, role, groups, created_time, disabled_time FROM accounts ORDER BY name"
            ).fetchall()
        return [
            AccountRow(name, role, groups, time_us_of(created), _us(disabled))
            for name, role, groups, created, disabled in rows
        ]

    def add_token(
        self,
        token_id: str,
        name: str,
        *,
        role: str,
        groups: Sequence[str] | None,
        secret_hash: str,
        expires_us: int | None,
    ) -> None:
        """Keep a new token."""
        expires = None if expires_us is None else moment(expires_us)
        with self._link.use("adding a token") as connection, connection.transaction():
            connection.execute(
                "INSERT INTO tokens (token_id, name, role, groups, secret_hash, created_time, expires_time)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                (token_id, name, role, _list(groups), secret_hash, _now(), expires),
            )
            self._log(connection, "token", f"added {token_id} ({name}) as {role}, {_caseload(groups)}")

    def revoke_token(self, token_id: str) -> None:
        """Let nobody use it any more. Raises NoSuchKey."""
        with self._link.use("revoking a token") as connection, connection.transaction():
            found = connection.execute(
                "UPDATE tokens SET revoked_time = coalesce(revoked_time, %s) WHERE token_id = %s"
                " RETURNING name",
                (_now(), token_id),
            ).fetchone()
            if found is None:
                raise NoSuchKey(f"there is no token {token_id}; `ringfence token list` shows those there are")
            self._log(connection, "token", f"revoked {token_id} ({found[0]})")

    def tokens(self) -> list[TokenRow]:
        """All of them, newest first."""
        with self._link.use("listing tokens") as connection:
            rows = connection.execute(
                "SELECT token_id, name, role, groups, created_time, expires_time, revoked_time FROM tokens"
                " ORDER BY created_time DESC, token_id"
            ).fetchall()
        return [
            TokenRow(token_id, name, role, groups, time_us_of(created), _us(expires), _us(revoked))
            for token_id, name, role, groups, created, expires, revoked in rows
        ]

    def log_look(self, what: str, participant: str, reason: str | None) -> None:
        """Log a look from the terminal."""
        look = Look(
            who=self._by, role="local", how="terminal", what=what, participant=participant, reason=reason
        )
        with self._link.use("logging a look") as connection:
            connection.execute(LOOK, look_values(look, time.time_ns() // 1000))

    def _log(self, connection: Connection[Any], what: str, detail: str) -> None:
        look = Look(who=self._by, role="local", how="terminal", what=what, detail=detail)
        connection.execute(LOOK, look_values(look, time.time_ns() // 1000))


ANY_KEY = """
SELECT EXISTS (SELECT FROM accounts WHERE disabled_time IS NULL)
    OR EXISTS (SELECT FROM tokens WHERE revoked_time IS NULL AND coalesce(expires_time, 'infinity') > now())
"""


# A door that has had a lock stays locked: it must not open because the last token has run out.
EVER_A_KEY = "SELECT EXISTS (SELECT FROM accounts) OR EXISTS (SELECT FROM tokens)"


def _now() -> datetime:
    return moment(time.time_ns() // 1000)


def _us(value: datetime | None) -> int | None:
    return None if value is None else time_us_of(value)


def _list(groups: Sequence[str] | None) -> list[str] | None:
    return None if groups is None else sorted(groups)


def _caseload(groups: Sequence[str] | None) -> str:
    return "for everyone" if groups is None else f"for {', '.join(sorted(groups)) or 'nobody'}"
