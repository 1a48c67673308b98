"""What the engine says to one batch of inputs: live, after a restart and in a replay, this one function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geofence import Pings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from geofence import Decided, Engine, Ruleset
    from telemetry.columns import Admitted, Tick

__all__ = ["RulesVersion", "judge"]


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
    history: Callable[[int, int], Pings],
) -> tuple[list[Decided], NDArray[np.bool_]]:
    """Have the engine adopt rules, check pings, judge late ones again, take check-ins, and let time act.

    history : gives, for a device's slot and a time, its judged pings of earlier batches around that time

    Gives the decisions, and for each admitted ping whether it came too late to be judged in order: bool (n,).
    """
    decided: list[Decided] = []
    if new_rules is not None:
        decided.append(engine.adopt(new_rules.ruleset, new_rules.effective_us))
    judged = admitted.pings.take(admitted.judged)
    checked = engine.check(judged)
    late = np.zeros(len(admitted.pings), np.bool_)
    late[admitted.judged] = checked.late
    decided.append(checked)
    if checked.late.any():
        slots = np.unique(judged.device[checked.late])
        now = judged.take(np.isin(judged.device, slots))
        newest_us = ((slot, int(now.fix_time_us[now.device == slot].max())) for slot in slots.tolist())
        decided.append(engine.rejudge(Pings.concat([now, *(history(slot, t) for slot, t in newest_us)])))
    if admitted.check_ins:
        decided.append(engine.check_in(admitted.check_ins))
    if tick is not None:
        decided.append(engine.tick(tick.watermark_us, tick.listening_since_us))
    return decided, late
