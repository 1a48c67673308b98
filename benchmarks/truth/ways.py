"""The usual ways of judging a fix, each with its settings, over the same fixes as the engine.

=========================  ================================================================================
way                        a fix speaks for the wrong side
=========================  ================================================================================
point in polygon           when it lies there: what Tile38's fences, PostGIS triggers on ST_Contains and
                           Traccar's geofence handler do with every fix
k fixes in a row           the same, and k fixes in a row must say so
dwell of T                 the same, and fixes must go on saying so for T
accuracy circle outside    when its whole circle of accuracy lies there
Android's overlap rule     Android's own geofences, GeofenceState.java of the AOSP: inside is "distance to
                           the centre <= max(radius, accuracy)". Read for any shape: the radius is how deep
                           the zone's deepest point lies, which for a circle is the same
circle, twice              a combination that nobody is known to ship: circle outside, two fixes in a row
=========================  ================================================================================

What opens a violation closes it likewise: k fixes in a row on the lawful side, T of them, the whole circle.
That flatters the ways: one good fix among bad ones does not end a violation and begin the next.

Each way has settings, swept: the margin in metres that a fix must be past the edge, the accuracy beyond
which a fix is thrown away (Traccar's ``filter.accuracy``), the factor on the accuracy. An unknown accuracy is
kept by the filter and counts as 15 m, as in the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["SETTING", "TOLERANCE_US", "Way", "credit", "judge", "settled", "usual_ways"]

POINT: Final = 0
CIRCLE: Final = 1
ANDROID: Final = 2

SETTING: Final = np.dtype(
    [
        ("rule", "u1"),  # POINT, CIRCLE, ANDROID
        ("in_a_row", "i4"),
        ("dwell_us", "i8"),
        ("margin_m", "f4"),
        ("scale", "f4"),  # times the claimed accuracy
        ("max_accuracy_m", "f4"),
    ]
)

TOLERANCE_US: Final = 60_000_000  # one resting interval: what happens between two fixes nobody saw
MISSED: Final = -1

_MARGINS_M: Final = (-10.0, 0.0, 10.0, 20.0, 30.0, 50.0, 75.0, 100.0)
_SCALES: Final = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
_MAX_ACCURACY_M: Final = (np.inf, 100.0, 30.0)
_FAR_M: Final = 200.0
_GOOD_M: Final = 25.0
_UNKNOWN_M: Final = 15.0


@dataclass(frozen=True, slots=True)
class Way:
    """A way of judging with one setting.

    plain : the setting that the way has when nobody thinks about it
    usual : somebody ships it
    """

    name: str
    setting: str
    plain: bool
    usual: bool = True


def usual_ways() -> tuple[list[Way], NDArray[Any]]:
    """Every way with every setting: their names, and SETTING (s,)."""
    ways: list[Way] = []
    rows: list[tuple[Any, ...]] = []

    def sweep(name: str, rule: int, in_a_row: int, dwell_s: int, *, usual: bool = True) -> None:
        of_margin = rule == POINT
        for value, most in product(_MARGINS_M if of_margin else _SCALES, _MAX_ACCURACY_M):
            what = f"{value:g} m past the edge" if of_margin else f"{value:g} x accuracy"
            if np.isfinite(most):
                what += f", fixes up to {most:g} m"
            plain = value == (0.0 if of_margin else 1.0) and not np.isfinite(most)
            ways.append(Way(name, what, plain, usual))
            margin, scale = (value, 1.0) if of_margin else (0.0, value)
            rows.append((rule, in_a_row, dwell_s * 1_000_000, margin, scale, most))

    sweep("point in polygon", POINT, 1, 0)
    for k in (2, 3, 5):
        sweep(f"{k} fixes in a row", POINT, k, 0)
    for minutes in (1, 5):
        sweep(f"dwell of {minutes} min", POINT, 1, 60 * minutes)
    sweep("accuracy circle outside", CIRCLE, 1, 0)
    sweep("Android's overlap rule", ANDROID, 1, 0)
    sweep("circle outside, twice", CIRCLE, 2, 0, usual=False)
    return ways, np.array(rows, SETTING)


@njit(nogil=True, cache=True)
def credit(  # noqa: PLR0917 (columns)
    opened_us: int,
    confirmed_us: int,
    closed_us: int,
    event_from: NDArray[np.int64],
    event_to: NDArray[np.int64],
    delay_us: NDArray[np.int64],
) -> bool:
    """Hold one violation against the true events of its pair; true if it is about none of them.

    opened_us    : first fix of its stretch
    confirmed_us : the fix that opened it
    closed_us    : first fix of its end
    event_from, event_to : int64 (e,)  in order
    delay_us     : int64 (e,)  from the event's beginning to the first confirmation, MISSED; written
    """
    about_none = True
    for e in range(len(event_from)):
        if event_from[e] - TOLERANCE_US > closed_us:
            break
        if event_to[e] + TOLERANCE_US < opened_us:
            continue
        about_none = False
        if confirmed_us <= event_to[e] + TOLERANCE_US and delay_us[e] == MISSED:
            delay_us[e] = max(0, confirmed_us - event_from[e])
    return about_none


@njit(nogil=True, cache=True)
def _label(setting: Any, depth_m: float, sign: int, accuracy_m: float, inner_m: float) -> int:
    """What a fix says: 1 wrong side, -1 right side, 0 nothing, 2 thrown away."""
    if accuracy_m > setting.max_accuracy_m:
        return 2
    if accuracy_m < 0.0:
        accuracy_m = _UNKNOWN_M
    reach_m = setting.scale * accuracy_m
    if setting.rule == POINT:
        return 1 if depth_m > setting.margin_m else -1
    if setting.rule == CIRCLE:
        return 1 if depth_m > reach_m else -1 if depth_m < -reach_m else 0
    # the signed distance is depth * sign, so the distance to the centre is that plus the radius
    inside = depth_m * sign <= max(0.0, reach_m - inner_m)
    return 1 if inside == (sign < 0) else -1


@njit(nogil=True, cache=True)
def judge(  # noqa: PLR0917 (columns)
    settings: NDArray[Any],
    time_us: NDArray[np.int64],
    depth_m: NDArray[np.float32],
    accuracy_m: NDArray[np.float32],
    sign: int,
    inner_m: float,
    windows: NDArray[np.int64],
    end_us: int,
    event_from: NDArray[np.int64],
    event_to: NDArray[np.int64],
    violations: NDArray[np.int64],
    false: NDArray[np.int64],
    delay_us: NDArray[np.int64],
) -> None:
    """Judge one pair's fixes in every way.

    settings   : SETTING (s,)
    time_us    : int64 (n,)    in order
    depth_m    : float32 (n,)  past the edge, positive on the wrong side
    accuracy_m : float32 (n,)  as claimed; -1: unknown
    sign       : 1 the inside is right, -1 the inside is wrong
    inner_m    : the zone's radius
    windows    : int64 (w, 2)  when the rule is in force, in order
    end_us     : what is open then ends
    event_from, event_to : int64 (e,)
    violations, false    : int64 (s,)    counted up
    delay_us             : int64 (s, e)  written, see credit
    """
    for s in range(len(settings)):
        setting = settings[s]
        wrong = False
        run_label, run_count, run_us = 0, 0, 0
        opened_us = confirmed_us = 0
        for j in range(len(time_us) + 1):
            closed_us = -1
            if j == len(time_us):
                closed_us = end_us
            else:
                label = _label(setting, depth_m[j], sign, accuracy_m[j], inner_m)
                if label in (0, 2):
                    continue
                if label != run_label:
                    run_label, run_count, run_us = label, 0, time_us[j]
                run_count += 1
                if run_count < setting.in_a_row or time_us[j] - run_us < setting.dwell_us:
                    continue
                if not wrong and label == 1:
                    wrong, opened_us, confirmed_us = True, run_us, time_us[j]
                elif wrong and label == -1:
                    closed_us = run_us
            if not wrong or closed_us < 0:
                continue
            wrong = False
            for w in range(len(windows)):
                if windows[w, 0] >= closed_us:
                    break
                until_us = min(closed_us, windows[w, 1])
                begun_us = max(confirmed_us, windows[w, 0])
                if begun_us >= until_us:
                    continue
                violations[s] += 1
                false[s] += credit(
                    max(opened_us, windows[w, 0]), begun_us, until_us, event_from, event_to, delay_us[s]
                )


@njit(nogil=True, cache=True)
def settled(
    time_us: NDArray[np.int64],
    depth_m: NDArray[np.float32],
    accuracy_m: NDArray[np.float32],
    keep: NDArray[np.bool_],
) -> None:
    """Find the fixes without which every way comes to the same: in the middle of a long stretch far away.

    time_us, depth_m, accuracy_m : (n,)  as for judge
    keep                         : bool (n,)  written
    """
    good, since_us = 0, 0
    done = False
    for j in range(len(time_us)):
        claimed_m = accuracy_m[j] if accuracy_m[j] >= 0.0 else _UNKNOWN_M
        if depth_m[j] > -_FAR_M or depth_m[j] > -4.0 * claimed_m:
            good, done = 0, False
        keep[j] = not done
        if claimed_m <= _GOOD_M and not done and depth_m[j] <= -_FAR_M:
            if good == 0:
                since_us = time_us[j]
            good += 1
            # more than any way asks for, of fixes that no filter throws away
            done = good > 5 and time_us[j] - since_us > 400_000_000
