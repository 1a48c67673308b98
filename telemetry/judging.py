"""What the engine says to one batch of inputs: live, after a restart and in a replay, this one function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from geofence import NO_TIME, Pings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from geofence import Decided, Engine, Ruleset
    from telemetry.columns import Admitted, Tick

__all__ = ["RulesVersion", "judge"]

JUDGED_TOGETHER: Final = (
    64  # devices with late pings: one question to the store, and at most 80 MB of history
)


@dataclass(frozen=True, slots=True)
class RulesVersion:
    """Rules as the store numbered them."""

    version: int
    ruleset: Ruleset
    effective_us: int


def judge(
    engine: Engine,
    admitted: Admitted,
    tick: Tick | None,
    new_rules: RulesVersion | None,
    history: Callable[[NDArray[np.int32], NDArray[np.int64]], Pings],
) -> tuple[list[Decided], NDArray[np.bool_]]:
    """Have the engine adopt rules, check pings, judge late ones again, take check-ins, and let time act.

    history : gives, for devices' slots and a time for each, int32 and int64 (m,), their judged pings of
              earlier batches around those times

    Gives the decisions, and for each admitted ping whether it came too late to be judged in order: bool (n,).
    """
    decided: list[Decided] = []
    if new_rules is not None:
        decided.append(engine.adopt(new_rules.ruleset, new_rules.effective_us, new_rules.version))
    judged = admitted.pings.take(admitted.judged)
    checked = engine.check(judged)
    late = np.zeros(len(admitted.pings), np.bool_)
    late[admitted.judged] = checked.late
    decided.append(checked)
    if checked.late.any():
        late_slots = np.unique(judged.device[checked.late])
        for begin in range(0, len(late_slots), JUDGED_TOGETHER):
            slots = late_slots[begin : begin + JUDGED_TOGETHER]
            now = judged.take(np.isin(judged.device, slots))
            newest_us = np.full(len(slots), NO_TIME, np.int64)
            np.maximum.at(newest_us, np.searchsorted(slots, now.device), now.fix_time_us)
            decided += engine.rejudge(Pings.concat([now, history(slots, newest_us)])).parts
    if admitted.check_ins:
        decided.append(engine.check_in(admitted.check_ins))
    if tick is not None:
        decided.append(engine.tick(tick.watermark_us, tick.listening_since_us))
    return decided, late
