"""Which pings are judged in order, and which of their fixes are believed."""

from __future__ import annotations

import math

from numba import njit

from geofence._kernels.evidence import weight_of
from geofence._kernels.geodesy import ecef, sin_cos
from geofence._kernels.options import PLAIN

__all__ = [
    "CAME",
    "FROM_NETWORK",
    "FROZEN",
    "HAS_FIX",
    "JUMPED",
    "NETWORK",
    "TOO_GOOD",
    "USED",
    "at_most_mm",
    "believe",
    "find_late",
    "mark_runs",
    "roughly_at_most_mm",
    "sort_order",
]

# Bits that `believe` sets for each ping.
HAS_FIX = 1
USED = 2  # its fix is evidence; without it the fix waits
JUMPED = 4  # it waits because nothing moves so fast
CAME = 8  # the wearer moved on the way from the fix before to this one; both are GNSS
FROZEN = 16  # repeats to the digit while the device says it moves
TOO_GOOD = 32  # claims an accuracy that no receiver has indoors
NETWORK = 64  # Wi-Fi or cell
FROM_NETWORK = 128  # so was the fix before

NO_TIME = -(1 << 63)
NO_FIX = -(1 << 31)
SECOND_US = 1_000_000

# Floors of the 68 % radius by source (GNSS, Wi-Fi, cell, beacon), millimetres: what a receiver claims below
# it is not believed; and what is taken where it says nothing.
FLOOR_MM = (5_000, 30_000, 150_000, 3_000)
UNKNOWN_MM = (15_000, 60_000, 1_000_000, 10_000)
UNKNOWN_AT_REST_MM = 20_000  # GNSS: who does not move may be indoors; who does has the sky above

MAX_SPEED_MPS = 70.0  # 252 km/h: faster than any car on a public road
FASTEST_MPS = 350.0  # an airliner with the wind behind it
SLACK = 2.0  # times both errors, on top of it: two honest fixes differ by more once in a few hundred
E7_MM = (
    11.17  # an upper bound of one count of 1e-7 degree: of latitude at a pole, of longitude at the equator
)
TURN_E7 = 3_600_000_000
FROZEN_FIXES = 5  # so many fixes in a row equal to the digit: a moving receiver never gives them
TOO_GOOD_MM = 1_000
STATUS_MOVING = 1 << 3
STATUS_BEACON = 1 << 4

# What a device has said of its own movement.
REPORTS = 1  # it has set `moving` before, so not setting it means rest
MOVED = 2  # since the last good fix it moved, or may have: it was silent for too long to tell
HOME = 4  # the beacon was in range at the last good fix: the last believed one of GNSS or a beacon

UNKNOWN_SPEED = 65_535
MOVING_CMPS = 100  # a receiver at rest shows up to half of it, a walker more
MOVING_NEWS = 4  # for a moving receiver reflections change so much faster: a quarter of a minute is as good
STILL_NEWS = 2  # of one who stands still they stay as they are: two minutes are as good as one
SILENT_US = 600 * SECOND_US  # who was not heard for so long may have been anywhere
STILL_MM = 20_000.0  # a step or two, and the drift of a fix indoors
STEADY_US = 120 * SECOND_US  # for so long two speeds tell of the way between them
STEADY = 1.5  # times the greater of both: who slows down was faster before
WALK_CMPS = 200  # at least
STRAIGHT = 0.9  # of the way by the fix between: so straight goes what is really fast


@njit(**PLAIN)
def sort_order(device, fix_time_us, boot, seq, count, order, scratch):
    """The order by (device, fix time, boot, seq), stable; True if two pings are equal in all four.

    device      : int32 (n,)   slots below len(count)
    fix_time_us : int64 (n,);  boot: int32 (n,);  seq: int64 (n,)
    count       : int64 (d+1,) written; zero on entry
    order       : int64 (n,)   written
    scratch     : int64 (n,)   written
    """
    n = len(device)
    for i in range(n):
        count[device[i] + 1] += 1
    for d in range(len(count) - 1):
        count[d + 1] += count[d]
    for i in range(n):
        d = device[i]
        order[count[d]] = i
        count[d] += 1
    ties = False
    begin = 0
    while begin < n:
        d = device[order[begin]]
        end = begin + 1
        while end < n and device[order[end]] == d:
            end += 1
        if end - begin > 1:
            ties |= _sort_run(fix_time_us, boot, seq, order, scratch, begin, end)
        begin = end
    return ties


@njit(**PLAIN)
def _after(fix_time_us, boot, seq, a, b):
    if fix_time_us[a] != fix_time_us[b]:
        return fix_time_us[a] > fix_time_us[b]
    if boot[a] != boot[b]:
        return boot[a] > boot[b]
    return seq[a] > seq[b]


@njit(**PLAIN)
def _sort_run(fix_time_us, boot, seq, order, scratch, begin, end):
    """Merge sort, bottom up, of one device's pings; most runs are in order already and cost one look."""
    sorted_already = True
    for k in range(begin + 1, end):
        if _after(fix_time_us, boot, seq, order[k - 1], order[k]):
            sorted_already = False
            break
    width = 1
    while not sorted_already and width < end - begin:
        for low in range(begin, end, 2 * width):
            middle = min(low + width, end)
            high = min(low + 2 * width, end)
            a, b = low, middle
            for k in range(low, high):
                if a < middle and (b >= high or not _after(fix_time_us, boot, seq, order[a], order[b])):
                    scratch[k] = order[a]
                    a += 1
                else:
                    scratch[k] = order[b]
                    b += 1
        for k in range(begin, end):
            order[k] = scratch[k]
        width *= 2
    for k in range(begin + 1, end):
        if not _after(fix_time_us, boot, seq, order[k], order[k - 1]):
            return True
    return False


@njit(**PLAIN)
def find_late(device, fix_time_us, boot, seq, devices, late):
    """Which pings (sorted) are not newer than what their device's state has judged.

    late : bool (n,)  written; ``late_us`` of the device remembers the oldest
    """
    n = 0
    for i in range(len(device)):
        row = devices[device[i]]
        t = fix_time_us[i]
        older = t < row.ping_us or t <= row.acted_us
        if t == row.ping_us and t > row.acted_us:
            # equal in all three (no seq, sent again): as late, so that the order of arrival decides nothing
            older = boot[i] < row.boot or (boot[i] == row.boot and seq[i] <= row.seq)
        late[i] = older
        if older:
            n += 1
            if row.late_us == NO_TIME or t < row.late_us:
                row.late_us = t
    return n


@njit(**PLAIN)
def mark_runs(device, starts):
    """Where each device's pings begin in a sorted column; returns how many devices.

    starts : int64 (n+1,)  written: starts[k], and len(device) after the last
    """
    k = 0
    for i in range(len(device)):
        if i == 0 or device[i] != device[i - 1]:
            starts[k] = i
            k += 1
    starts[k] = len(device)
    return k


@njit(cache=True, nogil=True)
def _apart(lon_a, lat_a, lon_b, lat_b, room_mm):
    """Distance in millimetres; where a quick bound shows it to be within room_mm, that bound."""
    dlon = abs(lon_a - lon_b)
    dlat = abs(lat_a - lat_b)
    bound = E7_MM * (dlon + dlat)
    if bound <= room_mm:
        return bound
    ax, ay, az = ecef(float(lon_a), float(lat_a))
    bx, by, bz = ecef(float(lon_b), float(lat_b))
    dx, dy, dz = ax - bx, ay - by, az - bz
    return 1000.0 * math.sqrt(dx * dx + dy * dy + dz * dz)


@njit(cache=True, nogil=True)
def roughly_at_most_mm(lon_a, lat_a, lon_b, lat_b):
    """An upper bound of ``at_most_mm`` without sine or root: the triangle's two legs; 1 for rounding."""
    dlat = abs(int(lat_a) - int(lat_b))
    dlon = abs(int(lon_a) - int(lon_b))
    return E7_MM * float(dlat + min(dlon, TURN_E7 - dlon)) + 21.0


@njit(cache=True, nogil=True)
def at_most_mm(lon_a, lat_a, lon_b, lat_b):
    """An upper bound of the length of the straight track between two positions: quick, a little too long."""
    dlat = float(abs(int(lat_a) - int(lat_b)))
    dlon = abs(int(lon_a) - int(lon_b))
    dlon = float(min(dlon, TURN_E7 - dlon))
    if lat_a < 0 < lat_b or lat_b < 0 < lat_a:
        nearest = 0.0
    else:
        nearest = float(min(abs(int(lat_a)), abs(int(lat_b))))
    _, cosine = sin_cos(nearest)
    return E7_MM * math.sqrt(dlat * dlat + cosine * cosine * dlon * dlon) + 20.0


@njit(cache=True, nogil=True)
def _room_mm(elapsed_us, error_a, error_b):
    """How far apart two honest fixes may be."""
    seconds = max(1.0, elapsed_us / SECOND_US)
    return SLACK * (error_a + error_b) + 1000.0 * MAX_SPEED_MPS * seconds


@njit(**PLAIN)
def _steady_mm(elapsed_us, error_a, error_b, speed_a, speed_b, room_mm):
    """How far apart two fixes may be by the speeds that they carry; room_mm where those say nothing.

    A receiver measures speed by Doppler shift, which stays right when its position does not.
    """
    speed = max(speed_a, speed_b)
    if speed == UNKNOWN_SPEED or elapsed_us > STEADY_US or speed < MOVING_CMPS:
        return room_mm  # below MOVING_CMPS nothing shows that it measures speeds at all
    seconds = max(1.0, elapsed_us / SECOND_US)
    steady = STILL_MM + SLACK * (error_a + error_b) + 10.0 * STEADY * max(speed, WALK_CMPS) * seconds
    return min(room_mm, steady)


@njit(**PLAIN)
def _stood_still(row, status):
    """Whether the wearer has stood still since the last good fix, by what the device says of it."""
    if row.good_error_mm < 0:
        return False
    at_rest = row.motion & (REPORTS | MOVED) == REPORTS
    return at_rest or (row.motion & HOME != 0 and status & STATUS_BEACON != 0)


@njit(**PLAIN)
def _borne_out(row, t, lon, lat, error_mm):
    """Whether this fix bears out the one that waits.

    It does if the wearer can have come from there and it is nearer to there than to the last believed one; or
    if the three lie on one straight way, gone at a like speed, which may be faster than any car.
    """
    room = _room_mm(t - row.wait_us, row.wait_error_mm, error_mm)
    # 0: exact distances, they are compared with each other
    first = _apart(row.lon_e7, row.lat_e7, row.wait_lon, row.wait_lat, 0.0)
    second = _apart(row.wait_lon, row.wait_lat, lon, lat, 0.0)
    whole = _apart(row.lon_e7, row.lat_e7, lon, lat, 0.0)
    if second <= room and second < whole:
        return True
    first_us, second_us = row.wait_us - row.fix_us, t - row.wait_us
    if first_us <= 0 or second_us <= 0 or whole < STRAIGHT * (first + second):
        return False
    a, b = first / first_us, second / second_us  # mm in a microsecond: km/s
    return max(a, b) <= FASTEST_MPS / 1000.0 and a <= 2.0 * b and b <= 2.0 * a


@njit(**PLAIN)
def believe(
    device,
    fix_time_us,
    lon_e7,
    lat_e7,
    accuracy_mm,
    speed_cmps,
    status,
    devices,
    bits,
    error_mm,
    weight,
    from_lon,
    from_lat,
    gap_us,
):
    """Decide for each ping whether its fix is evidence, how good it is, and how much of it is news.

    device .. status : columns of the batch, sorted by device and time
    devices          : DEVICE    fields of fixes are read and written
    bits             : uint8 (n,)  written: HAS_FIX .. FROM_NETWORK
    error_mm         : int32 (n,)  written: floored 68 % radius; -1 without a fix
    weight           : int32 (n,)  written: 0..1024
    from_lon, from_lat : int32 (n,)  written: the last believed fix before this one; NO_FIX: none
    gap_us           : int64 (n,)  written: time since that fix
    """
    for i in range(len(device)):
        row = devices[device[i]]
        bits[i] = 0
        error_mm[i] = -1
        weight[i] = 0
        from_lon[i] = row.lon_e7
        from_lat[i] = row.lat_e7
        t = fix_time_us[i]
        gap_us[i] = t - row.fix_us if row.fix_us != NO_TIME else 0
        tells_speed = speed_cmps[i] != UNKNOWN_SPEED
        moves = tells_speed and speed_cmps[i] >= MOVING_CMPS
        heard_us = fix_time_us[i - 1] if i > 0 and device[i - 1] == device[i] else row.ping_us
        if status[i] & STATUS_MOVING:
            row.motion |= REPORTS | MOVED
        elif moves:
            row.motion |= MOVED
        elif heard_us == NO_TIME or t - heard_us > SILENT_US:
            row.motion |= MOVED
        if lat_e7[i] == NO_FIX or lon_e7[i] == NO_FIX:
            continue
        flags = HAS_FIX
        if row.source == 1 or row.source == 2:
            flags |= FROM_NETWORK
        source = (status[i] >> 8) & 3
        error = accuracy_mm[i]
        if error < 0:
            error = UNKNOWN_AT_REST_MM if source == 0 and tells_speed and not moves else UNKNOWN_MM[source]
        elif error < FLOOR_MM[source]:
            if source == 0 and error < TOO_GOOD_MM and status[i] & STATUS_BEACON:
                flags |= TOO_GOOD
            error = FLOOR_MM[source]
        error_mm[i] = error
        lon, lat = lon_e7[i], lat_e7[i]

        if source == 0 and status[i] & STATUS_MOVING and lon == row.lon_e7 and lat == row.lat_e7:
            row.frozen = min(row.frozen + 1, 1_000)
            if row.frozen >= FROZEN_FIXES:
                flags |= FROZEN
        else:
            row.frozen = 0

        still = False
        if row.fix_us != NO_TIME:
            elapsed_us = t - row.fix_us
            room = _room_mm(elapsed_us, row.error_mm, error)
            near = _steady_mm(elapsed_us, row.error_mm, error, row.speed_cmps, speed_cmps[i], room)
            apart = _apart(row.lon_e7, row.lat_e7, lon, lat, near)
            plausible = apart <= near
            still = _stood_still(row, status[i])
            if still and plausible:
                near = STILL_MM + SLACK * (row.good_error_mm + error)
                plausible = _apart(row.good_lon, row.good_lat, lon, lat, near) <= near
            if row.wait_us != NO_TIME:
                # who stands still was not carried off by what a network says, however often it says so
                if not (still and (source == 1 or source == 2)) and _borne_out(row, t, lon, lat, error):
                    plausible = True
                row.wait_us = NO_TIME
            if not plausible:
                row.wait_us = t
                row.wait_lon = lon
                row.wait_lat = lat
                row.wait_error_mm = error
                bits[i] = flags if apart <= room else flags | JUMPED
                continue

        repeated = False
        faster, slower = 1, 1
        if source == 1:
            flags |= NETWORK
            last_us = row.wifi_us
            repeated = lon == row.wifi_lon and lat == row.wifi_lat
            row.wifi_us, row.wifi_lon, row.wifi_lat = t, lon, lat
        elif source == 2:
            flags |= NETWORK
            last_us = row.cell_us
            repeated = lon == row.cell_lon and lat == row.cell_lat
            row.cell_us, row.cell_lon, row.cell_lat = t, lon, lat
        elif source == 0:
            last_us = row.gnss_us
            row.gnss_us = t
            follows = row.source == 0 and row.fix_us != NO_TIME and gap_us[i] <= STEADY_US
            moved = follows and row.speed_cmps != UNKNOWN_SPEED and row.speed_cmps >= MOVING_CMPS
            if moved or (follows and moves):
                flags |= CAME
            if moves or moved:
                faster = MOVING_NEWS
            elif still:
                slower = STILL_NEWS
        else:
            last_us = row.beacon_us
            row.beacon_us = t
        weight[i] = weight_of(faster * (t - last_us) // slower, repeated) if last_us != NO_TIME else 1024
        row.fix_us, row.lon_e7, row.lat_e7, row.error_mm, row.source = t, lon, lat, error, source
        row.speed_cmps = speed_cmps[i]
        if source == 0 or source == 3:
            row.good_lon, row.good_lat, row.good_error_mm = lon, lat, error
            row.motion = row.motion & REPORTS | (HOME if status[i] & STATUS_BEACON else 0)
        bits[i] = flags | USED
