"""Violations open and close: one row for each, so that it is open where its rule is broken and in force.

``_settle`` is the one place where that is decided; the functions after it say what it means for a zone of an
`outside` rule, for an `inside` rule, and for a condition.
"""

from __future__ import annotations

from numba import njit

from geofence._kernels.evidence import CLIP, confidence_ppm
from geofence._kernels.options import PLAIN
from geofence._kernels.stretch import RIGHT, WRONG, wrong_mm
from geofence._kernels.world import (
    AMENDED,
    FAR_FUTURE,
    NO_TIME,
    NONE,
    close_row,
    open_row,
    window_of,
    write_row,
)

__all__ = ["settle_condition", "settle_inside", "settle_pair"]

CERTAIN_PPM = 1_000_000
NO_ERROR = -1
# An open violation says its newest numbers when its depth or the number of its fixes passes one of these, or
# any of their doublings: often enough to follow, and a few rows in all however long it lasts.
FIRST_DEPTH_MM = 25_000
FIRST_FIXES = 4


@njit(**PLAIN)
def _passes(before, after, first):
    """Whether what grew from before to after passed ``first`` or any doubling of it."""
    while first <= before:
        first *= 2
    return first <= after


@njit(**PLAIN)
def _settle(
    world,
    said,
    d,
    duty,
    row,
    wrong,
    steady,
    since,
    zone,
    t,
    ppm,
    depth,
    depth_error,
    now,
    now_error,
    fixes,
    told,
):
    """Open or close one violation at time t, so that it is open where the rule is broken and in force.

    row    : int   row of ``opens``, NONE when closed; the new one is returned
    wrong  : bool  the wearer (or device) is on the wrong side; since: from when, either way
    steady : bool  the newest fix does not speak for a return
    depth, depth_error : of the stretch; now, now_error: of the newest fix (an opening by time takes this)
    told   : int   the newest opening said; another one is later, however often one fix time is told
    """
    if row != NONE:
        opened = world.opens[row]
        _, end = window_of(world, duty, opened.opened_us)
        if t >= end or not wrong:
            # a return that began after the window's end came too late to count
            closed = end if t >= end and (wrong or since > end) else since
            close_row(world, said, row, min(closed, end), min(t, end))
            row = NONE
        else:
            opened.confidence_ppm = max(opened.confidence_ppm, ppm)
            grown = _passes(opened.fixes, fixes, FIRST_FIXES) or _passes(opened.depth_mm, now, FIRST_DEPTH_MM)
            if now > opened.depth_mm:
                opened.depth_mm = now
                opened.depth_error_mm = now_error
            opened.fixes = max(opened.fixes, fixes)
            if grown and zone != NONE:
                opened.revision += 1
                write_row(said, opened, AMENDED, t)
    if row == NONE and wrong and steady:
        begin, end = window_of(world, duty, t)
        if begin <= t:
            if begin > since:
                since, depth, depth_error = begin, now, now_error
            since = max(since, told + 1)
            if since < end:
                row = open_row(
                    world, said, d, duty.rule, zone, since, t, ppm, max(depth, 0), depth_error, fixes
                )
    return row


@njit(**PLAIN)
def _newest_told(world, row, told):
    """The newest opening said, now that the violation of row (NONE: none) is open."""
    return told if row == NONE else max(told, int(world.opens[row].opened_us))


@njit(**PLAIN)
def settle_pair(world, said, d, duty, pair, rule, t, error_mm):
    """The violation of one zone of an `outside` rule."""
    if pair.state != WRONG and pair.open == NONE:
        return
    now = wrong_mm(rule, pair.last_mm)
    pair.open = _settle(
        world,
        said,
        d,
        duty,
        pair.open,
        pair.state == WRONG,
        pair.first_us == NO_TIME,
        pair.since_us,
        pair.zone,
        t,
        confidence_ppm(pair.belief),
        pair.depth_mm,
        pair.depth_error_mm,
        now,
        error_mm,
        pair.fixes,
        pair.told_us,
    )
    pair.told_us = _newest_told(world, pair.open, pair.told_us)


@njit(**PLAIN, forceinline=True)
def settle_inside(world, said, d, duty, rule, t, error_mm):
    """The violation of an `inside` rule: outside of every one of its zones. Returns whether that is so."""
    wrong, steady = True, True
    left = NO_TIME  # when the last of the zones was left
    back = FAR_FUTURE  # when the first was entered
    nearest = duty.first
    belief = CLIP
    for p in range(duty.first, duty.stop):
        pair = world.pairs[p]
        if pair.state == WRONG:
            left = max(left, pair.since_us)
            steady = steady and pair.first_us == NO_TIME
            belief = min(belief, pair.belief)
        else:
            wrong = False
            if pair.state == RIGHT:
                back = min(back, pair.since_us)
        if pair.last_mm < world.pairs[nearest].last_mm:
            nearest = p
    if duty.first == duty.stop or (duty.open == NONE and not wrong):
        return False
    pair = world.pairs[nearest]
    now = wrong_mm(rule, pair.last_mm)
    alone = duty.stop - duty.first == 1
    duty.open = _settle(
        world,
        said,
        d,
        duty,
        duty.open,
        wrong,
        steady,
        left if wrong else back,
        pair.zone,
        t,
        confidence_ppm(belief),
        pair.depth_mm if alone else now,
        pair.depth_error_mm if alone else error_mm,
        now,
        error_mm,
        pair.fixes,
        duty.told_us,
    )
    duty.told_us = _newest_told(world, duty.open, duty.told_us)
    return wrong


@njit(**PLAIN)
def settle_condition(world, said, d, duty, t):
    """The violation of a rule about the device."""
    duty.open = _settle(
        world,
        said,
        d,
        duty,
        duty.open,
        duty.wrong != 0,
        True,
        duty.since_us,
        NONE,
        t,
        CERTAIN_PPM,
        0,
        NO_ERROR,
        0,
        NO_ERROR,
        duty.fixes,
        duty.told_us,
    )
    duty.told_us = _newest_told(world, duty.open, duty.told_us)
