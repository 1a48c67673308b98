"""What a device breaks by saying nothing: no ping for too long, no check-in in a window.

Both follow from what was sent, whoever is to blame: a gap in the network, foil, a flat battery, a call that
nobody answered. The rules stand in `firmware_sim.rules`; as everywhere in the truth, no grace is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from firmware_sim.codec import KIND_PHONE
from firmware_sim.rules import CONTACT_S
from firmware_sim.windows import check_in_windows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from firmware_sim.checkin import CheckIn
    from firmware_sim.city import City
    from firmware_sim.fleet import Burst

__all__ = ["Heard", "missed_check_ins"]

_LIMIT_US: Final = CONTACT_S * 1_000_000


class Heard:
    """The newest sample that was received of each device.

    start_us : int64 (n,)  each one's first moment; nobody is silent before
    """

    def __init__(self, start_us: NDArray[np.int64]) -> None:
        self._newest_us = start_us.copy()

    def add(self, burst: Burst, time_us: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Take in what a tick sent; who is silent for too long at ``time_us``, int64 (n,): bool (n,)."""
        # a message is in order of time, and a device sends at most one in a tick
        sent_us = burst.records["time_ms"][burst.stop - 1].astype(np.int64) * 1000
        self._newest_us[burst.device] = np.maximum(self._newest_us[burst.device], sent_us)
        return np.asarray(time_us - self._newest_us > _LIMIT_US)


def missed_check_ins(
    city: City, calls: list[CheckIn], start_us: int, end_us: int
) -> list[tuple[int, int, int | None]]:
    """Device, from, until (None: it still holds), by device and time.

    A window without a verified check-in is broken from its end on, one with a failed check-in from that on;
    the next verified check-in ends it. ``calls`` are all since ``start_us``.
    """
    windows = check_in_windows(city, start_us, end_us)
    found: list[tuple[int, int, int | None]] = []
    for i in np.flatnonzero(city.kind == KIND_PHONE).tolist():
        said = [(call.time_ms * 1000, call.outcome) for call in calls if call.device == i]
        for begins_us, ends_us in windows:
            inside = {outcome for time_us, outcome in said if begins_us <= time_us <= ends_us}
            if "verified" not in inside:
                said.append((ends_us, "missed"))
        in_window = [
            (time_us, outcome)
            for time_us, outcome in sorted(said)
            if outcome != "failed" or any(a <= time_us <= b for a, b in windows)
        ]
        since_us: int | None = None
        for time_us, outcome in in_window:
            if outcome == "verified" and since_us is not None:
                found.append((i, since_us, time_us))
                since_us = None
            elif outcome in {"failed", "missed"} and since_us is None:
                since_us = time_us
        if since_us is not None:
            found.append((i, since_us, None))
    return found
