"""One device, one zone, one fix: the belief moves, and the stretch towards the other side goes on or ends."""

from __future__ import annotations

from numba import njit

from geofence._kernels.evidence import CLIP, after_a_move, confidence_ppm, moved
from geofence._kernels.options import PLAIN
from geofence._kernels.world import NO_TIME, NONE, fill_row, transition, window_of

__all__ = [
    "RIGHT",
    "UNKNOWN",
    "WRONG",
    "blank_pair",
    "follow",
    "reach_of",
    "say",
    "settled",
    "tell",
    "wrong_mm",
]

# What a pair says: not yet sure, on the lawful side, on the side that breaks the rule.
UNKNOWN, RIGHT, WRONG = 0, 1, 2

# What `follow` found.
NOTHING, CHANGED, HELD_BACK = 0, 1, 2

RECORD, INSIDE = 0, 1  # kinds of rules: one that only records, `inside`
ENTER, EXIT = 1, 2
INITIAL = 1
CHANGE_HELD_BACK = 5
NO_ERROR = -1


@njit(**PLAIN)
def reach_of(error_mm):
    """How far past its line, on the lawful side, a zone is measured for a fix of this error, mm.

    Beyond it the distance counts as this. It is five errors at least for every fix better than 400 m, so
    only the poorest cell fixes lose by it; and zones out of reach need no row.
    """
    if error_mm <= 20_000:
        return 100_000
    return 500_000 if error_mm <= 100_000 else 2_000_000


@njit(**PLAIN)
def blank_pair(pair, zone):
    """Nothing is known of this zone."""
    pair.zone = zone
    pair.next = NONE
    pair.open = NONE
    pair.belief = 0
    pair.wifi = 0
    pair.cell = 0
    pair.mark = 0
    pair.peak = -CLIP
    pair.state = UNKNOWN
    pair.records = 0
    pair.fixes = 0
    pair.since_us = NO_TIME
    pair.first_us = NO_TIME
    pair.told_us = NO_TIME
    pair.depth_mm = 0
    pair.depth_error_mm = NO_ERROR
    pair.last_mm = -1
    pair.stamp = NONE


@njit(**PLAIN)
def wrong_mm(rule, distance_mm):
    """How far past the rule's line a signed distance to the zone is; positive on the wrong side."""
    return rule.offset_mm - distance_mm if rule.sense > 0 else distance_mm + rule.offset_mm


@njit(**PLAIN)
def tell(pair, rule, wrong, error_mm, weight, source, came):
    """Move the pair's belief by one fix; ``wrong`` in mm past the line, ``came``: the wearer moved there."""
    if rule.sense > 0:
        wrong = max(wrong, -reach_of(error_mm))
    if pair.state == WRONG:
        wrong += rule.hysteresis_mm
    if came:
        pair.belief = after_a_move(int(pair.belief), wrong)
    if source == 1:
        belief, said = moved(pair.belief, pair.wifi, pair.cell, wrong, error_mm, weight, True)
        pair.wifi = said
    elif source == 2:
        belief, said = moved(pair.belief, pair.cell, pair.wifi, wrong, error_mm, weight, True)
        pair.cell = said
    else:
        belief, said = moved(pair.belief, 0, 0, wrong, error_mm, weight, False)
    pair.belief = belief


@njit(**PLAIN)
def settled(pair):
    """Whether one more GNSS fix on the lawful side changes nothing of the pair.

    Then the belief is at its lowest and stays there (`moved` adds nothing positive, `after_a_move` lifts it
    only for a fix on the wrong side), so `follow` finds it at the mark with no stretch begun, and writes what
    is there already.
    """
    return (
        pair.state == RIGHT
        and pair.belief == -CLIP
        and pair.mark == -CLIP
        and pair.peak == -CLIP
        and pair.fixes == 0
        and pair.open == NONE
        and pair.first_us == NO_TIME
    )


@njit(**PLAIN)
def follow(pair, rule, wrong, error_mm, t):
    """Follow the stretch after the belief moved: NOTHING, or CHANGED and HELD_BACK as bits.

    A stretch begins with the first fix after the belief's lowest point (in the state WRONG: its highest) and
    ends when the belief is back there, or when the state changes: the change point of a cumulative sum
    (E. S. Page, Continuous inspection schemes, 1954).
    """
    belief = pair.belief
    if wrong > 0:
        if pair.fixes == 0 or wrong > pair.depth_mm:
            pair.depth_mm = wrong
            pair.depth_error_mm = error_mm
        pair.fixes += 1
    if pair.state == WRONG:
        if belief >= pair.mark:
            pair.mark = belief
            pair.first_us = NO_TIME
        elif pair.first_us == NO_TIME:
            pair.first_us = t
        if belief <= rule.clear_log_odds and t - pair.first_us >= rule.dwell_us:
            pair.state = RIGHT
            pair.since_us = pair.first_us
            pair.mark = belief
            pair.first_us = NO_TIME
            pair.fixes = 0
            pair.peak = -CLIP
            return CHANGED
        return NOTHING
    if belief <= pair.mark:
        pair.mark = belief
        found = NOTHING
        if pair.first_us != NO_TIME and pair.fixes > 0:
            found = HELD_BACK
        else:
            pair.fixes = 0
            pair.first_us = NO_TIME
            pair.peak = -CLIP
        if pair.state == UNKNOWN and belief <= rule.clear_log_odds:
            pair.state = RIGHT
            pair.since_us = t
            found |= CHANGED
        return found
    if pair.first_us == NO_TIME:
        pair.first_us = t
    pair.peak = max(pair.peak, belief)
    if belief >= rule.open_log_odds and t - pair.first_us >= rule.dwell_us:
        pair.state = WRONG
        pair.since_us = pair.first_us
        pair.mark = belief
        pair.first_us = NO_TIME
        return CHANGED
    return NOTHING


@njit(**PLAIN)
def say(world, said, d, duty, pair, rule, found, before, alone, distance_mm, t):
    """Say what `follow` found: a near violation that was held back, a transition.

    alone : bool  no other zone of the rule keeps it from being broken
    """
    if found & HELD_BACK:
        if rule.kind != RECORD and alone and pair.open == NONE:
            begin, _ = window_of(world, duty, pair.first_us)
            if begin < t:
                told = duty.told_us if rule.kind == INSIDE else pair.told_us
                opened = max(pair.first_us, begin, told + 1)
                if rule.kind == INSIDE:
                    duty.told_us = opened
                else:
                    pair.told_us = opened
                k = said.count[0]
                row = said.out[k]
                fill_row(
                    row,
                    d,
                    duty.rule,
                    rule.severity,
                    pair.zone,
                    opened,
                    t,
                    confidence_ppm(pair.peak),
                    pair.depth_mm,
                    pair.depth_error_mm,
                    pair.fixes,
                )
                row.change = CHANGE_HELD_BACK
                row.closed_us = max(t, opened)
                said.when[k] = t
                said.count[0] = k + 1
        pair.first_us = NO_TIME
        pair.fixes = 0
        pair.peak = -CLIP
    if found & CHANGED and pair.records:
        belief = pair.belief if pair.state == WRONG else -pair.belief
        inside = (pair.state == WRONG) == (rule.sense > 0)
        if inside:
            flags = INITIAL if before == UNKNOWN else 0
            transition(
                said, d, pair.zone, ENTER, flags, pair.since_us, t, distance_mm, confidence_ppm(belief)
            )
        elif before != UNKNOWN:
            transition(said, d, pair.zone, EXIT, 0, pair.since_us, t, distance_mm, confidence_ppm(belief))
