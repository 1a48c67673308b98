"""Store and forward: a ring of records in each device's flash, and what an upload takes from it.

When the ring is full the oldest record is overwritten. The old firmware sends the oldest first; the new one
sends the newest first, so that the control room sees now before then. Records of one message share a boot
counter, as binary v1 wants.
"""

# ruff: noqa: PLR0917 (kernels take columns)

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numba import njit

from firmware_sim.codec import RECORD
from firmware_sim.device import DEVICE
from firmware_sim.power import POWER
from firmware_sim.radio import RADIO

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_PER_MESSAGE", "RING", "new_flash", "store", "upload", "warm"]

MAX_PER_MESSAGE: Final = 32  # about a kilobyte, one radio frame; a backlog takes several

RING: Final = np.dtype([("first", "i4"), ("count", "i4"), ("lost", "i8")])


def new_flash(count: int, records: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.uint16]]:
    """Empty rings: RING (count,), RECORD (count, records), boot counters uint16 (count, records)."""
    return np.zeros(count, RING), np.zeros((count, records), RECORD), np.zeros((count, records), np.uint16)


@njit(nogil=True, cache=True)
def store(
    due: NDArray[np.int32],
    records: NDArray[Any],
    devices: NDArray[Any],
    rings: NDArray[Any],
    cells: NDArray[Any],
    boots: NDArray[np.uint16],
) -> None:
    """Append one record to each ring that is due.

    due     : int32 (m,)
    records : RECORD (m,)
    devices : DEVICE (n,)
    rings   : RING (n,)       written
    cells   : RECORD (n, q)   written
    boots   : uint16 (n, q)   written
    """
    size = cells.shape[1]
    for j in range(len(due)):
        i = due[j]
        ring = rings[i]
        at = (ring.first + ring.count) % size
        cells[i, at] = records[j]
        boots[i, at] = devices[i].boot
        if ring.count == size:
            ring.first = (ring.first + 1) % size
            ring.lost += 1
        else:
            ring.count += 1


@njit(nogil=True, cache=True)
def upload(
    now_s: int,
    tick_s: int,
    oldest_first: NDArray[np.bool_],
    batteries: NDArray[Any],
    radios: NDArray[Any],
    devices: NDArray[Any],
    rings: NDArray[Any],
    cells: NDArray[Any],
    boots: NDArray[np.uint16],
    sent: NDArray[Any],
    device_of: NDArray[np.int32],
    boot_of: NDArray[np.uint16],
    offsets: NDArray[np.int64],
) -> int:
    """Take one message from each ring whose device sends now; returns how many messages.

    now_s     : UTC seconds of the tick
    tick_s    : seconds; with a backlog a device sends in every tick
    oldest_first : bool (n,)    the order of sending
    batteries : POWER (n,)
    radios    : RADIO (n,)
    devices   : DEVICE (n,)     next_upload_s, urgent written
    rings     : RING (n,)       written
    cells     : RECORD (n, q)
    boots     : uint16 (n, q)
    sent      : RECORD (>= n * MAX_PER_MESSAGE or all that is stored,)  written, oldest first in a message
    device_of : int32 (n,)      written, of each message
    boot_of   : uint16 (n,)     written, of each message
    offsets   : int64 (n + 1,)  written, message k holds sent[offsets[k]:offsets[k + 1]]
    """
    size = cells.shape[1]
    messages = 0
    out = 0
    offsets[0] = 0
    for i in range(len(devices)):
        ring = rings[i]
        device = devices[i]
        if ring.count == 0 or not radios[i].linked or not batteries[i].on:
            continue
        if now_s < device.next_upload_s and not device.urgent:
            continue
        wanted = min(ring.count, MAX_PER_MESSAGE)
        if oldest_first[i]:
            boot = boots[i, ring.first]
            taken = 0
            while taken < wanted and boots[i, (ring.first + taken) % size] == boot:
                taken += 1
            start = ring.first
            ring.first = (ring.first + taken) % size
        else:
            last = ring.first + ring.count - 1
            boot = boots[i, last % size]
            taken = 0
            while taken < wanted and boots[i, (last - taken) % size] == boot:
                taken += 1
            start = (last - taken + 1) % size
        ring.count -= taken
        for k in range(taken):
            sent[out] = cells[i, (start + k) % size]
            out += 1
        device.urgent = 0
        interval_s = device.upload_moving_s if device.in_motion else device.upload_resting_s
        device.next_upload_s = now_s + (tick_s if ring.count > 0 else interval_s)
        device_of[messages] = i
        boot_of[messages] = boot
        messages += 1
        offsets[messages] = out
    return messages


def warm() -> None:
    """Compile this module's kernels."""
    none, devices = np.zeros(0, np.int32), np.zeros(0, DEVICE)
    flash = new_flash(0, 1)
    records = np.zeros(0, RECORD)
    store(none, records, devices, *flash)
    upload(
        0,
        1,
        np.zeros(0, np.bool_),
        np.zeros(0, POWER),
        np.zeros(0, RADIO),
        devices,
        *flash,
        records,
        none,
        np.zeros(0, np.uint16),
        np.zeros(1, np.int64),
    )
