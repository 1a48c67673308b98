"""Errors of the store, and how the database's own become one of them.

One question matters to a caller: does trying again help? ``StoreUnavailable`` says yes, every other says no.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import psycopg
import psycopg_pool
from psycopg import errors as pg

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "AlertConflict",
    "BadCursor",
    "NoSuchAlert",
    "RulesConflict",
    "RulesScheduled",
    "RulesTooSoon",
    "SchemaTooNew",
    "StaleEpoch",
    "StoreError",
    "StoreUnavailable",
    "TooManyPings",
    "refused_connection",
    "translated",
]


class StoreError(Exception):
    """Base of every error that the store raises on purpose; trying again does not help."""


class StoreUnavailable(StoreError):  # noqa: N818
    """The database does not answer, or can't write just now. Try again later; nothing was lost."""


class StaleEpoch(StoreError):  # noqa: N818
    """Another engine has taken this share over; this one must stop.

    held, current : the epoch that this engine holds, and the share's
    """

    def __init__(self, share: int, held: int, current: int | None) -> None:
        self.share, self.held, self.current = share, held, current
        now = "is unknown to the database" if current is None else f"is at epoch {current}"
        super().__init__(
            f"share {share} {now}, this engine holds epoch {held}: another engine has taken the share over; "
            "let that one run, and stop this one"
        )


class SchemaTooNew(StoreError):  # noqa: N818
    """The database was migrated by a newer program."""

    def __init__(self, found: int, known: int) -> None:
        self.found, self.known = found, known
        super().__init__(
            f"the database's schema is version {found}, this program knows up to {known}; "
            "upgrade ringfence to the version that migrated the database, or use another database"
        )


class NoSuchAlert(StoreError, LookupError):  # noqa: N818
    """No alert has this id."""

    def __init__(self, alert_id: int) -> None:
        self.alert_id = alert_id
        super().__init__(f"no alert {alert_id} is known; list alerts to see those that are")


class AlertConflict(StoreError):  # noqa: N818
    """The alert's state does not allow this action."""

    def __init__(self, alert_id: int, action: str, state: str, remedy: str) -> None:
        self.alert_id, self.action, self.state = alert_id, action, state
        super().__init__(f"alert {alert_id} is {state}: it can't be {action}; {remedy}")


class RulesConflict(StoreError):  # noqa: N818
    """Somebody else saved rules in the meantime.

    base, newest : the version that the change was made on, and the newest
    """

    def __init__(self, base: int, newest: int) -> None:
        self.base, self.newest = base, newest
        super().__init__(
            f"the change was made on version {base} of the rules, but version {newest} is the newest; "
            f"load version {newest}, look at what changed, and make the change on that"
        )


class RulesScheduled(StoreError):  # noqa: N818
    """Rules are scheduled for a later time than that of this change; it would bring them forward."""

    def __init__(self, version: int, effective_at: str) -> None:
        self.version, self.effective_at = version, effective_at
        super().__init__(
            f"version {version} is scheduled for {effective_at}, and this change, which is made on it, would "
            "take effect before"
        )


class RulesTooSoon(StoreError):  # noqa: N818
    """Rules were to take effect before every engine can know them."""

    def __init__(self, effective_at: str, earliest: str) -> None:
        super().__init__(
            f"rules can't take effect at {effective_at}: engines know of a new version within seconds, so "
            f"{earliest} is the earliest time; leave the time out to get that"
        )


class TooManyPings(StoreError):  # noqa: N818
    """More pings than a look may cost."""

    def __init__(self, pings: int, most: int) -> None:
        super().__init__(
            f"the time holds {pings} pings, and beliefs are worked out for at most {most} at once"
        )


class BadCursor(StoreError, ValueError):  # noqa: N818
    """A cursor that this list did not give."""

    def __init__(self) -> None:
        super().__init__("the cursor is not one that this list gave; ask for the first page again")


# What the server says when it refuses a connection carries no SQLSTATE in libpq, only text.
_REFUSALS: Final = (
    (
        r"no pg_hba.conf entry",
        "the database admits nobody from here under this name ({what}); add it to the server's pg_hba.conf",
        StoreError,
    ),
    (
        r"password authentication failed|no password supplied|role .* does not exist|no such user",
        "the database refuses the log-in ({what}); correct user and password in the database URL",
        StoreError,
    ),
    (
        r"database \"?.*\"? does not exist",
        "{what}; create it (createdb), or correct its name at the end of the database URL",
        StoreError,
    ),
    (
        r"permission denied for database",
        "{what}; grant it: GRANT CONNECT ON DATABASE … TO …",
        StoreError,
    ),
    (
        r"invalid connection option|invalid URI|missing \"=\"|invalid port|invalid integer value",
        "the database URL can't be read ({what}); write it as postgresql://user:password@host:5432/database",
        StoreError,
    ),
    (
        r"too many clients|remaining connection slots|too many connections",
        "the database has no free connection ({what}); raise its max_connections or close other clients",
        StoreUnavailable,
    ),
    (
        r"starting up|shutting down|not yet accepting|recovery",
        "the database is not ready yet ({what}); it is tried again",
        StoreUnavailable,
    ),
)


def refused_connection(error: psycopg.Error, shown_url: str) -> StoreError:
    """The error for a connection that could not be made, with the remedy. ``shown_url``: without password."""
    what = " ".join(str(error).split())
    for pattern, message, kind in _REFUSALS:
        if re.search(pattern, what):
            return kind(f"{shown_url}: " + message.format(what=what))
    return StoreUnavailable(
        f"{shown_url}: the database can't be reached ({what}); check that it runs and that host, port and "
        "firewall let this machine in"
    )


_UNAVAILABLE: Final = (
    psycopg.OperationalError,  # connection lost, server shutting down, out of disk or memory, lock timeouts
    pg.ReadOnlySqlTransaction,
    pg.SerializationFailure,
    pg.DeadlockDetected,
    psycopg_pool.PoolTimeout,
    psycopg_pool.PoolClosed,
    psycopg_pool.TooManyRequests,
)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn psycopg's errors into the store's. ``doing``: what was under way, for the message."""
    try:
        yield
    except pg.DiskFull as error:
        raise StoreUnavailable(
            f"{doing}: the database's disk is full ({_first_line(error)}); free space there, "
            "or shorten the retention"
        ) from error
    except pg.ReadOnlySqlTransaction as error:
        raise StoreUnavailable(
            f"{doing}: the database is read-only ({_first_line(error)}); it is a standby or is failing over: "
            "let the database URL name the primary (target_session_attrs=read-write)"
        ) from error
    except pg.InsufficientPrivilege as error:
        raise StoreError(
            f"{doing}: the database forbids it ({_first_line(error)}); grant this role what is named, "
            "or use the role that made the tables"
        ) from error
    except (pg.UndefinedTable, pg.UndefinedColumn, pg.UndefinedFunction) as error:
        raise StoreError(
            f"{doing}: the schema lacks something ({_first_line(error)}); run the migration "
            "(`ringfence up` does it at its start)"
        ) from error
    except _UNAVAILABLE as error:
        raise StoreUnavailable(
            f"{doing}: the database is not available ({_first_line(error)}); it is tried again"
        ) from error
    except psycopg.Error as error:
        raise StoreError(f"{doing}: the database refuses ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    """Only the first line: the lines after it can quote rows, and rows hold coordinates."""
    return (str(error).splitlines() or [type(error).__name__])[0]
