"""Rules about the device, not about where it is: strap, battery, clock and the like."""

from __future__ import annotations

from numba import njit

from geofence._kernels.deadlines import next_edge
from geofence._kernels.fixes import FROZEN, HAS_FIX, JUMPED, TOO_GOOD, USED
from geofence._kernels.kinds import (
    BATTERY,
    BUFFERED,
    CASE,
    CASE_OPEN,
    CLOCK,
    CONTACT,
    FIX,
    JAMMING,
    MOVEMENT,
    NO_JAMMING,
    STRAP,
    STRAP_OPEN,
)
from geofence._kernels.options import PLAIN
from geofence._kernels.settle import settle_condition
from geofence._kernels.world import FAR_FUTURE, NO_TIME, silent_until

__all__ = ["judge_condition"]

BATTERY_CLEAR_PCT = 5  # a charge must rise so far above the line before the rule is met again
STRIKES = 4  # movement is implausible from here on, until clean fixes have brought the strikes back to none
JUMP_STRIKES = 2  # a jump counts twice: three in a row, or with a clean fix between each, open
BEHIND_US = 1_800_000_000  # a backlog is sent in less; who is late for longer has a clock that is behind
LAG_US = 10_000_000  # the unit of DUTY.lag
MAX_LAG = 65_535


@njit(**PLAIN, forceinline=True)
def judge_condition(world, said, batch, i, d, duty, rule):
    """A rule about the device at ping i."""
    row = world.devices[d]
    t = batch.time_us[i]
    status = batch.status[i]
    bits = batch.bits[i]
    was = duty.wrong != 0
    wrong = was
    since = t
    early = False  # bad, but it must be so for longer
    if rule.kind == STRAP:
        wrong = status & STRAP_OPEN != 0
    elif rule.kind == CASE:
        wrong = status & CASE_OPEN != 0
    elif rule.kind == NO_JAMMING:
        wrong = status & JAMMING != 0
    elif rule.kind == BATTERY:
        charge = int(batch.battery[i])
        if charge <= 100:
            line = min(rule.above_pct + BATTERY_CLEAR_PCT, 100) if was else rule.above_pct
            wrong = charge < line
    elif rule.kind == CONTACT:
        wrong = False
    elif rule.kind == FIX:
        if bits & HAS_FIX:
            wrong = False
        elif row.position_us != NO_TIME and t - row.position_us >= rule.within_us:
            wrong = True
            since = row.position_us + rule.within_us
    elif rule.kind == MOVEMENT:
        if bits & JUMPED:
            duty.score = min(duty.score + JUMP_STRIKES, STRIKES)
        elif bits & (FROZEN | TOO_GOOD):
            duty.score = min(duty.score + 1, STRIKES)
        elif bits & USED and duty.score > 0:
            duty.score -= 1
        wrong = duty.score == STRIKES or (was and duty.score > 0)
    elif rule.kind == CLOCK:
        delay_us = batch.received_us[i] - t
        if delay_us <= rule.within_us:
            wrong = delay_us < -rule.within_us
        elif status & BUFFERED:
            return  # it was kept back and says so
        else:
            wrong = True
            if duty.fixes == 0:
                duty.lag = min(delay_us // LAG_US, MAX_LAG)
                early = True
            else:  # measured by our clock: a backlog that is sent at once comes within a moment
                early = t - duty.since_us + delay_us - duty.lag * LAG_US < BEHIND_US
    if wrong:
        duty.fixes += 1
        if duty.since_us == NO_TIME or not (was or duty.fixes > 1):
            duty.since_us = since
        if not was and (early or t - duty.since_us < rule.dwell_us):
            duty.due_us = FAR_FUTURE
            return  # bad, but not for long enough yet
        duty.wrong = 1
        settle_condition(world, said, d, duty, t)
        duty.due_us = next_edge(world, duty, t)
        return
    if was:
        duty.wrong = 0
        duty.since_us = t
        settle_condition(world, said, d, duty, t)
    duty.fixes = 0
    duty.due_us = silent_until(world, t, rule.within_us) if rule.kind == CONTACT else FAR_FUTURE
