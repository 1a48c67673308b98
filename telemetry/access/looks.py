"""A look at a person, or a deed about access: one row of the access log."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Look", "LookRow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is written down, before anything is shown.

    what : ``track`` (seen), ``export`` (taken away as a file), ``record``, ``positions``, ``log_in``,
           ``log_in_refused``, ``log_out``, ``account``, ``token``, ``erase``
    """

    who: str
    role: str
    how: str
    what: str
    device_id: str | None = None
    participant: str | None = None
    from_us: int | None = None
    to_us: int | None = None
    reason: str | None = None
    detail: str | None = None
    erasure: int | None = None


@dataclass(frozen=True, slots=True)
class LookRow:
    """A row as it is read. link is its place in the chain."""

    link: int
    time_us: int
    who: str
    role: str
    how: str
    what: str
    device_id: str | None
    participant: str | None
    from_us: int | None
    to_us: int | None
    reason: str | None
    detail: str | None
    erased: bool
