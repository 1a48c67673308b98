"""What the engine remembers: columns and tables of plain records, so that a snapshot is their bytes.

A device has one row in each device column, a row of DUTY for each rule that binds it, and a row of PAIR for
each private zone of such a rule. Rules over layers, groups or everybody keep pairs only for zones in reach:
they hang in a chain from their duty, and a pair that says no more than "far away" is let go.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from geofence.records import VIOLATION
from geofence.units import NO_ACCURACY, NO_FIX, NO_TIME, UNKNOWN_U16

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CROSSING",
    "DEVICE",
    "DUTY",
    "FAR_FUTURE",
    "NONE",
    "PAIR",
    "RULE",
    "State",
    "blank_device",
    "grown",
]

NONE: Final = -1  # no row
FAR_FUTURE: Final = 1 << 62  # nothing is due

# What is known of one zone for one device under one rule. "Wrong" is the side that breaks the rule.
PAIR: Final = np.dtype(
    [
        ("zone", "i4"),
        ("next", "i4"),  # of the chain; NONE at its end
        ("open", "i4"),  # row of the open violation; NONE
        ("belief", "i2"),  # log-odds of being on the wrong side, 1/1024
        ("wifi", "i2"),  # how much of it Wi-Fi fixes have said
        ("cell", "i2"),  # how much of it cell fixes have said
        ("mark", "i2"),  # where the current stretch began: the lowest (when wrong: highest) belief since
        ("peak", "i2"),  # the strongest belief of the stretch
        ("state", "i1"),  # UNKNOWN, RIGHT, WRONG
        ("records", "u1"),  # this pair writes the transitions of its device and zone
        ("fixes", "i4"),  # on the wrong side in this stretch
        ("depth_mm", "i4"),  # deepest point past the line in this stretch
        ("since_us", "i8"),  # first fix of the stretch that led to ``state``
        ("first_us", "i8"),  # first fix of the stretch that leads away from it; NO_TIME: there is none
        ("told_us", "i8"),  # newest opening said of it; the next one is later
        ("depth_error_mm", "i4"),  # 68 % radius of that fix
        ("last_mm", "i4"),  # signed distance at the newest fix
        ("stamp", "i4"),  # which ping of the batch brought the zone into reach; scratch
        ("stamp_mm", "i4"),  # the distance then; scratch
    ],
    align=True,
)

# One rule for one device.
DUTY: Final = np.dtype(
    [
        ("rule", "i4"),
        ("calendar", "i4"),
        ("first", "i4"),  # its private pairs: [first, stop)
        ("stop", "i4"),
        ("chain", "i4"),  # head of the pairs in reach; NONE
        ("open", "i4"),  # row of the open violation of an `inside` rule or a condition; NONE
        ("due_us", "i8"),  # when time alone may change something
        ("until_us", "i8"),  # the enrollment ends
        ("since_us", "i8"),  # condition: bad since; check_in: last verified; zones: beacon last heard
        ("told_us", "i8"),  # `inside` rule, condition: newest opening said; the next one is later
        ("fixes", "i4"),  # condition: bad pings in a row
        ("wrong", "u1"),  # condition: it is bad
        ("score", "u1"),  # plausible_movement: strikes
        ("lag", "u2"),  # clock: received time less fix time where it began to be bad, 10 s
    ],
    align=True,
)

# One device.
DEVICE: Final = np.dtype(
    [
        ("ping_us", "i8"),  # newest ping judged; NO_TIME: none yet
        ("seq", "i8"),
        ("boot", "i4"),
        ("duty", "i4"),  # its duties: [duty, duty_stop)
        ("duty_stop", "i4"),
        ("pair", "i4"),  # its private pairs: [pair, pair_stop)
        ("pair_stop", "i4"),
        ("chained", "i4"),  # how many pairs hang in chains
        ("acted_us", "i8"),  # newest deadline that changed something; older pings are late
        ("late_us", "i8"),  # oldest ping that came late and was not rejudged; NO_TIME: none
        ("fix_us", "i8"),  # the last fix that was believed
        ("lat_e7", "i4"),
        ("lon_e7", "i4"),
        ("error_mm", "i4"),
        ("source", "i2"),
        ("speed_cmps", "u2"),  # at that fix; 65535 unknown
        ("gnss_us", "i8"),  # last believed fix of each source
        ("wifi_us", "i8"),
        ("cell_us", "i8"),
        ("beacon_us", "i8"),
        ("wifi_lat", "i4"),  # to know a cached network fix by its digits
        ("wifi_lon", "i4"),
        ("cell_lat", "i4"),
        ("cell_lon", "i4"),
        ("wait_us", "i8"),  # a jump that waits for a second fix; NO_TIME: none
        ("wait_lat", "i4"),
        ("wait_lon", "i4"),
        ("wait_error_mm", "i4"),
        ("frozen", "i4"),  # GNSS fixes in a row that repeat to the digit while moving
        ("position_us", "i8"),  # newest ping with a position, believed or not; before one, the first ping
        ("battery_us", "i8"),  # when the charge was last seen to rise, or first seen
        ("battery_from", "i2"),  # the charge then, %
        ("battery_pct", "i2"),  # newest known; -1
        ("far", "i2"),  # belief about a layer's zone that was never in reach, and its network parts
        ("far_wifi", "i2"),
        ("far_cell", "i2"),
        ("known", "u1"),  # the row is in use
        ("motion", "u1"),  # what the device has said of its own movement, bits of _kernels/fixes.py
        ("judged_error_mm", "i4"),  # of the last believed fix that was judged
        ("nearest_mm", "i4"),  # at most the distance from the last believed fix to any shared zone
        ("good_lat", "i4"),  # the last believed fix of GNSS or a beacon
        ("good_lon", "i4"),
        ("good_error_mm", "i4"),  # -1: there was none
    ],
    align=True,
)

# One rule, as numbers.
RULE: Final = np.dtype(
    [
        ("kind", "i4"),  # NONE_RULE .. CHECK_IN of _kernels/kinds.py
        ("sense", "i4"),  # +1: inside is wrong; -1: outside is wrong
        ("severity", "i4"),
        ("open_log_odds", "i4"),
        ("clear_log_odds", "i4"),
        ("hysteresis_mm", "i4"),
        ("offset_mm", "i4"),
        ("above_pct", "i4"),
        ("dwell_us", "i8"),
        ("cross_us", "i8"),
        ("within_us", "i8"),
        ("grace_us", "i8"),
        ("beacon", "u1"),
        ("crossing", "u1"),
        ("records", "u1"),  # it may write transitions (a warning line may not)
        ("chained", "u1"),  # its pairs are those in reach
        ("spare", "u4"),
    ],
    align=True,
)

# A track that may have passed through a zone.
CROSSING: Final = np.dtype(
    [
        ("ping", "i8"),  # place in the sorted batch
        ("device", "i4"),
        ("rule", "i4"),
        ("zone", "i4"),
        ("distance_mm", "i4"),
        ("sure", "u1"),  # the track does touch it; else that is still to be asked
        ("records", "u1"),
        ("breaks", "u1"),  # the rule forbids crossing and was in force
    ],
    align=True,
)

_BLANK: Final = {
    "ping_us": NO_TIME,
    "seq": NONE,
    "boot": NONE,
    "acted_us": NO_TIME,
    "late_us": NO_TIME,
    "fix_us": NO_TIME,
    "lat_e7": NO_FIX,
    "lon_e7": NO_FIX,
    "error_mm": NO_ACCURACY,
    "speed_cmps": UNKNOWN_U16,
    "judged_error_mm": NO_ACCURACY,
    "good_lat": NO_FIX,
    "good_lon": NO_FIX,
    "good_error_mm": NO_ACCURACY,
    "gnss_us": NO_TIME,
    "wifi_us": NO_TIME,
    "cell_us": NO_TIME,
    "beacon_us": NO_TIME,
    "wifi_lat": NO_FIX,
    "wifi_lon": NO_FIX,
    "cell_lat": NO_FIX,
    "cell_lon": NO_FIX,
    "wait_us": NO_TIME,
    "position_us": NO_TIME,
    "battery_us": NO_TIME,
    "battery_pct": NONE,
}


def grown(table: NDArray[Any], size: int, fill: Any = 0) -> NDArray[Any]:
    """``table`` with room for ``size`` rows; new ones hold ``fill``. Doubling keeps growth linear."""
    if size <= len(table):
        return table
    bigger = np.zeros(max(size, 2 * len(table), 64), table.dtype)
    bigger[: len(table)] = table
    bigger[len(table) :] = fill
    return bigger


def blank_device() -> NDArray[Any]:
    """One row of DEVICE that knows nothing."""
    row = np.zeros(1, DEVICE)
    for name, value in _BLANK.items():
        row[name] = value
    return row


@dataclass(slots=True, eq=False)
class State:
    """All tables of one engine.

    devices : DEVICE (d,), by slot; due_us: int64 (d,), the earliest of the device's duties
    duties  : DUTY (u,), pairs: PAIR (p,), opens: VIOLATION (o,); ``used`` says how many rows hold something
    used    : int64 (5,)  devices, duties, pairs, opens are used up to here; 4: spare
    free    : int32 (2,)  heads of the free rows of pairs (by ``next``) and of opens (by ``supersedes``)
    """

    devices: NDArray[Any]
    due_us: NDArray[np.int64]
    duties: NDArray[Any]
    pairs: NDArray[Any]
    opens: NDArray[Any]
    used: NDArray[np.int64]
    free: NDArray[np.int32]

    @classmethod
    def empty(cls) -> Self:
        """Nothing known."""
        return cls(
            np.zeros(0, DEVICE),
            np.zeros(0, np.int64),
            np.zeros(0, DUTY),
            np.zeros(0, PAIR),
            np.zeros(0, VIOLATION),
            np.zeros(5, np.int64),
            np.full(2, NONE, np.int32),
        )

    def reserve(self, *, devices: int = 0, duties: int = 0, pairs: int = 0, opens: int = 0) -> None:
        """Make room for so many more rows."""
        used = self.used
        self.devices = grown(self.devices, int(used[0]) + devices, blank_device())
        self.due_us = grown(self.due_us, int(used[0]) + devices, FAR_FUTURE)
        self.duties = grown(self.duties, int(used[1]) + duties)
        self.pairs = grown(self.pairs, int(used[2]) + pairs)
        self.opens = grown(self.opens, int(used[3]) + opens)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows in use."""
        used = self.used
        tables = ((self.devices, 0), (self.due_us, 0), (self.duties, 1), (self.pairs, 2), (self.opens, 3))
        return sum(table.itemsize * int(used[i]) for table, i in tables)


assert len(fields(State)) == 7
# numpy copies no padding, so a table with some would not be bit-exact in a snapshot
assert all(sum(t[n].itemsize for n in t.names or ()) == t.itemsize for t in (PAIR, DUTY, DEVICE))
