"""Reading one table of rules.toml: each key by its kind, each problem with file, line, key and remedy."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from geofence.units import NO_TIME, SECOND_US, from_rfc3339

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = ["MISSING", "Problems", "Table", "duration_us"]

MISSING: Final = object()

_UNITS_US: Final = {
    "ms": SECOND_US // 1000,
    "s": SECOND_US,
    "sec": SECOND_US,
    "min": 60 * SECOND_US,
    "h": 3600 * SECOND_US,
    "d": 86_400 * SECOND_US,
}
_DURATION: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|sec|min|h|d)\s*")
_MAX_DURATION_US: Final = 366 * 86_400 * SECOND_US
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def duration_us(text: str) -> int:
    """A length of time such as ``5 min``, ``90 s`` or ``1 h 30 min`` in microseconds.

    Raises ValueError when the text is none.
    """
    total = position = 0
    while position < len(text):
        part = _DURATION.match(text, position)
        if part is None:
            raise ValueError(f"{text!r} is no length of time")
        total += round(float(part[1]) * _UNITS_US[part[2]])
        position = part.end()
    if not text.strip() or total > _MAX_DURATION_US:
        raise ValueError(f"{text!r} is no length of time up to 366 d")
    return total


@dataclass(slots=True)
class Problems:
    """What is wrong with one file; ``lines`` says where its keys stand."""

    file: str
    lines: Mapping[tuple[str | int, ...], int] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)
    paths: list[tuple[str | int, ...]] = field(default_factory=list)  # of the keys that ``found`` speaks of

    def add(self, path: tuple[str | int, ...], what: str) -> None:
        """Note a problem of the key at ``path``."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        line = f":{self.lines[known]}" if known else ""
        self.found.append(f"{self.file}{line}: {_dotted(path)}: {what}")
        self.paths.append(path)


def _dotted(path: tuple[str | int, ...]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the file"


class Table:
    """One table while it is read. Every getter notes a problem and gives the default instead of raising."""

    def __init__(self, data: Any, path: tuple[str | int, ...], problems: Problems) -> None:
        self.path = path
        self.problems = problems
        self._seen: set[str] = set()
        if isinstance(data, dict):
            self.data: dict[str, Any] = data
        else:
            self.data = {}
            problems.add(path, f"{data!r} is not a table; write it as [{_dotted(path)}]")

    def problem(self, key: str, what: str) -> None:
        """Note a problem of this key."""
        self.problems.add((*self.path, key), what)

    def raw(self, key: str, default: Any = None) -> Any:
        """The value as it stands; MISSING as default makes the key required."""
        self._seen.add(key)
        if key in self.data:
            return self.data[key]
        if default is MISSING:
            self.problems.add(self.path, f'the key "{key}" is missing')
            return None
        return default

    def text(self, key: str, default: Any = None) -> Any:
        """A string."""
        value = self.raw(key, default)
        if value is not default and not (isinstance(value, str) and value):
            if value is not None:
                self.problem(key, f"{value!r} is not a text; put it in quotes")
            return None if default is MISSING else default
        if isinstance(value, str) and "\0" in value:
            self.problem(key, f"{value!r} holds a NUL character; take it out")
            return None if default is MISSING else default
        return value

    def choice(self, key: str, choices: Collection[str], default: Any) -> Any:
        """One of a few words."""
        value = self.text(key, default)
        if value is not None and value is not MISSING and value not in choices:
            self.problem(key, f'"{value}" is not known; {_nearest(value, choices)}')
            return None if default is MISSING else default
        return value

    def flag(self, key: str) -> bool:
        """True or false; false where it is left out."""
        value = self.raw(key, False)
        if not isinstance(value, bool):
            self.problem(key, f"{value!r} is neither true nor false")
            return False
        return value

    def number(self, key: str, default: Any, low: float, high: float) -> Any:
        """A number from ``low`` to ``high``."""
        value = self.raw(key, default)
        if value is default or value is None:
            return None if default is MISSING else default
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            self.problem(key, f"{value!r} is not a number from {low:g} to {high:g}")
            return None if default is MISSING else default
        return value

    def duration(self, key: str, default: Any) -> Any:
        """A length of time, in microseconds; a bare number is seconds."""
        value = self.raw(key, default)
        if value is default or value is None:
            return None if default is MISSING else default
        try:
            if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
                return duration_us(f"{value} s")
            if isinstance(value, str):
                return duration_us(value)
        except ValueError:
            pass
        self.problem(key, f'{value!r} is no length of time; write it as "5 min", "90 s" or "1 h 30 min"')
        return None if default is MISSING else default

    def time(self, key: str, timezone: str, default: Any = NO_TIME) -> Any:
        """A moment, in UTC microseconds; without an offset it is local to ``timezone``."""
        value = self.raw(key, default)
        if value is default or value is None:
            return NO_TIME
        try:
            if isinstance(value, str):
                try:
                    return from_rfc3339(value)
                except ValueError:
                    value = datetime.fromisoformat(value)
            if isinstance(value, date) and not isinstance(value, datetime):
                value = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - the zone follows
            if isinstance(value, datetime):
                if value.tzinfo is None:
                    value = value.replace(tzinfo=ZoneInfo(timezone))
                return (value - _EPOCH) // (datetime.resolution)
        except (ValueError, OSError, KeyError):
            pass
        self.problem(key, f"{value!r} is no date and time; write it as 2026-11-24T08:00:00Z")
        return NO_TIME

    def texts(self, key: str, default: Any = ()) -> tuple[str, ...]:
        """A list of strings."""
        value = self.raw(key, default)
        if value is default or value is None:
            return () if default is MISSING else default
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            self.problem(key, f'{value!r} is not a list of texts; write it as ["a", "b"]')
            return ()
        if any("\0" in item for item in value):
            self.problem(key, f"{value!r} holds a NUL character; take it out")
            return ()
        return tuple(value)

    def table(self, key: str) -> Table:
        """A table inside; empty where it is left out."""
        return Table(self.raw(key, {}), (*self.path, key), self.problems)

    def tables(self, key: str) -> Iterator[Table]:
        """The tables of an array of tables."""
        value = self.raw(key, [])
        if not isinstance(value, list):
            self.problem(key, f"must be an array of tables; write each as [[{key}]]")
            return
        for i, item in enumerate(value):
            yield Table(item, (*self.path, key, i), self.problems)

    def close(self) -> None:
        """Refuse the keys that nobody asked for."""
        for key in self.data:
            if key not in self._seen:
                self.problem(key, f"there is no such key; {_nearest(key, self._seen)}")


def _nearest(word: str, choices: Collection[str]) -> str:
    near = difflib.get_close_matches(word, choices, 1)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"there are: {', '.join(sorted(choices))}"
