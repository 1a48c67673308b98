"""Late pings: a device is judged again from its history, and what was said is amended by adding to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence._kernels.kinds import KINDS
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
from geofence.state import NONE
from geofence.units import NO_TIME

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geofence.engine import Engine
    from geofence.state import State

__all__ = ["rejudge"]

_CHECK_IN: Final = KINDS.index("check_in")
_SAME: Final = ("closed_us", "confirmed_us", "confidence_ppm", "depth_mm", "depth_error_mm", "fixes")


def rejudge(engine: Engine, history: Pings) -> Decided:
    """Judge the devices of ``history`` again, put their new state in place, and say what changes.

    Decisions from before the present rules took effect, and from before the horizon, stand.
    """
    if history.devices is not engine.devices:
        raise ValueError("this history counts devices in another table; read it with engine.devices")
    history = history.take(history.fix_time_us >= engine.effective_us)
    slots = np.unique(history.device)
    if not len(slots):
        return Decided(
            engine.devices,
            engine.ruleset,
            np.zeros(0, TRANSITION),
            np.zeros(0, VIOLATION),
            np.zeros(0, np.bool_),
        )
    engine.enlist(slots)
    anew = _judge_anew(engine, history, slots)
    old_rows, old_when, old_moves = engine.ledger.of(slots)
    new_rows, new_when, new_moves = anew.ledger.of(np.arange(len(slots), dtype=np.int32))
    horizon_us = max(engine.ledger.newest_us - HORIZON_US, engine.effective_us)
    violations: list[NDArray[Any]] = []
    decided_at: list[NDArray[np.int64]] = []
    transitions: list[NDArray[Any]] = []
    for k, slot in enumerate(slots.tolist()):
        first_us = int(history.fix_time_us[history.device == slot].min())
        late_us = int(engine.state.devices["late_us"][slot])
        since_us = max(first_us if late_us == NO_TIME else late_us, horizon_us)
        before = _of_pings(engine, old_rows, old_when, slot)
        after = _of_pings(engine, new_rows, new_when, k)
        for told in after.values():
            told.row["device"] = slot
        rows, when, went_on = _amend(before, after, since_us, first_us)
        violations.append(rows)
        decided_at.append(when)
        _go_on(anew.state, k, went_on)
        moves = new_moves[new_moves["device"] == k]
        moves["device"] = slot
        transitions.append(_amend_moves(_standing(old_moves[old_moves["device"] == slot]), moves, since_us))
    rows, moved = np.concatenate(violations), np.concatenate(transitions)
    engine.ledger.note(rows, np.concatenate(decided_at), moved)
    for k, slot in enumerate(slots.tolist()):
        _graft(engine, anew, slot, k)
    return Decided(engine.devices, engine.ruleset, moved, rows, np.zeros(0, np.bool_))


def _judge_anew(engine: Engine, history: Pings, slots: NDArray[np.int32]) -> Engine:
    """A fresh engine that has seen just this history, as if every ping had come in order."""
    devices = Devices(engine.devices.ids[slot] for slot in slots.tolist())
    anew = type(engine)(engine.ruleset, devices, beside=engine)
    anew.deaf = engine.deaf
    anew.watermark_us = engine.watermark_us  # what was silence then is silence now
    columns: dict[str, Any] = {"device": np.searchsorted(slots, history.device).astype(np.int32)}
    columns |= {
        name: getattr(history, name)
        for name in Pings.__dataclass_fields__
        if name not in {"devices", "device"}
    }
    anew.check(Pings(devices=anew.devices, **columns))
    # deadlines that time has reached, and no further than it had for these devices
    if engine.watermark_us != NO_TIME:
        which = np.arange(len(slots), dtype=np.int32)
        anew.let_time_act(which[anew.state.due_us[: len(slots)] <= engine.watermark_us], engine.watermark_us)
        anew.decided(np.zeros(0, np.bool_))
    return anew


@dataclass(slots=True)
class _Told:
    """The newest row of a violation, and when it was decided."""

    row: Any
    when_us: int

    @property
    def withdrawn(self) -> bool:
        return bool(self.row["change"] == WITHDRAWN)

    def reaches(self, since_us: int) -> bool:
        """Whether a ping at since_us could have changed it."""
        return bool(self.row["closed_us"] == NO_TIME or self.when_us >= since_us)


def _of_pings(engine: Engine, rows: NDArray[Any], when: NDArray[np.int64], device: int) -> dict[int, _Told]:
    """The newest row of each violation of a device, in the order of openings; without those of check-ins."""
    newest: dict[int, _Told] = {}
    mine = (rows["device"] == device) & (engine.plan.rules["kind"][rows["rule"]] != _CHECK_IN)
    for row, when_us in zip(rows[mine], when[mine].tolist(), strict=True):
        violation_id = int(row["violation_id"])
        if violation_id not in newest or row["revision"] >= newest[violation_id].row["revision"]:
            newest[violation_id] = _Told(row, when_us)
    return dict(sorted(newest.items(), key=lambda item: (int(item[1].row["opened_us"]), item[0])))


def _amend(
    before: dict[int, _Told], after: dict[int, _Told], since_us: int, first_us: int
) -> tuple[NDArray[Any], NDArray[np.int64], dict[tuple[int, int, int], Any]]:
    """The rows to add so that ``before`` reads as ``after``, for what a ping at since_us could have changed.

    With them when each was decided, and of those that began before the history and go on:
    (rule, zone, opening found) -> their row before.
    """
    said: list[tuple[Any, int]] = []
    standing = {i: told for i, told in before.items() if not told.withdrawn and told.reaches(since_us)}
    wanted = {i: told for i, told in after.items() if told.reaches(since_us) or i in standing}
    # what stands and was decided early enough to stand, but is found again by a late decision
    standing |= {i: told for i, told in before.items() if not told.withdrawn and i in wanted}
    replaced: dict[int, int] = {}  # new id -> old id
    for new_id, told in wanted.items():
        if new_id not in standing:
            for old_id, old in standing.items():
                if old_id not in wanted and old_id not in replaced.values() and _overlap(old.row, told.row):
                    replaced[new_id] = old_id
                    break
    kept: set[int] = set()
    went_on: dict[tuple[int, int, int], Any] = {}
    for new_id, told in wanted.items():
        row = told.row
        if new_id in standing:
            said += [(each, told.when_us) for each in _amended(standing[new_id].row, row)]
            continue
        old_id = replaced.get(new_id, 0)
        if old_id and standing[old_id].row["opened_us"] < first_us:
            old = standing[old_id].row
            kept.add(old_id)
            went_on[int(row["rule"]), int(row["zone"]), int(row["opened_us"])] = old
            row["opened_us"], row["confirmed_us"] = old["opened_us"], old["confirmed_us"]
            row["violation_id"] = old_id
            said += [(each, told.when_us) for each in _amended(old, row)]
            continue
        revision = int(before[new_id].row["revision"]) + 1 if new_id in before else 0
        said += [(each, told.when_us) for each in _anew(row, revision, old_id)]
    for old_id, told in standing.items():
        if old_id not in wanted and old_id not in kept:
            said.append((_row(told.row, WITHDRAWN, int(told.row["revision"]) + 1), told.when_us))
    rows = np.array([row for row, _ in said], VIOLATION) if said else np.zeros(0, VIOLATION)
    when = np.array([when_us for _, when_us in said], np.int64)
    # what is replaced is withdrawn after its successor opened, so that one alert can go over to it
    taken_back = rows["change"] == WITHDRAWN
    order = np.lexsort((rows["revision"], rows["violation_id"], rows["confirmed_us"], taken_back))
    return rows[order], when[order], went_on


def _go_on(fresh: State, k: int, went_on: dict[tuple[int, int, int], Any]) -> None:
    """Give open violations that began before the history their true beginning."""
    for row in fresh.opens[: int(fresh.used[3])]:
        old = went_on.get((int(row["rule"]), int(row["zone"]), int(row["opened_us"])))
        if row["device"] == k and old is not None:
            row["opened_us"], row["confirmed_us"] = old["opened_us"], old["confirmed_us"]


def _overlap(old: Any, new: Any) -> bool:
    """Whether both tell of the same time of the same rule and zone."""
    if old["rule"] != new["rule"] or old["zone"] != new["zone"]:
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


def _standing(moves: NDArray[Any]) -> NDArray[Any]:
    """Transitions that were said and not taken back since."""
    standing: dict[tuple[int, ...], Any] = {}
    for row in moves:
        if row["flags"] & FLAG_WITHDRAWN:
            standing.pop(_key(row), None)
        else:
            standing[_key(row)] = row
    return np.array(list(standing.values()), TRANSITION) if standing else np.zeros(0, TRANSITION)


def _key(row: Any) -> tuple[int, ...]:
    initial = int(row["flags"]) & FLAG_INITIAL
    return int(row["time_us"]), int(row["confirmed_us"]), int(row["zone"]), int(row["kind"]), initial


def _amend_moves(before: NDArray[Any], after: NDArray[Any], since_us: int) -> NDArray[Any]:
    """The transitions to take back, and those to add."""
    old = {_key(row): row for row in before if row["confirmed_us"] >= since_us}
    new = {_key(row): row for row in after if row["confirmed_us"] >= since_us}
    said = []
    for key, row in old.items():
        if key not in new:
            taken_back = row.copy()
            taken_back["flags"] |= FLAG_LATE | FLAG_WITHDRAWN
            said.append(taken_back)
    for key, row in new.items():
        if key not in old:
            row["flags"] |= FLAG_LATE
            said.append(row)
    rows = np.array(said, TRANSITION) if said else np.zeros(0, TRANSITION)
    taken_back = (rows["flags"] & FLAG_WITHDRAWN) != 0
    return rows[np.lexsort((rows["zone"], rows["kind"], rows["confirmed_us"], ~taken_back))]


# --- putting the new state in place ----------------------------------------------------------------


def _graft(engine: Engine, anew: Engine, slot: int, k: int) -> None:
    """Replace one device's rows by those of the fresh engine; check-ins keep theirs."""
    state, fresh = engine.state, anew.state
    old, new = state.devices[slot], fresh.devices[k]
    spans = {name: int(old[name]) for name in ("duty", "duty_stop", "pair", "pair_stop")}
    new_pairs = slice(int(new["pair"]), int(new["pair_stop"]))
    new_duties = slice(int(new["duty"]), int(new["duty_stop"]))
    for duty in state.duties[spans["duty"] : spans["duty_stop"]]:
        _drop(state, duty, engine.plan.rules["kind"][duty["rule"]] == _CHECK_IN)
    for pair in state.pairs[spans["pair"] : spans["pair_stop"]]:
        _free_open(state, int(pair["open"]))

    state.devices[slot] = new
    for name, value in spans.items():
        state.devices[slot][name] = value
    state.devices[slot]["late_us"] = NO_TIME
    pairs = fresh.pairs[new_pairs].copy()
    for pair in pairs:
        pair["open"] = _take_open(engine, fresh, int(pair["open"]), slot)
    state.pairs[spans["pair"] : spans["pair_stop"]] = pairs
    for u, duty in enumerate(fresh.duties[new_duties], spans["duty"]):
        if engine.plan.rules["kind"][duty["rule"]] == _CHECK_IN:
            continue
        first, stop = state.duties[u]["first"], state.duties[u]["stop"]
        chain = _take_chain(engine, fresh, int(duty["chain"]), slot)
        state = engine.state
        state.duties[u] = duty
        state.duties[u]["first"], state.duties[u]["stop"], state.duties[u]["chain"] = first, stop, chain
        state.duties[u]["open"] = _take_open(engine, fresh, int(duty["open"]), slot)
    due = state.duties[spans["duty"] : spans["duty_stop"]]["due_us"]
    state.due_us[slot] = due.min() if len(due) else state.due_us[slot]


def _drop(state: State, duty: Any, keep: bool) -> None:
    """Free the chained pairs and open rows of a duty."""
    if keep:
        return
    _free_open(state, int(duty["open"]))
    p = int(duty["chain"])
    while p != NONE:
        pair = state.pairs[p]
        after = int(pair["next"])
        _free_open(state, int(pair["open"]))
        pair["next"] = state.free[0]
        state.free[0] = p
        p = after


def _free_open(state: State, k: int) -> None:
    if k != NONE:
        state.opens[k]["device"] = NONE
        state.opens[k]["supersedes"] = state.free[1]
        state.free[1] = k


def _take_open(engine: Engine, fresh: State, k: int, slot: int) -> int:
    """Copy an open violation; its revision goes on from the last row said of it."""
    if k == NONE:
        return NONE
    state = engine.state
    free = int(state.free[1])
    if free != NONE:
        state.free[1] = int(state.opens[free]["supersedes"])
    else:
        state.reserve(opens=1)
        free = int(state.used[3])
        state.used[3] += 1
    state.opens[free] = fresh.opens[k]
    row = state.opens[free]
    row["device"] = slot
    row["supersedes"] = 0
    named = (int(row[name]) for name in ("device", "rule", "zone", "opened_us"))
    violation_id = engine.violation_id(*named)
    told, _, _ = engine.ledger.of(np.array([slot], np.int32))
    same = told[told["violation_id"] == violation_id]
    row["revision"] = same["revision"].max() if len(same) else 0
    return free


def _take_chain(engine: Engine, fresh: State, p: int, slot: int) -> int:
    """Copy a chain of pairs, in its order."""
    state = engine.state
    head = last = NONE
    while p != NONE:
        at = int(state.free[0])
        if at != NONE:
            state.free[0] = state.pairs[at]["next"]
        else:
            state.reserve(pairs=1)
            at = int(state.used[2])
            state.used[2] += 1
        state.pairs[at] = fresh.pairs[p]
        state.pairs[at]["next"] = NONE
        state.pairs[at]["open"] = _take_open(engine, fresh, int(fresh.pairs[p]["open"]), slot)
        if last == NONE:
            head = at
        else:
            state.pairs[last]["next"] = at
        last = at
        p = int(fresh.pairs[p]["next"])
    return head
