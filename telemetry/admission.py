"""Admission: copies are dropped, impossible times set aside, doubts marked; all else goes on.

A ping is a copy when its device, boot, seq and fix time were admitted before; where its format has no seq,
when its device, fix time and position were. The newest 16 keys of each device are kept here, compared whole.
What is older than they cover is looked up in the store, so the answer is exact however late a copy comes. A
forged ping does not stand in the way of the true one: what is marked as tag_wrong or topic_mismatch is
compared only with its like.

Memory: 441 bytes for each device, whatever it sends. The snapshot keeps 48 bytes of a device and no keys: all
that was admitted before it is in the store.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from geofence.units import NO_ACCURACY, NO_FIX, NO_SEQ, NO_TIME
from telemetry._kernels import window as kernel
from telemetry.columns import (
    MARK_CLOCK_OFF,
    MARK_IMPOSSIBLE_MOVEMENT,
    MARK_NOT_ENROLLED,
    MARK_TAG_WRONG,
    MARK_TOPIC_MISMATCH,
    Admitted,
    Reject,
)
from telemetry.dating import CLOCK_OFF_US, MAX_AHEAD_US, MAX_BEHIND_US, misdated
from telemetry.formats.json_v1 import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from geofence import Devices, Pings
    from telemetry.columns import CheckIn, Decoded

__all__ = ["Admission", "AdmissionError"]

MAX_SPEED_MPS: Final = 100.0  # 360 km/h: no car and few trains; an aeroplane is worth a mark
UNKNOWN_RADIUS_MM: Final = 100_000  # of a fix without accuracy: as bad as a network fix
MIN_RADIUS_MM: Final = 5_000  # receivers claim less than they can keep
CHECK_INS_KEPT: Final = 4096

_UNTRUSTED: Final = MARK_TAG_WRONG | MARK_TOPIC_MISMATCH
_NOT_JUDGED: Final = _UNTRUSTED | MARK_NOT_ENROLLED
_SNAPSHOT_VERSION: Final = 1


class AdmissionError(Exception):
    """A snapshot can't be used."""


class _Snapshot(msgspec.Struct, array_like=True):
    version: int
    ids: list[str]
    newest_us: bytes
    was_us: bytes
    was_e7: bytes
    was_radius_mm: bytes
    check_ins: list[tuple[str, int, str, str]]


class Admission:
    """The way in for pings, with a memory of what came before.

    stored : says of pings whether the store has them, bool (n,); asked before anything here has changed, so
             an admission whose look-up failed can be tried again
    """

    def __init__(self, devices: Devices, stored: Callable[[Pings], NDArray[np.bool_]]) -> None:
        self._devices = devices
        self._stored = stored
        self._check_ins: OrderedDict[tuple[str, int, str, str], None] = OrderedDict()
        self._allocate(0)

    # --- admitting ------------------------------------------------------------------------------

    def admit(self, decoded: Decoded, roster_enrolled: Callable[[str, int], bool] | None) -> Admitted:
        """Take in one batch. ``roster_enrolled`` None: there is no roster, and every device is judged."""
        pings = decoded.pings
        off_us = pings.fix_time_us - pings.received_time_us
        dated = (off_us <= MAX_AHEAD_US) & (off_us >= -MAX_BEHIND_US)
        rejects = decoded.rejects + [_misdated(decoded, i) for i in np.flatnonzero(~dated).tolist()]
        marks = decoded.marks
        if not dated.all():
            pings, marks = pings.take(dated), marks[dated]
        fresh = self._fresh(pings, marks)
        duplicates = int(np.count_nonzero(~fresh))
        if duplicates:
            pings, marks = pings.take(fresh), marks[fresh]
        marks = marks.copy()
        marks[pings.fix_time_us - pings.received_time_us > CLOCK_OFF_US] |= MARK_CLOCK_OFF
        if roster_enrolled is not None:
            marks[~_enrolled(pings, roster_enrolled)] |= MARK_NOT_ENROLLED
        judged = (marks & _NOT_JUDGED) == 0
        self._note(pings, marks)
        marks[self._jumps(pings, judged)] |= MARK_IMPOSSIBLE_MOVEMENT
        check_ins = [check_in for check_in in decoded.check_ins if self._is_new(check_in)]
        return Admitted(
            pings=pings,
            marks=marks,
            judged=judged,
            duplicates=duplicates + len(decoded.check_ins) - len(check_ins),
            rejects=rejects,
            check_ins=check_ins,
            statuses=decoded.statuses,
            results=decoded.results,
        )

    def remember(
        self, pings: Pings, marks: NDArray[np.uint16] | None = None, check_ins: Sequence[CheckIn] = ()
    ) -> None:
        """Take note of what was admitted and stored before, in that order: the replay after a restart."""
        self._grow()
        marks = np.zeros(len(pings), np.uint16) if marks is None else marks
        self._note(pings, marks)
        self._jumps(pings, (marks & _NOT_JUDGED) == 0)
        for check_in in check_ins:
            self._is_new(check_in)

    def _fresh(self, pings: Pings, marks: NDArray[np.uint16]) -> NDArray[np.bool_]:
        """Which pings are no copies; changes nothing."""
        self._grow()
        verdict = np.empty(len(pings), np.uint8)
        table = np.full(1 << max(2, (2 * len(pings)).bit_length()), -1, np.int32)
        name, series = _keys(pings, marks)
        kernel.classify(
            pings.device,
            pings.fix_time_us,
            name,
            series,
            self._time_us,
            self._name,
            self._series,
            self._count,
            self._floor_us,
            table,
            verdict,
        )
        older = np.flatnonzero(verdict == kernel.OLDER)
        if len(older):
            verdict[older[self._stored(pings.take(older))]] = kernel.COPY
        fresh: NDArray[np.bool_] = verdict != kernel.COPY
        return fresh

    def _note(self, pings: Pings, marks: NDArray[np.uint16]) -> None:
        name, series = _keys(pings, marks)
        kernel.note(
            pings.device,
            pings.fix_time_us,
            name,
            series,
            self._time_us,
            self._name,
            self._series,
            self._count,
            self._floor_us,
        )
        np.maximum.at(self._newest_us, pings.device, pings.fix_time_us)

    def _jumps(self, pings: Pings, judged: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which fixes are impossible movements; the last fixes move on."""
        jumped = np.zeros(len(pings), np.bool_)
        fixes = np.flatnonzero(judged & (pings.lat_e7 != NO_FIX))
        order = fixes[np.lexsort((pings.fix_time_us[fixes], pings.device[fixes]))]
        radius_mm = np.where(pings.accuracy_mm == NO_ACCURACY, UNKNOWN_RADIUS_MM, pings.accuracy_mm)
        kernel.mark_jumps(
            order,
            pings.device,
            pings.fix_time_us,
            pings.lat_e7,
            pings.lon_e7,
            np.maximum(radius_mm, MIN_RADIUS_MM).astype(np.int32),
            MAX_SPEED_MPS,
            self._was_us,
            self._was_e7,
            self._was_radius_mm,
            jumped,
        )
        return jumped

    def _is_new(self, check_in: CheckIn) -> bool:
        key = (check_in.device_id, check_in.time_us, check_in.outcome, check_in.method)
        if key in self._check_ins:
            return False
        self._check_ins[key] = None
        if len(self._check_ins) > CHECK_INS_KEPT:
            self._check_ins.popitem(last=False)
        return True

    # --- state ----------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The state as bytes; right only once all that was admitted is stored."""
        n = min(len(self._devices), len(self._floor_us))
        state = _Snapshot(
            version=_SNAPSHOT_VERSION,
            ids=self._devices.ids[:n],
            newest_us=self._newest_us[:n].tobytes(),
            was_us=self._was_us[:n].tobytes(),
            was_e7=self._was_e7[:n].tobytes(),
            was_radius_mm=self._was_radius_mm[:n].tobytes(),
            check_ins=list(self._check_ins),
        )
        return zlib.compress(msgspec.msgpack.encode(state), 1)

    def restore(self, blob: bytes) -> None:
        """Put this admission into the state that ``snapshot`` gave; AdmissionError when it can't be read."""
        try:
            state = msgspec.msgpack.decode(zlib.decompress(blob), type=_Snapshot)
        except (zlib.error, msgspec.DecodeError) as error:
            raise AdmissionError(f"the admission snapshot is damaged ({error}); use another") from error
        if state.version != _SNAPSHOT_VERSION:
            raise AdmissionError(
                f"the admission snapshot has version {state.version}, this program reads "
                f"{_SNAPSHOT_VERSION}; run the program that wrote it"
            )
        slots = self._devices.slots(state.ids)
        n = len(slots)
        self._allocate(len(self._devices))
        self._newest_us[slots] = np.frombuffer(state.newest_us, np.int64)
        self._was_us[slots] = np.frombuffer(state.was_us, np.int64).reshape(n, 2)
        self._was_e7[slots] = np.frombuffer(state.was_e7, np.int32).reshape(n, 2, 2)
        self._was_radius_mm[slots] = np.frombuffer(state.was_radius_mm, np.int32).reshape(n, 2)
        self._floor_us[:] = self._newest_us  # the windows are empty, so the store answers for all before
        self._check_ins = OrderedDict.fromkeys(state.check_ins)

    def _grow(self) -> None:
        if len(self._devices) <= len(self._floor_us):
            return
        old = self._arrays()
        self._allocate(max(len(self._devices), 2 * len(self._floor_us)))
        for was, now in zip(old, self._arrays(), strict=True):
            now[: len(was)] = was

    def _allocate(self, n: int) -> None:
        self._time_us, self._name, self._series = (np.zeros((n, kernel.WINDOW), np.int64) for _ in range(3))
        self._count = np.zeros(n, np.int8)
        self._floor_us = np.full(n, NO_TIME, np.int64)
        self._newest_us = np.full(n, NO_TIME, np.int64)
        self._was_us = np.full((n, 2), -1, np.int64)
        self._was_e7 = np.zeros((n, 2, 2), np.int32)
        self._was_radius_mm = np.zeros((n, 2), np.int32)

    def _arrays(self) -> list[NDArray[Any]]:
        return [
            self._time_us,
            self._name,
            self._series,
            self._count,
            self._floor_us,
            self._newest_us,
            self._was_us,
            self._was_e7,
            self._was_radius_mm,
        ]


def _keys(pings: Pings, marks: NDArray[np.uint16]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What with device and fix time makes the key of each ping: name and series, int64 (n,).

    With a seq the name is the seq and the series the boot; without, the name is the position. The series also
    says which of the two it is, and whether the ping can be trusted.
    """
    numbered = pings.seq != NO_SEQ
    position = pings.lat_e7.astype(np.int64) << 32 | pings.lon_e7.astype(np.int64) & 0xFFFF_FFFF
    name = np.where(numbered, pings.seq, position)
    series = np.where(numbered, pings.boot.astype(np.int64) + 2, 0) << 1
    series |= (marks & _UNTRUSTED) != 0
    return name, series


def _enrolled(pings: Pings, roster_enrolled: Callable[[str, int], bool]) -> NDArray[np.bool_]:
    """Which pings fall into their device's enrollment.

    An enrollment is one interval: a device that is enrolled at its first and last time in the batch is
    enrolled at all between, so two questions for each device usually do.
    """
    enrolled = np.zeros(len(pings), np.bool_)
    if not len(pings):
        return enrolled
    order = np.lexsort((pings.fix_time_us, pings.device))
    device, time_us = pings.device[order], pings.fix_time_us[order]
    starts = np.flatnonzero(np.diff(device, prepend=-1))
    for first, end in zip(starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
        device_id, times_us = pings.devices.ids[int(device[first])], time_us[first:end].tolist()
        if roster_enrolled(device_id, times_us[0]) and roster_enrolled(device_id, times_us[-1]):
            enrolled[order[first:end]] = True
        else:
            enrolled[order[first:end]] = [roster_enrolled(device_id, t) for t in times_us]
    return enrolled


def _misdated(decoded: Decoded, i: int) -> Reject:
    pings = decoded.pings
    received_us = int(pings.received_time_us[i])
    topic, payload = ("", encode(pings, i)) if decoded.source is None else decoded.source(i)
    detail = misdated(int(pings.fix_time_us[i]), received_us)
    assert detail is not None
    return Reject(topic, "misdated", detail, payload, received_us)
