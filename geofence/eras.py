"""Stretches of time under earlier rules: kept so that late pings are judged by the rules that held then.

A rule set is large, and most changes are small (a leave is granted), so an earlier one is kept as what
differs from the one after it, and built again when late pings reach back to it.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence.ledger import HORIZON_US
from geofence.plan import Calendars, Plan
from geofence.records import TRANSITION, VIOLATION
from geofence.units import NO_TIME

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geofence.engine import Engine
    from geofence.ruleset import Ruleset

__all__ = ["MOST_ERAS", "Era", "Eras", "Left"]

MOST_ERAS: Final = 1000  # a change every ten minutes for a week; of the oldest ones the decisions stand
_KEPT_BUILT: Final = 2  # newest eras whose rules, plan and index of zones are kept ready


@dataclass(slots=True, eq=False)
class Left:
    """What was said of rules and zones that ended with their era, in the numbers of its rules.

    violations : VIOLATION (k,), when: int64 (k,), transitions: TRANSITION (m,); as in ``Ledger``
    """

    violations: NDArray[Any] = field(default_factory=lambda: np.zeros(0, VIOLATION))
    when: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    transitions: NDArray[Any] = field(default_factory=lambda: np.zeros(0, TRANSITION))

    def add(self, violations: NDArray[Any], when: NDArray[np.int64], transitions: NDArray[Any]) -> None:
        """Keep these rows too."""
        if len(violations) + len(transitions):
            self.violations = np.concatenate((self.violations, violations))
            self.when = np.concatenate((self.when, when))
            self.transitions = np.concatenate((self.transitions, transitions))


@dataclass(slots=True, eq=False)
class Era:
    """One stretch of time under one version of the rules; it has ended.

    version      : by which others know these rules
    since_us     : when they took effect; NO_TIME: since ever
    until_us     : when the next ones did
    watermark_us : how far time had come then: silence counts no further under these rules
    effective    : as in ``Plan``
    same         : bool (devices,)  for which the end of this era changed nothing; slots past it: unknown then
    delta        : the document of these rules, as it differs from that of the next era
    left         : what was said of rules that did not go on
    """

    version: int
    since_us: int
    until_us: int
    watermark_us: int
    effective: dict[str, int]
    same: NDArray[np.bool_]
    delta: bytes
    left: Left = field(default_factory=Left)
    built: Engine | None = None  # an idle engine that holds rules, plan and index

    def changed(self, slot: int) -> bool:
        """Whether the change at this era's end meant anything for a device."""
        return slot >= len(self.same) or not self.same[slot]

    def to_json(self) -> list[Any]:
        """For a snapshot; ``left`` travels in its tables."""
        bits = zlib.compress(np.packbits(self.same).tobytes())
        return [
            self.version,
            self.since_us,
            self.until_us,
            self.watermark_us,
            self.effective,
            len(self.same),
            base64.b64encode(bits).decode(),
            base64.b64encode(self.delta).decode(),
            [len(self.left.violations), len(self.left.transitions)],
        ]

    @classmethod
    def from_json(cls, row: list[Any], left: Left) -> Era:
        """What ``to_json`` wrote."""
        version, since_us, until_us, watermark_us, effective, n, bits, delta, _ = row
        packed = np.frombuffer(zlib.decompress(base64.b64decode(bits)), np.uint8)
        same = np.unpackbits(packed, count=n).astype(np.bool_)
        delta = base64.b64decode(delta)
        return cls(version, since_us, until_us, watermark_us, effective, same, delta, left)


class Eras:
    """The ended eras of one engine, oldest first, without gaps up to the present one."""

    def __init__(self) -> None:
        self.all: list[Era] = []

    def __len__(self) -> int:
        return len(self.all)

    def end(
        self, engine: Engine, ruleset: Ruleset, until_us: int, same: NDArray[np.bool_], *, lasts: bool
    ) -> Era:
        """The present era of ``engine`` ends: ``ruleset`` comes next. Called before the engine changes.

        lasts : the era will be asked for by ``engine``
        """
        since_us, watermark_us = engine.effective_us, engine.watermark_us
        effective = dict(engine.plan.effective)
        era = Era(engine.version, since_us, until_us, watermark_us, effective, same, b"")
        if lasts:
            self.forget(engine.ledger.newest_us)
            era.delta = _shrink(engine.ruleset.document, ruleset.document)
            era.built = type(engine)(engine.ruleset, beside=engine)
            for earlier in self.all[: 1 - _KEPT_BUILT]:
                earlier.built = None
        self.all.append(era)
        del self.all[:-MOST_ERAS]
        return era

    def forget(self, newest_us: int) -> None:
        """Drop the eras that ended before the horizon."""
        if newest_us != NO_TIME:
            self.all = [era for era in self.all if era.until_us >= newest_us - HORIZON_US]

    @property
    def floor_us(self) -> int:
        """Decisions from before are no more judged again; NO_TIME: all can be."""
        return self.all[0].since_us if self.all else NO_TIME

    def engine(self, at: int, present: Engine) -> Engine:
        """An idle engine by the rules of era ``at``, to be shared with (``beside``)."""
        era = self.all[at]
        if era.built is None:
            document = present.ruleset.document
            for later in reversed(self.all[at:]):
                document = _grown(later.delta, document)
            ruleset = type(present.ruleset).from_document(document)
            built = type(present)(ruleset, version=era.version)
            built.use(Plan(ruleset, era.effective, Calendars()))
            if at < len(self.all) - _KEPT_BUILT:
                return built
            era.built = built
        return era.built


# --- documents as differences -----------------------------------------------------------------------


def _shrink(document: Any, after: Any) -> bytes:
    return zlib.compress(json.dumps(_difference(document, after), separators=(",", ":")).encode())


def _grown(delta: bytes, after: Any) -> Any:
    return _again(json.loads(zlib.decompress(delta)), after)


def _difference(old: Any, new: Any) -> list[Any]:
    """``old`` in terms of ``new``: ["="] the same, ["{", …] by key, ["[", …] by item, ["!", old] itself."""
    if old == new:
        return ["="]
    if isinstance(old, dict) and isinstance(new, dict):
        return ["{", {key: _difference(value, new.get(key)) for key, value in old.items()}]
    if isinstance(old, list) and isinstance(new, list):
        place = {json.dumps(item, sort_keys=True): i for i, item in enumerate(new)}
        found = (place.get(json.dumps(item, sort_keys=True)) for item in old)
        return ["[", [[item] if at is None else at for item, at in zip(old, found, strict=True)]]
    return ["!", old]


def _again(difference: list[Any], new: Any) -> Any:
    match difference:
        case ["="]:
            return new
        case ["{", keys]:
            return {key: _again(value, new.get(key)) for key, value in keys.items()}
        case ["[", items]:
            return [new[item] if isinstance(item, int) else item[0] for item in items]
        case [_, old]:
            return old
    raise AssertionError(difference)
