"""What every kernel of the engine shares: the tables it works on, windows of time, and how it speaks."""

from __future__ import annotations

from collections import namedtuple

from numba import njit

from geofence._kernels.options import PLAIN

__all__ = [
    "FAR_FUTURE",
    "NONE",
    "NO_TIME",
    "Batch",
    "Said",
    "World",
    "close_row",
    "open_row",
    "silent_until",
    "transition",
    "window_of",
    "write_row",
]

NONE = -1
NO_TIME = -(1 << 63)
FAR_FUTURE = 1 << 62

OPENED, CLOSED, AMENDED = 1, 2, 3

# devices, due_us, duties, pairs, opens, used, free : see geofence.state.State
# rules      : RULE (r,)
# cal_start  : int64 (c+1,)  where each calendar's edges begin
# edges      : int64 (e,)    starts and ends of windows, in turn, UTC microseconds
# zone_start : int64 (z+1,)  where each zone's list of chained rules begins
# zone_rules : int32 (..,)
# deaf       : int64 (k, 2)  times in which nobody listened, sorted
# clock      : int64 (2,)    the watermark up to which silence counts; where the calendars end
World = namedtuple(  # noqa: PYI024 - numba wants no types here
    "World",
    "devices due_us duties pairs opens used free rules cal_start edges zone_start zone_rules deaf clock",
)

# out, when : VIOLATION (m,), int64 (m,)  rows said and the time of what they say
# moves     : TRANSITION (m,);  crosses: CROSSING (m,)
# count     : int64 (3,)  rows in out, moves, crosses
Said = namedtuple("Said", "out when moves crosses count")  # noqa: PYI024

# The pings of a batch, sorted by device and time, and what earlier kernels found out about each.
# device, time_us, received_us, boot, seq, lon, lat, status, battery : columns
# bits, error_mm, weight, from_lon, from_lat, gap_us    : see fixes.believe
# own_start (n+1,), own_mm      : distances to the device's private zones
# hit_start (n+1,), hit_zone, hit_mm : zones in reach
# cut_start (n+1,), cut_zone    : zones that the track since the last fix touches
Batch = namedtuple(  # noqa: PYI024
    "Batch",
    "device time_us received_us boot seq lon lat status battery bits error_mm weight from_lon from_lat "
    "gap_us own_start own_mm hit_start hit_zone hit_mm cut_start cut_zone",
)


@njit(**PLAIN)
def _window_at(world, calendar, t):
    start, stop = world.cal_start[calendar], world.cal_start[calendar + 1]
    low, high = start, stop
    while low < high:  # the first edge past t
        middle = (low + high) // 2
        if world.edges[middle] <= t:
            low = middle + 1
        else:
            high = middle
    if (low - start) & 1:
        return world.edges[low - 1], world.edges[low]
    if low >= stop:
        return FAR_FUTURE, FAR_FUTURE
    return world.edges[low], world.edges[low + 1]


@njit(**PLAIN)
def window_of(world, duty, t):
    """The window of a duty that holds t, else the next one: (begin, end). FAR_FUTURE twice: none."""
    begin, end = _window_at(world, duty.calendar, t)
    if begin >= duty.until_us or t >= duty.until_us:
        return FAR_FUTURE, FAR_FUTURE
    return begin, min(end, duty.until_us)


@njit(**PLAIN)
def silent_until(world, last_us, within_us):
    """When a device last heard at last_us has been silent for within_us, less the time nobody listened."""
    due = last_us + within_us
    for k in range(len(world.deaf)):
        begin = max(world.deaf[k, 0], last_us)
        end = world.deaf[k, 1]
        if begin < end and due > begin:
            due += end - begin
    return due


@njit(**PLAIN)
def write_row(said, row, change, at_us):
    """Say a violation's row; at_us is the time of what it says, for the order."""
    k = said.count[0]
    said.out[k] = row
    said.out[k].change = change
    said.when[k] = at_us
    said.count[0] = k + 1


@njit(**PLAIN)
def fill_row(row, d, rule, severity, zone, opened_us, confirmed_us, ppm, depth_mm, depth_error_mm, fixes):
    """Set every field of a VIOLATION row; the id is given later, from what the row says."""
    row.violation_id = 0
    row.revision = 0
    row.change = OPENED
    row.severity = severity
    row.flags = 0
    row.device = d
    row.rule = rule
    row.zone = zone
    row.opened_us = opened_us
    row.confirmed_us = max(confirmed_us, opened_us)
    row.closed_us = NO_TIME
    row.confidence_ppm = ppm
    row.depth_mm = depth_mm
    row.depth_error_mm = depth_error_mm
    row.fixes = fixes
    row.supersedes = 0


@njit(**PLAIN)
def open_row(world, said, d, rule, zone, opened_us, confirmed_us, ppm, depth_mm, depth_error_mm, fixes):
    """Open a violation, say so, and give the row of ``opens`` that holds it."""
    k = world.free[1]
    if k != NONE:
        world.free[1] = int(world.opens[k].supersedes)
    else:
        k = int(world.used[3])
        world.used[3] += 1
    row = world.opens[k]
    fill_row(
        row,
        d,
        rule,
        world.rules[rule].severity,
        zone,
        opened_us,
        confirmed_us,
        ppm,
        depth_mm,
        depth_error_mm,
        fixes,
    )
    write_row(said, row, OPENED, confirmed_us)
    return k


@njit(**PLAIN)
def close_row(world, said, k, closed_us, at_us):
    """Close the violation in row k, say so, and free the row."""
    row = world.opens[k]
    row.revision += 1
    row.closed_us = max(closed_us, row.opened_us)
    write_row(said, row, CLOSED, at_us)
    row.device = NONE
    row.supersedes = world.free[1]
    world.free[1] = k


@njit(**PLAIN)
def transition(said, d, zone, kind, flags, time_us, confirmed_us, distance_mm, ppm):
    """Say a transition."""
    k = said.count[1]
    row = said.moves[k]
    row.device = d
    row.zone = zone
    row.kind = kind
    row.flags = flags
    row.time_us = time_us
    row.confirmed_us = confirmed_us
    row.distance_mm = distance_mm
    row.confidence_ppm = ppm
    said.count[1] = k + 1
