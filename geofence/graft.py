"""Putting a device's rows of one engine in the place of its rows in another: what judging again ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence._kernels.kinds import KINDS
from geofence.state import NONE
from geofence.units import NO_TIME

if TYPE_CHECKING:
    from geofence.engine import Engine
    from geofence.state import State

__all__ = ["graft"]

_CHECK_IN: Final = KINDS.index("check_in")


def graft(engine: Engine, anew: Engine, slot: int, k: int) -> None:
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
