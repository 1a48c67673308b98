"""What time alone does: edges of windows, silence, missed check-ins; each at its due time."""

from __future__ import annotations

from numba import njit

from geofence._kernels.kinds import CHECK_IN, CONTACT, INSIDE, OUTSIDE
from geofence._kernels.options import PLAIN
from geofence._kernels.settle import settle_condition, settle_inside, settle_pair
from geofence._kernels.world import FAR_FUTURE, NONE, open_row, silent_until, window_of

__all__ = ["advance", "advance_due", "begin_check_ins", "fire", "has_room", "next_edge", "rest"]

CERTAIN_PPM = 1_000_000
NO_ERROR = -1


@njit(**PLAIN)
def next_edge(world, duty, t):
    """When the duty's window changes next, after t."""
    begin, end = window_of(world, duty, t)
    due = end if begin <= t else begin
    return min(due, world.clock[1])


@njit(**PLAIN)
def _check_in_due(world, duty, rule, t):
    """When the first window that begins at t or later is over, with its grace."""
    begin, end = window_of(world, duty, t)
    if begin < t:
        begin, end = window_of(world, duty, end)
    return min(end + rule.grace_us, world.clock[1]) if end < FAR_FUTURE else world.clock[1]


@njit(**PLAIN)
def fire(world, said, d, duty, rule, t, error_mm):
    """What time t alone does to one duty; sets when it is due next."""
    if rule.kind == CONTACT and not duty.wrong:
        due = silent_until(world, world.devices[d].ping_us, rule.within_us)
        if due > t:
            duty.due_us = due
            return
        duty.wrong = 1
        duty.since_us = t
        duty.fixes = 0
    if rule.kind == CHECK_IN:
        begin, end = window_of(world, duty, t - rule.grace_us - 1)
        if end + rule.grace_us == t:
            if duty.open == NONE and duty.since_us < begin:
                duty.open = open_row(world, said, d, duty.rule, NONE, t, t, CERTAIN_PPM, 0, NO_ERROR, 0)
            duty.due_us = _check_in_due(world, duty, rule, end)
        else:  # the calendars ended here; they reach further now
            _, end = window_of(world, duty, t - rule.grace_us)
            duty.due_us = min(end + rule.grace_us, world.clock[1])
        return
    if rule.kind == OUTSIDE:
        for p in range(duty.first, duty.stop):
            settle_pair(world, said, d, duty, world.pairs[p], rule, t, error_mm)
        p = duty.chain
        while p != NONE:
            settle_pair(world, said, d, duty, world.pairs[p], rule, t, error_mm)
            p = world.pairs[p].next
    elif rule.kind == INSIDE:
        settle_inside(world, said, d, duty, rule, t, error_mm)
    else:
        settle_condition(world, said, d, duty, t)
    duty.due_us = next_edge(world, duty, t)


@njit(**PLAIN, forceinline=True)
def has_room(world, said, d, hits):
    """Whether all that one ping or one deadline of this device can say fits."""
    row = world.devices[d]
    duties = row.duty_stop - row.duty
    pairs = row.pair_stop - row.pair + row.chained + hits * duties
    need = 3 * pairs + 3 * duties + 4
    return (
        said.count[0] + need <= len(said.out)
        and said.count[1] + need <= len(said.moves)
        and said.count[2] + need <= len(said.crosses)
        and world.used[3] + need <= len(world.opens)
        and world.used[2] + hits * duties <= len(world.pairs)
    )


@njit(**PLAIN)
def advance(world, said, d, limit_us):
    """Let time act on device d up to limit_us, included. False: no room to say it all; call again."""
    row = world.devices[d]
    while world.due_us[d] <= limit_us:
        # one duty's deadline at a time, the earliest first
        first = NONE
        due = FAR_FUTURE
        soonest = FAR_FUTURE
        for u in range(row.duty, row.duty_stop):
            duty_due = world.duties[u].due_us
            silence = world.rules[world.duties[u].rule].kind == CONTACT
            if silence and duty_due > world.clock[0]:
                soonest = min(soonest, duty_due)
                continue
            if duty_due < due:
                due = duty_due
                first = u
        world.due_us[d] = min(due, soonest)
        if due > limit_us:
            return True
        if not has_room(world, said, d, 0):
            return False
        duty = world.duties[first]
        before = said.count[0]
        fire(world, said, d, duty, world.rules[duty.rule], due, row.judged_error_mm)
        # a ping can no more be judged in order before this; missed calls have nothing to do with pings
        if said.count[0] > before and world.rules[duty.rule].kind != CHECK_IN:
            row.acted_us = max(row.acted_us, due)
    return True


@njit(**PLAIN, forceinline=True)
def rest(world, d):
    """Note when the device is due next."""
    row = world.devices[d]
    due = FAR_FUTURE
    for u in range(row.duty, row.duty_stop):
        due = min(due, world.duties[u].due_us)
    world.due_us[d] = due


@njit(**PLAIN)
def advance_due(world, said, which, start, limit_us):
    """Let time act on many devices.

    which : int32 (m,)  slots; the first one not done is returned, m when all are
    """
    for k in range(start, len(which)):
        if not advance(world, said, which[k], limit_us):
            return k
        rest(world, which[k])
    return len(which)


@njit(**PLAIN)
def begin_check_ins(world, d, t):
    """From t on, check-ins are expected of device d."""
    row = world.devices[d]
    for u in range(row.duty, row.duty_stop):
        duty = world.duties[u]
        rule = world.rules[duty.rule]
        if rule.kind == CHECK_IN and duty.due_us == FAR_FUTURE:
            duty.due_us = _check_in_due(world, duty, rule, t)
    rest(world, d)
