"""Is a log still what was written? Each row's hash covers the hash before it; this computes them again.

The database links a row when it is inserted (``ringfence_link()`` in ``telemetry/store/schema.sql``). This
module is the second opinion, written from the definition and not from that code:

    fields(F)      for each field that is not null, by name: length of the name in bytes, ``:``, name,
                   length of the value, ``:``, value; times as RFC 3339 in UTC without trailing zeros
    personal_hash  SHA-256(salt, fields(the personal fields))
    hash           SHA-256(hash of the row before, fields(the others, ``log``, ``link``, ``personal_hash``))

Before the first row stand 32 zero bytes. An erasure blanks the personal fields and the salt: the personal
hash stays, so the chain does, and without the salt nobody can guess what it hid.

What a chain can't show is that its end was cut off. An anchor can: the last link and its hash, noted
somewhere that whoever can change the database can't reach.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["LOGS", "PERSONAL", "Anchor", "Chain", "Verdict", "fields_bytes", "verify"]

PERSONAL: Final[dict[str, tuple[str, ...]]] = {
    "access_log": ("device_id", "participant", "from_time", "to_time", "reason", "detail"),
    "alert_log": ("sentence", "note"),
}
LOGS: Final = tuple(PERSONAL)  # the access log first: it says which erasures there were
CLOCKS_DIFFER: Final = timedelta(minutes=10)  # of the engine and of whoever erased, at most
_OF_THE_CHAIN: Final = frozenset({"link", "erased_by", "salt", "personal_hash", "hash"})
_BEFORE_THE_FIRST: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Anchor:
    """A link and its hash in hex, as noted at some time."""

    link: int
    hash: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one log.

    rows   : links that hold, up to the broken one
    erased : of them, those whose personal part was erased
    head   : the last link that holds; None: there is none
    broken : number of the first link that does not hold, and why; None: all hold
    """

    log: str
    rows: int
    erased: int
    head: Anchor | None
    broken: tuple[int, str] | None


class Chain:
    """Follows one log, row by row, from its beginning.

    erasures : those that the access log knows, and when they were: only they can have blanked a row, and
               only one that was there. None: not asked
    """

    def __init__(self, log: str, erasures: Mapping[int, datetime] | None) -> None:
        self.log = log
        self.link = 0
        self.hash = _BEFORE_THE_FIRST
        self.erased = 0
        self._personal = PERSONAL[log]
        self._erasures = erasures

    def follow(self, row: Mapping[str, Any]) -> str | None:
        """Check the next row; gives what is wrong with it, or None, and then the chain has moved on to it."""
        if row["link"] != self.link + 1:
            return f"the row is missing; the next one there is link {row['link']}"
        problem = self._problem_of_personal(row)
        if problem is not None:
            return problem
        others = {
            name: value
            for name, value in row.items()
            if name not in _OF_THE_CHAIN and name not in self._personal
        }
        others |= {"log": self.log, "link": row["link"], "personal_hash": row["personal_hash"].hex()}
        if hashlib.sha256(self.hash + fields_bytes(others)).digest() != row["hash"]:
            return "the row, or its place after the one before, is not what was written: its hash differs"
        self.link, self.hash = row["link"], row["hash"]
        self.erased += row["erased_by"] is not None
        return None

    def _problem_of_personal(self, row: Mapping[str, Any]) -> str | None:
        personal = {name: row[name] for name in self._personal}
        if row["erased_by"] is None:
            if row["salt"] is None:
                return "its salt is gone, and no erasure is named"
            if hashlib.sha256(row["salt"] + fields_bytes(personal)).digest() != row["personal_hash"]:
                return f"one of {', '.join(self._personal)} is not what was written: the hash of them differs"
            return None
        if row["salt"] is not None or any(value is not None for value in personal.values()):
            return f"it is said to be erased by erasure {row['erased_by']}, but is not blank"
        if self.log == "access_log":
            return "it is blank, and an erasure blanks nothing in this log"
        if self._erasures is None:
            return None
        erased_time = self._erasures.get(row["erased_by"])
        if erased_time is None:
            return f"it was blanked by erasure {row['erased_by']}, which the access log does not know"
        if row["recorded_time"] > erased_time + CLOCKS_DIFFER:
            return f"it was written after erasure {row['erased_by']}, which can't have blanked it"
        return None


def verify(
    log: str,
    rows: Iterable[Mapping[str, Any]],
    *,
    erasures: Mapping[int, datetime] | None = None,
    anchor: Anchor | None = None,
) -> Verdict:
    """Follow a log up to its end, or to its first broken link.

    rows   : by link, each with the names of its columns; times as datetimes
    anchor : what must still be in it
    """
    chain = Chain(log, erasures)

    def verdict(broken: tuple[int, str] | None) -> Verdict:
        head = Anchor(chain.link, chain.hash.hex()) if chain.link else None
        return Verdict(log, chain.link, chain.erased, head, broken)

    for row in rows:
        problem = chain.follow(row)
        if problem is not None:
            return verdict((chain.link + 1, problem))
        if anchor is not None and chain.link == anchor.link and chain.hash.hex() != anchor.hash:
            return verdict((chain.link, "it is not the link that the anchor noted: the log was written anew"))
    if anchor is not None and chain.link < anchor.link:
        return verdict((chain.link + 1, f"the log ends here, but the anchor noted link {anchor.link}"))
    return verdict(None)


def fields_bytes(fields: Mapping[str, Any]) -> bytes:
    """The fields that are not null as bytes that no other fields have.

    >>> fields_bytes({"link": 7, "note": None, "log": "alert_log"})
    b'4:link1:73:log9:alert_log'
    """
    pieces: list[bytes] = []
    for name in sorted(fields):
        value = fields[name]
        if value is None:
            continue
        for text in (name, _text(value)):
            data = text.encode()
            pieces += (b"%d:" % len(data), data)
    return b"".join(pieces)


def _text(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case datetime():
            utc = value.astimezone(UTC)
            fraction = f".{utc.microsecond:06}".rstrip("0") if utc.microsecond else ""
            return f"{utc:%Y-%m-%dT%H:%M:%S}{fraction}+00:00"
        case str():
            return value
    raise TypeError(f"a log has no column of {type(value).__name__}; {value!r} can't be hashed")
