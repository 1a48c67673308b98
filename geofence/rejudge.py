"""Late pings: a device is judged again from its history, and what was said is amended by adding to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence.adopt import adopt
from geofence.graft import graft
from geofence.ledger import HORIZON_US
from geofence.pings import Devices, Pings
from geofence.records import (
    AMENDED,
    CLOSED,
    FLAG_INITIAL,
    FLAG_LATE,
    FLAG_WITHDRAWN,
    HELD_BACK,
    OPENED,
    TRANSITION,
    VIOLATION,
    WITHDRAWN,
    Decided,
)
from geofence.units import NO_TIME

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geofence.engine import Engine
    from geofence.eras import Era
    from geofence.ruleset import Ruleset
    from geofence.state import State

__all__ = ["rejudge"]

_SAME: Final = ("closed_us", "confirmed_us", "confidence_ppm", "depth_mm", "depth_error_mm", "fixes")


def rejudge(engine: Engine, history: Pings) -> Decided:
    """Judge the devices of ``history`` again, put their new state in place, and say what changes.

    Each stretch is judged by the rules that held then. Decisions from before the horizon stand.
    """
    if history.devices is not engine.devices:
        raise ValueError("this history counts devices in another table; read it with engine.devices")
    if engine.eras.floor_us != NO_TIME:
        history = history.take(history.fix_time_us > engine.eras.floor_us)
    slots = np.unique(history.device)
    said = _Said(engine)
    if len(slots):
        engine.enlist(slots)
        ends = _ends_that_matter(engine, history, slots)
        touched = np.isin(slots, [slot for found in ends.values() for slot in found])
        for group, through in ((slots[~touched], []), (slots[touched], sorted(ends))):
            if len(group):
                part = history.take(np.isin(history.device, group)) if len(group) < len(slots) else history
                _rejudge_together(engine, part, group, through, said)
    return said.decided()


def _ends_that_matter(engine: Engine, history: Pings, slots: NDArray[np.int32]) -> dict[int, list[int]]:
    """Places of the eras whose end meant something for a device within its history -> those devices."""
    eras = engine.eras.all
    if not eras:
        return {}
    first_us = np.full(len(slots), np.iinfo(np.int64).max)
    np.minimum.at(first_us, np.searchsorted(slots, history.device), history.fix_time_us)
    pairs = list(zip(slots.tolist(), first_us.tolist(), strict=True))
    found = {
        at: [slot for slot, begin_us in pairs if era.until_us >= begin_us and era.changed(slot)]
        for at, era in enumerate(eras)
    }
    return {at: touched for at, touched in found.items() if touched}


@dataclass(frozen=True, slots=True)
class _Source:
    """Whose numbers rows are in. era: where rows of ended rules are kept; None: the present rules."""

    ruleset: Ruleset
    version: int
    era: Era | None

    def rule_id(self, row: Any) -> str:
        return self.ruleset.rules[int(row["rule"])].id

    def zone_id(self, row: Any) -> str:
        zone = int(row["zone"])
        return self.ruleset.zones.ids[zone] if zone >= 0 else ""


class _Said:
    """What is to be said, by the rules that it is said under."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._rows: dict[int, list[tuple[Any, int]]] = {}  # of id(era), 0: the present
        self._moves: dict[int, list[Any]] = {}
        self._sources: dict[int, _Source] = {0: _Source(engine.ruleset, engine.version, None)}

    def _key(self, source: _Source) -> int:
        if source.era is None:
            return 0
        self._sources.setdefault(id(source.era), source)
        return id(source.era)

    def row(self, source: _Source, row: Any, when_us: int) -> None:
        self._rows.setdefault(self._key(source), []).append((row, when_us))

    def move(self, source: _Source, row: Any) -> None:
        self._moves.setdefault(self._key(source), []).append(row)

    def remember(self) -> None:
        """Note all that is not noted yet where later late pings will look for it."""
        for key, source in self._sources.items():
            rows, when, moves = self._columns(key)
            if source.era is None:
                self.engine.ledger.note(rows, when, moves)
            else:
                source.era.left.add(rows, when, moves)

    def _columns(self, key: int) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[Any]]:
        said, moved = self._rows.get(key, []), self._moves.get(key, [])
        return (
            np.array([row for row, _ in said], VIOLATION) if said else np.zeros(0, VIOLATION),
            np.array([when_us for _, when_us in said], np.int64),
            np.array(moved, TRANSITION) if moved else np.zeros(0, TRANSITION),
        )

    def decided(self) -> Decided:
        """Everything, with what belongs to earlier rules apart."""
        nobody = np.zeros(0, np.bool_)
        places = {id(era): at for at, era in enumerate(self.engine.eras.all)}
        earlier = []
        for key in sorted((k for k in self._sources if k), key=lambda k: places[k]):
            source = self._sources[key]
            rows, _, moves = self._columns(key)
            earlier.append(Decided(self.engine.devices, source.ruleset, moves, rows, nobody, source.version))
        rows, _, moves = self._columns(0)
        engine = self.engine
        return Decided(engine.devices, engine.ruleset, moves, rows, nobody, engine.version, tuple(earlier))


def _rejudge_together(
    engine: Engine, history: Pings, slots: NDArray[np.int32], ends: list[int], said: _Said
) -> None:
    """Judge these devices again through the eras that end at these places."""
    anew, stages = _judge_anew(engine, history, slots, ends)
    old = _sources_of(engine, slots)
    everyone = np.arange(len(slots), dtype=np.int32)
    new = [
        (stage, gone.left.violations, gone.left.when, gone.left.transitions)
        for stage, gone in zip(stages, anew.eras.all, strict=True)
    ]
    present = _Source(engine.ruleset, engine.version, None)
    new.append((present, *anew.ledger.of(everyone)))
    horizon_us = max(engine.ledger.newest_us - HORIZON_US, engine.eras.floor_us)
    told = _Said(engine)
    for k, slot in enumerate(slots.tolist()):
        first_us = int(history.fix_time_us[history.device == slot].min())
        late_us = int(engine.state.devices["late_us"][slot])
        since_us = max(first_us if late_us == NO_TIME else late_us, horizon_us)
        before, after = _of_pings(old, slot), _of_pings(new, k)
        for each in after.values():
            each.row["device"] = slot
        went_on = _amend(before, after, since_us, first_us, (said, told))
        _go_on(anew.state, k, went_on)
        _amend_moves(_standing(old, slot), _standing(new, k, slot), since_us, (said, told))
    told.remember()
    for k, slot in enumerate(slots.tolist()):
        graft(engine, anew, slot, k)


def _judge_anew(
    engine: Engine, history: Pings, slots: NDArray[np.int32], ends: list[int]
) -> tuple[Engine, list[_Source]]:
    """A fresh engine that has seen just this history, as if every ping had come in order.

    With it the rules of each era that it went through, before the present ones.
    """
    devices = Devices(engine.devices.ids[slot] for slot in slots.tolist())
    by = [engine.eras.engine(at, engine) for at in ends]
    stages = [
        _Source(each.ruleset, each.version, engine.eras.all[at]) for each, at in zip(by, ends, strict=True)
    ]
    by.append(engine)
    anew = type(engine)(by[0].ruleset, devices, beside=by[0])
    anew.deaf = engine.deaf
    columns: dict[str, Any] = {"device": np.searchsorted(slots, history.device).astype(np.int32)}
    columns |= {
        name: getattr(history, name)
        for name in Pings.__dataclass_fields__
        if name not in {"devices", "device"}
    }
    pings = Pings(devices=anew.devices, **columns)
    for at, after in zip(ends, by[1:], strict=True):
        era = engine.eras.all[at]
        anew.watermark_us = era.watermark_us  # under rules that ended, silence counts no further
        now = pings.fix_time_us <= era.until_us
        anew.check(pings.take(now))
        pings = pings.take(~now)
        adopt(anew, after.ruleset, era.until_us, after.version, beside=after)
    anew.watermark_us = engine.watermark_us  # what was silence then is silence now
    anew.check(pings)
    # deadlines that time has reached, and no further than it had for these devices
    used = int(anew.state.used[0])
    if engine.watermark_us != NO_TIME:
        which = np.arange(used, dtype=np.int32)
        anew.let_time_act(which[anew.state.due_us[:used] <= engine.watermark_us], engine.watermark_us)
        anew.decided(np.zeros(0, np.bool_))
    return anew, stages


@dataclass(slots=True)
class _Told:
    """The newest row of a violation, whose numbers it is in, and when it was decided."""

    row: Any
    when_us: int
    source: _Source

    @property
    def withdrawn(self) -> bool:
        return bool(self.row["change"] == WITHDRAWN)

    def reaches(self, since_us: int) -> bool:
        """Whether a ping at since_us could have changed it."""
        return bool(self.row["closed_us"] == NO_TIME or self.when_us >= since_us)


_Rows = tuple[_Source, "NDArray[Any]", "NDArray[np.int64]", "NDArray[Any]"]


def _sources_of(engine: Engine, slots: NDArray[np.int32]) -> list[_Rows]:
    """All that was said of these devices, by the rules whose numbers it is in."""
    found: list[_Rows] = []
    for at, era in enumerate(engine.eras.all):
        about = np.isin(era.left.violations["device"], slots)
        moved = np.isin(era.left.transitions["device"], slots)
        if about.any() or moved.any():
            by = engine.eras.engine(at, engine)
            source = _Source(by.ruleset, by.version, era)
            left = era.left
            found.append((source, left.violations[about], left.when[about], left.transitions[moved]))
    return [*found, (_Source(engine.ruleset, engine.version, None), *engine.ledger.of(slots))]


def _of_pings(sources: list[_Rows], device: int) -> dict[int, _Told]:
    """The newest row of each violation of a device, in the order of openings; without those of check-ins."""
    newest: dict[int, _Told] = {}
    for source, rows, when, _ in sources:
        mine = rows["device"] == device
        for row, when_us in zip(rows[mine], when[mine].tolist(), strict=True):
            if source.ruleset.rules[int(row["rule"])].require == "check_in":
                continue
            violation_id = int(row["violation_id"])
            if violation_id not in newest or row["revision"] >= newest[violation_id].row["revision"]:
                newest[violation_id] = _Told(row, when_us, source)
    return dict(sorted(newest.items(), key=lambda item: (int(item[1].row["opened_us"]), item[0])))


def _amend(
    before: dict[int, _Told],
    after: dict[int, _Told],
    since_us: int,
    first_us: int,
    to: tuple[_Said, ...],
) -> dict[tuple[int, int, int], Any]:
    """Say the rows to add so that ``before`` reads as ``after``, for what a ping at since_us could have
    changed.

    Gives those that began before the history and go on: (rule, zone, opening found) -> their row before.
    """
    said: list[tuple[Any, int, _Source]] = []
    standing = {i: told for i, told in before.items() if not told.withdrawn and told.reaches(since_us)}
    wanted = {i: told for i, told in after.items() if told.reaches(since_us) or i in standing}
    # what stands and was decided early enough to stand, but is found again by a late decision
    standing |= {i: told for i, told in before.items() if not told.withdrawn and i in wanted}
    replaced: dict[int, int] = {}  # new id -> old id
    for new_id, told in wanted.items():
        if new_id not in standing:
            for old_id, old in standing.items():
                if old_id not in wanted and old_id not in replaced.values() and _overlap(old, told):
                    replaced[new_id] = old_id
                    break
    kept: set[int] = set()
    went_on: dict[tuple[int, int, int], Any] = {}
    for new_id, told in wanted.items():
        row = told.row
        if new_id in standing:
            said += [(each, told.when_us, told.source) for each in _amended(standing[new_id].row, row)]
            continue
        old_id = replaced.get(new_id, 0)
        if old_id and standing[old_id].row["opened_us"] < first_us:
            old_row = standing[old_id].row
            kept.add(old_id)
            if told.source.era is None:
                went_on[int(row["rule"]), int(row["zone"]), int(row["opened_us"])] = old_row
            row["opened_us"], row["confirmed_us"] = old_row["opened_us"], old_row["confirmed_us"]
            row["violation_id"] = old_id
            said += [(each, told.when_us, told.source) for each in _amended(old_row, row)]
            continue
        revision = int(before[new_id].row["revision"]) + 1 if new_id in before else 0
        said += [(each, told.when_us, told.source) for each in _anew(row, revision, old_id)]
    for old_id, told in standing.items():
        if old_id not in wanted and old_id not in kept:
            row = _row(told.row, WITHDRAWN, int(told.row["revision"]) + 1)
            said.append((row, told.when_us, told.source))
    # what is replaced is withdrawn after its successor opened, so that one alert can go over to it
    names = ("confirmed_us", "violation_id", "revision")
    said.sort(key=lambda one: (one[0]["change"] == WITHDRAWN, *(int(one[0][name]) for name in names)))
    for row, when_us, source in said:
        for each in to:
            each.row(source, row, when_us)
    return went_on


def _go_on(fresh: State, k: int, went_on: dict[tuple[int, int, int], Any]) -> None:
    """Give open violations that began before the history their true beginning."""
    for row in fresh.opens[: int(fresh.used[3])]:
        old = went_on.get((int(row["rule"]), int(row["zone"]), int(row["opened_us"])))
        if row["device"] == k and old is not None:
            row["opened_us"], row["confirmed_us"] = old["opened_us"], old["confirmed_us"]


def _overlap(one: _Told, other: _Told) -> bool:
    """Whether both tell of the same time of the same rule and zone."""
    old, new = one.row, other.row
    if one.source.rule_id(old) != other.source.rule_id(new):
        return False
    if one.source.zone_id(old) != other.source.zone_id(new):
        return False
    if (old["change"] == HELD_BACK) != (new["change"] == HELD_BACK):
        return False
    old_until = np.iinfo(np.int64).max if old["closed_us"] == NO_TIME else old["closed_us"]
    new_until = np.iinfo(np.int64).max if new["closed_us"] == NO_TIME else new["closed_us"]
    return bool(old["opened_us"] <= new_until and new["opened_us"] <= old_until)


def _row(row: Any, change: int, revision: int, supersedes: int = 0) -> Any:
    copy = row.copy()
    copy["change"], copy["revision"], copy["supersedes"] = change, revision, supersedes
    copy["flags"] |= FLAG_LATE
    return copy


def _amended(old: Any, new: Any) -> list[Any]:
    """Nothing where both agree; else the row that brings the old up to date."""
    held_back = new["change"] == HELD_BACK
    if all(old[name] == new[name] for name in _SAME) and (old["change"] == HELD_BACK) == held_back:
        return []
    return [_row(new, HELD_BACK if held_back else AMENDED, int(old["revision"]) + 1)]


def _anew(row: Any, revision: int, supersedes: int) -> list[Any]:
    """The rows of a violation that only late pings show."""
    if row["change"] == HELD_BACK:
        return [_row(row, HELD_BACK, revision, supersedes)]
    opened = _row(row, OPENED, revision, supersedes)
    if row["closed_us"] == NO_TIME:
        return [opened]
    opened["closed_us"] = NO_TIME
    return [opened, _row(row, CLOSED, revision + 1, supersedes)]


_Moves = dict[tuple[Any, ...], tuple[Any, _Source]]


def _standing(sources: list[_Rows], device: int, called: int | None = None) -> _Moves:
    """Transitions of a device that were said and not taken back since, by what they say.

    called : its slot in what is to be said
    """
    standing: _Moves = {}
    for source, _, _, moves in sources:
        for row in moves[moves["device"] == device]:
            key = _key(source, row)
            if row["flags"] & FLAG_WITHDRAWN:
                standing.pop(key, None)
                continue
            if called is not None:
                row["device"] = called
            standing[key] = (row, source)
    return standing


def _key(source: _Source, row: Any) -> tuple[Any, ...]:
    initial = int(row["flags"]) & FLAG_INITIAL
    return int(row["confirmed_us"]), int(row["time_us"]), source.zone_id(row), int(row["kind"]), initial


def _amend_moves(before: _Moves, after: _Moves, since_us: int, to: tuple[_Said, ...]) -> None:
    """Say the transitions to take back, and those to add."""
    said = []
    for keys, others, flags in (
        (before, after, FLAG_LATE | FLAG_WITHDRAWN),
        (after, before, FLAG_LATE),
    ):
        for key in sorted(key for key in keys if key not in others and key[0] >= since_us):
            row, source = keys[key]
            row = row.copy()
            row["flags"] |= flags
            said.append((row, source))
    for row, source in said:
        for each in to:
            each.move(source, row)
