"""Pings against rules: one device after the other, one ping after the other, each of its rules in turn.

A call hands over every array of ``world``, ``said`` and ``batch``, some 250 words, which costs more than
most of what is done here; so the functions on the way of each ping are built into their caller (forceinline).
Time alone acts through `advance`: it runs before each ping, and for devices whose hour has come in a tick.
The words of docs/decisions.md are those of this module.
"""

from __future__ import annotations

from numba import njit

from geofence._kernels.evidence import CLIP, confidence_ppm, moved, weight_of
from geofence._kernels.fixes import (
    FROM_NETWORK,
    FROZEN,
    HAS_FIX,
    JUMPED,
    NETWORK,
    TOO_GOOD,
    USED,
    at_most_mm,
    roughly_at_most_mm,
)
from geofence._kernels.options import PLAIN
from geofence._kernels.stretch import (
    NOTHING,
    RIGHT,
    UNKNOWN,
    WRONG,
    blank_pair,
    follow,
    reach_of,
    say,
    settled,
    tell,
    wrong_mm,
)
from geofence._kernels.world import FAR_FUTURE, NO_TIME, NONE, close_row, open_row, silent_until, window_of

__all__ = ["KINDS", "STRIKES", "advance_due", "begin_check_ins", "fire", "judge", "rest"]

KINDS = (
    "none",
    "inside",
    "outside",
    "strap_closed",
    "case_closed",
    "battery",
    "contact",
    "fix",
    "no_jamming",
    "plausible_movement",
    "check_in",
)
RECORD, INSIDE, OUTSIDE, STRAP, CASE, BATTERY, CONTACT, FIX, NO_JAMMING, MOVEMENT, CHECK_IN = range(11)

STRAP_OPEN, CASE_OPEN, BEACON, JAMMING = 1, 2, 16, 32  # status bits
BATTERY_CLEAR_PCT = 5  # a charge must rise so far above the line before the rule is met again
STRIKES = 4  # movement is implausible from here on, until clean fixes have brought the strikes back to none
JUMP_STRIKES = 2  # a jump counts twice: three in a row, or with a clean fix between each, open
CERTAIN_PPM = 1_000_000
NO_ERROR = -1
BEACON_MM = -2  # a beacon in range is a fix two errors inside: all that one fix can say


# --- violations ------------------------------------------------------------------------------------


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
            if now > opened.depth_mm:
                opened.depth_mm = now
                opened.depth_error_mm = now_error
            opened.fixes = max(opened.fixes, fixes)
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
def _settle_pair(world, said, d, duty, pair, rule, t, error_mm):
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
def _settle_inside(world, said, d, duty, rule, t, error_mm):
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
def _settle_condition(world, said, d, duty, t):
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


@njit(**PLAIN)
def _next_edge(world, duty, t):
    """When the duty's window changes next, after t."""
    begin, end = window_of(world, duty, t)
    due = end if begin <= t else begin
    return min(due, world.clock[1])


# --- time alone ------------------------------------------------------------------------------------


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
            _settle_pair(world, said, d, duty, world.pairs[p], rule, t, error_mm)
        p = duty.chain
        while p != NONE:
            _settle_pair(world, said, d, duty, world.pairs[p], rule, t, error_mm)
            p = world.pairs[p].next
    elif rule.kind == INSIDE:
        _settle_inside(world, said, d, duty, rule, t, error_mm)
    else:
        _settle_condition(world, said, d, duty, t)
    duty.due_us = _next_edge(world, duty, t)


@njit(**PLAIN, forceinline=True)
def _has_room(world, said, d, hits):
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
def _advance(world, said, d, limit_us):
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
        if not _has_room(world, said, d, 0):
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
        if not _advance(world, said, which[k], limit_us):
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


# --- one ping --------------------------------------------------------------------------------------


@njit(**PLAIN)
def _cross(said, batch, i, d, duty, rule, pair, distance_mm, sure, breaks):
    """Note that the track may have passed through the pair's zone."""
    if not sure and pair.last_mm + distance_mm > at_most_mm(
        batch.from_lon[i], batch.from_lat[i], batch.lon[i], batch.lat[i]
    ):
        return
    k = said.count[2]
    row = said.crosses[k]
    row.ping = i
    row.device = d
    row.rule = duty.rule
    row.zone = pair.zone
    row.distance_mm = min(distance_mm, reach_of(batch.error_mm[i]) + rule.offset_mm)
    row.sure = 1 if sure else 0
    row.records = pair.records
    row.breaks = 1 if breaks else 0
    said.count[2] = k + 1


@njit(**PLAIN)
def _in_force(world, duty, t):
    begin, _ = window_of(world, duty, t)
    return begin <= t


@njit(**PLAIN)
def _outside(pair, rule):
    """Whether the pair's state is that the wearer is outside, and the last fix was."""
    return pair.last_mm > 0 and ((pair.state != WRONG) == (rule.sense > 0))


@njit(**PLAIN, forceinline=True)
def _judge_own(world, said, batch, i, d, duty, rule, base):
    """The private zones of one duty at ping i."""
    row = world.devices[d]
    t = batch.time_us[i]
    used = batch.bits[i] & USED
    error_mm = batch.error_mm[i]
    source = (batch.status[i] >> 8) & 3
    heard = rule.beacon and batch.status[i] & BEACON
    beacon_weight = 0
    if heard:
        beacon_weight = weight_of(t - duty.since_us, False) if duty.since_us != NO_TIME else 1024
        duty.since_us = t
    if not (used or heard):
        return
    track = used and batch.gap_us[i] > 0 and batch.gap_us[i] <= rule.cross_us
    track = track and not batch.bits[i] & (NETWORK | FROM_NETWORK)
    bound_mm = 0.0
    if track:
        bound_mm = roughly_at_most_mm(batch.from_lon[i], batch.from_lat[i], batch.lon[i], batch.lat[i])
    gnss = source == 0
    others = 0  # zones of the rule that the wearer is not sure to have left
    for p in range(duty.first, duty.stop):
        others += world.pairs[p].state != WRONG
    any_wrong = False
    for p in range(duty.first, duty.stop):
        pair = world.pairs[p]
        before = pair.state
        was_outside = _outside(pair, rule)
        distance_mm = pair.last_mm
        wrong = BEACON_MM
        if used:
            distance_mm = batch.own_mm[base + p - row.pair]
            wrong = wrong_mm(rule, distance_mm)
            if wrong < 0 and gnss and settled(pair) and not heard:
                # nothing but a crossing can be said, and that not if the track is too short for it
                if not track or pair.last_mm + distance_mm > bound_mm or distance_mm <= 0:
                    pair.last_mm = distance_mm
                    continue
            if not (heard and wrong > 0):
                tell(pair, rule, wrong, error_mm, batch.weight[i], source)
        if heard:
            pair.belief, _ = moved(pair.belief, 0, 0, BEACON_MM, 1, beacon_weight, False)
            wrong = min(wrong, 0)
        found = follow(pair, rule, wrong, error_mm, t)
        if used:
            crossed = track and was_outside and pair.records | rule.crossing
            crossed = crossed and pair.last_mm + distance_mm <= bound_mm
            if crossed and distance_mm > 0 and ((pair.state != WRONG) == (rule.sense > 0)):
                _cross(
                    said,
                    batch,
                    i,
                    d,
                    duty,
                    rule,
                    pair,
                    distance_mm,
                    False,
                    rule.crossing and _in_force(world, duty, t),
                )
            pair.last_mm = distance_mm
        if found != NOTHING:
            alone = rule.kind != INSIDE or others - (before != WRONG) == 0
            shown_mm = distance_mm
            if rule.sense > 0 and used:  # as far as it was measured
                shown_mm = min(distance_mm, reach_of(error_mm) + rule.offset_mm)
            say(world, said, d, duty, pair, rule, found, before, alone, shown_mm, t)
        if rule.kind == OUTSIDE and (pair.state == WRONG or pair.open != NONE):
            _settle_pair(world, said, d, duty, pair, rule, t, error_mm)
        any_wrong = any_wrong or pair.state == WRONG
    if rule.kind == INSIDE:
        any_wrong = _settle_inside(world, said, d, duty, rule, t, error_mm)
    if rule.kind != RECORD:
        duty.due_us = _next_edge(world, duty, t) if any_wrong else FAR_FUTURE


@njit(**PLAIN)
def _binds(world, zone, rule):
    """Whether a chained rule is about this zone."""
    for k in range(world.zone_start[zone], world.zone_start[zone + 1]):
        if world.zone_rules[k] == rule:
            return True
    return False


@njit(**PLAIN)
def _records(world, d, duty_index, zone):
    """Whether no earlier rule of the device writes this zone's transitions."""
    row = world.devices[d]
    for u in range(row.duty, duty_index):
        earlier = world.duties[u]
        rule = world.rules[earlier.rule]
        if not rule.records:
            continue
        if rule.chained:
            if _binds(world, zone, earlier.rule):
                return 0
        else:
            for p in range(earlier.first, earlier.stop):
                if world.pairs[p].zone == zone:
                    return 0
    return 1


@njit(**PLAIN)
def _take_pair(world):
    k = world.free[0]
    if k != NONE:
        world.free[0] = world.pairs[k].next
    else:
        k = int(world.used[2])
        world.used[2] += 1
    return k


@njit(**PLAIN)
def _bring_into_reach(world, batch, i, d, u, duty, rule, stamp):
    """Stamp the chained pairs that ping i has in reach with their distance; make those that are new."""
    row = world.devices[d]
    network = batch.bits[i] & NETWORK
    for h in range(batch.hit_start[i], batch.hit_start[i + 1]):
        zone = batch.hit_zone[h]
        if not _binds(world, zone, duty.rule):
            continue
        p = duty.chain
        while p != NONE and world.pairs[p].zone != zone:
            p = world.pairs[p].next
        if p == NONE:
            if row.far == -CLIP and wrong_mm(rule, batch.hit_mm[h]) < 0 and not network:
                continue  # it could say nothing but what "far away" says
            p = _take_pair(world)
            pair = world.pairs[p]
            blank_pair(pair, zone)
            pair.belief = row.far
            pair.wifi = row.far_wifi
            pair.cell = row.far_cell
            pair.mark = row.far
            pair.state = RIGHT if row.far <= rule.clear_log_odds else UNKNOWN
            pair.records = _records(world, d, u, zone) if rule.records else 0
            if row.far != 0:
                pair.last_mm = reach_of(row.judged_error_mm)
            pair.next = duty.chain
            duty.chain = p
            row.chained += 1
        world.pairs[p].stamp = stamp
        world.pairs[p].stamp_mm = batch.hit_mm[h]


@njit(**PLAIN, forceinline=True)
def _judge_chained(world, said, batch, i, d, u, duty, rule):
    """The zones in reach of one duty at ping i."""
    if not batch.bits[i] & USED:
        return
    row = world.devices[d]
    t = batch.time_us[i]
    error_mm = batch.error_mm[i]
    source = (batch.status[i] >> 8) & 3
    far, far_wifi, far_cell = _far_after(row, error_mm, batch.weight[i], source)
    if batch.hit_start[i] < batch.hit_start[i + 1]:
        _bring_into_reach(world, batch, i, d, u, duty, rule, i)
    track = batch.gap_us[i] > 0 and batch.gap_us[i] <= rule.cross_us
    track = track and not batch.bits[i] & (NETWORK | FROM_NETWORK)
    if track:
        for c in range(batch.cut_start[i], batch.cut_start[i + 1]):
            zone = batch.cut_zone[c]
            if not _binds(world, zone, duty.rule):
                continue
            p = duty.chain
            while p != NONE and world.pairs[p].zone != zone:
                p = world.pairs[p].next
            if p == NONE:  # it was far away before and after
                records = _records(world, d, u, zone) if rule.records else 0
                if records or rule.crossing:
                    k = said.count[2]
                    cross = said.crosses[k]
                    cross.ping = i
                    cross.device = d
                    cross.rule = duty.rule
                    cross.zone = zone
                    cross.distance_mm = reach_of(error_mm)
                    cross.sure = 1
                    cross.records = records
                    cross.breaks = 1 if rule.crossing and _in_force(world, duty, t) else 0
                    said.count[2] = k + 1
    any_wrong = False
    previous = NONE
    p = duty.chain
    while p != NONE:
        pair = world.pairs[p]
        after = pair.next
        before = pair.state
        was_outside = _outside(pair, rule)
        distance_mm = reach_of(error_mm) + rule.offset_mm
        if pair.stamp == i:
            distance_mm = min(distance_mm, pair.stamp_mm)
        pair.stamp = NONE
        wrong = wrong_mm(rule, distance_mm)
        tell(pair, rule, wrong, error_mm, batch.weight[i], source)
        found = follow(pair, rule, wrong, error_mm, t)
        if track and was_outside and distance_mm > 0 and pair.state != WRONG and pair.records | rule.crossing:
            for c in range(batch.cut_start[i], batch.cut_start[i + 1]):
                if batch.cut_zone[c] == pair.zone:
                    breaks = rule.crossing and _in_force(world, duty, t)
                    _cross(said, batch, i, d, duty, rule, pair, distance_mm, True, breaks)
        pair.last_mm = distance_mm
        if found != NOTHING:
            say(world, said, d, duty, pair, rule, found, before, True, distance_mm, t)
        if rule.kind == OUTSIDE and (pair.state == WRONG or pair.open != NONE):
            _settle_pair(world, said, d, duty, pair, rule, t, error_mm)
        any_wrong = any_wrong or pair.state == WRONG
        if (
            distance_mm > 0  # else it must be known at the next fix that this one was inside
            and pair.open == NONE
            and pair.first_us == NO_TIME
            and pair.told_us < t  # else another opening at this very time would have the same id
            and pair.state != WRONG
            and pair.belief == far
            and pair.mark == far
            and pair.wifi == far_wifi
            and pair.cell == far_cell
            and (pair.state == RIGHT) == (far <= rule.clear_log_odds)
        ):
            if previous == NONE:
                duty.chain = after
            else:
                world.pairs[previous].next = after
            pair.next = world.free[0]
            world.free[0] = p
            row.chained -= 1
        else:
            previous = p
        p = after
    if rule.kind == OUTSIDE:
        duty.due_us = _next_edge(world, duty, t) if any_wrong else FAR_FUTURE


@njit(**PLAIN, forceinline=True)
def _far_after(row, error_mm, weight, source):
    """What a fix says of a zone that it does not reach: belief, and its network parts."""
    said, other = row.far_cell, row.far_wifi
    if source == 1:
        said, other = other, said
    network = source == 1 or source == 2
    far, said = moved(row.far, said if network else 0, other, -reach_of(error_mm), error_mm, weight, network)
    return far, said if source == 1 else row.far_wifi, said if source == 2 else row.far_cell


@njit(**PLAIN, forceinline=True)
def _judge_condition(world, said, batch, i, d, duty, rule):
    """A rule about the device at ping i."""
    row = world.devices[d]
    t = batch.time_us[i]
    status = batch.status[i]
    bits = batch.bits[i]
    was = duty.wrong != 0
    wrong = was
    since = t
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
    if wrong:
        duty.fixes += 1
        if duty.since_us == NO_TIME or not (was or duty.fixes > 1):
            duty.since_us = since
        if not was and t - duty.since_us < rule.dwell_us:
            duty.due_us = FAR_FUTURE
            return  # bad, but not for long enough yet
        duty.wrong = 1
        _settle_condition(world, said, d, duty, t)
        duty.due_us = _next_edge(world, duty, t)
        return
    if was:
        duty.wrong = 0
        duty.since_us = t
        _settle_condition(world, said, d, duty, t)
    duty.fixes = 0
    duty.due_us = silent_until(world, t, rule.within_us) if rule.kind == CONTACT else FAR_FUTURE


@njit(**PLAIN)
def judge(world, said, batch, start):
    """Judge the pings from ``start`` on; returns the first that was not judged for want of room, else n."""
    n = len(batch.device)
    for i in range(start, n):
        d = batch.device[i]
        row = world.devices[d]
        t = batch.time_us[i]
        if world.due_us[d] < t and not _advance(world, said, d, t - 1):
            return i
        hits = batch.hit_start[i + 1] - batch.hit_start[i] + batch.cut_start[i + 1] - batch.cut_start[i]
        if not _has_room(world, said, d, hits):
            return i
        if row.ping_us == NO_TIME:
            begin_check_ins(world, d, t)
            row.position_us = t
        base = batch.own_start[i]
        for u in range(row.duty, row.duty_stop):
            duty = world.duties[u]
            rule = world.rules[duty.rule]
            if rule.kind > OUTSIDE:
                if rule.kind != CHECK_IN:
                    _judge_condition(world, said, batch, i, d, duty, rule)
            elif rule.chained:
                _judge_chained(world, said, batch, i, d, u, duty, rule)
            else:
                _judge_own(world, said, batch, i, d, duty, rule, base)
        if batch.bits[i] & HAS_FIX:
            row.position_us = t
        if batch.bits[i] & USED:
            source = (batch.status[i] >> 8) & 3
            row.far, row.far_wifi, row.far_cell = _far_after(row, batch.error_mm[i], batch.weight[i], source)
            row.judged_error_mm = batch.error_mm[i]
        charge = int(batch.battery[i])
        if charge <= 100:
            if row.battery_us == NO_TIME or charge > row.battery_pct:
                row.battery_us = t
                row.battery_from = charge
            row.battery_pct = charge
        row.ping_us = t
        row.boot = batch.boot[i]
        row.seq = batch.seq[i]
        rest(world, d)
    return n
