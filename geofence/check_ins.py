"""Check-ins: the results of expected calls, taken one by one (they are rare)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence._kernels.deadlines import begin_check_ins, fire, rest
from geofence._kernels.kinds import KINDS
from geofence._kernels.world import close_row, fill_row, open_row, window_of, write_row
from geofence.records import FLAG_LATE, HELD_BACK, WITHDRAWN
from geofence.state import NONE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from geofence.engine import Engine

__all__ = ["take_check_ins"]

_KIND: Final = KINDS.index("check_in")
_CERTAIN_PPM: Final = 1_000_000


def take_check_ins(engine: Engine, check_ins: Iterable[Any]) -> None:
    """Judge check-ins in order of time; what they mean is said through ``engine.said``."""
    ordered = sorted(check_ins, key=lambda c: (c.device_id, c.time_us, c.outcome, c.method))
    for each in ordered:
        slot = engine.devices.slot(each.device_id)
        engine.enlist(np.array([slot], np.int32))
        _take(engine, slot, each)


def _take(engine: Engine, slot: int, check_in: Any) -> None:
    t = int(check_in.time_us)
    engine.plan.calendars.cover(t, max(t, engine.watermark_us))
    begin_check_ins(engine.world(), slot, t)
    world = engine.world()
    device = world.devices[slot]
    for u in range(int(device["duty"]), int(device["duty_stop"])):
        duty = world.duties[u]
        rule = engine.ruleset.rules[int(duty["rule"])]
        if world.rules[int(duty["rule"])]["kind"] != _KIND:
            continue
        while duty["due_us"] < t:  # deadlines that passed before this check-in come first
            engine.make_room_for(4)
            world, said = engine.world(), engine.said
            duty = world.duties[u]
            fire(world, said, slot, duty, world.rules[int(duty["rule"])], int(duty["due_us"]), -1)
        engine.make_room_for(4)
        world, said = engine.world(), engine.said
        duty = world.duties[u]
        if rule.methods and check_in.method not in rule.methods:
            continue
        if check_in.outcome == "verified":
            _note_late(world, said, slot, duty, t)
            _verified(world, said, duty, t)
        elif check_in.outcome == "failed" and duty["open"] == NONE and duty["since_us"] < t:
            begin, _ = window_of(world, duty, t)
            if begin <= t:
                duty["open"] = open_row(
                    world, said, slot, int(duty["rule"]), NONE, t, t, _CERTAIN_PPM, 0, -1, 1
                )
    rest(engine.world(), slot)


def _note_late(world: Any, said: Any, slot: int, duty: Any, t: int) -> None:
    """Record a check-in after its window but within grace: in time enough, and yet not on time."""
    rule = world.rules[int(duty["rule"])]
    grace_us = int(rule["grace_us"])
    begin, end = window_of(world, duty, t - grace_us)
    if duty["open"] != NONE or not end <= t < end + grace_us or duty["since_us"] >= begin:
        return
    k = int(said.count[0])
    row = said.out[k]
    fill_row(row, slot, duty["rule"], rule["severity"], NONE, end, t, _CERTAIN_PPM, 0, -1, 1)
    row["change"], row["closed_us"] = HELD_BACK, max(t, end)
    said.when[k] = t
    said.count[0] = k + 1


def _verified(world: Any, said: Any, duty: Any, t: int) -> None:
    """Who checks in meets the rule; if in time but heard of late, the accusation is taken back."""
    if duty["open"] != NONE:
        row = world.opens[int(duty["open"])]
        if t < row["opened_us"]:
            begin, end = window_of(
                world, duty, int(row["opened_us"]) - int(world.rules[int(duty["rule"])]["grace_us"]) - 1
            )
            if t >= begin:
                row["revision"] += 1
                write_row(said, row, WITHDRAWN, int(row["opened_us"]))
                said.out[said.count[0] - 1]["flags"] = FLAG_LATE
                said.out[said.count[0] - 1]["closed_us"] = max(int(row["opened_us"]), min(t, end))
                row["device"] = NONE
                row["supersedes"] = world.free[1]
                world.free[1] = int(duty["open"])
                duty["open"] = NONE
        else:
            close_row(world, said, int(duty["open"]), t, t)
            duty["open"] = NONE
    duty["since_us"] = max(int(duty["since_us"]), t)
