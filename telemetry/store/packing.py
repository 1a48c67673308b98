"""The gate into the COPY kernels: pings to the bytes of a binary COPY, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from geofence import COLUMNS, NO_TIME, Devices, Pings
from telemetry.store._kernels.copy_rows import (
    PING_BYTES,
    POSTGRES_EPOCH_US,
    count_rows,
    pack_pings,
    same_bytes,
    unpack_rows,
)
from telemetry.store._kernels.newest import (
    NOTED,
    NUMBERS,
    STATUS_BYTES,
    TIMES,
    note_newest,
    pack_status,
)
from telemetry.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

__all__ = [
    "COPY_HEADER",
    "COPY_TRAILER",
    "PING_COLUMNS",
    "READ_COLUMNS",
    "PingPacker",
    "StoredPings",
    "unpack",
]

COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
COPY_TRAILER: Final = b"\xff\xff"

PING_COLUMNS: Final = (  # in the order in which pack_pings writes them
    "fix_time, received_time, seq, batch, lat_e7, lon_e7, cell, accuracy_mm, speed_cmps, heading_cdeg, "
    "status, marks, boot, altitude_m, battery_pct, satellites, share, judged, device_id"
)

# What is read back, in this order: the text, then integers with what NULL means.
_READ: Final[tuple[tuple[str, str, str, int], ...]] = (
    *(
        (name, name.replace("_us", ""), dtype, 0 if unknown is None else unknown)
        for name, dtype, unknown in COLUMNS
        if name != "device"
    ),
    ("marks", "marks", "uint16", 0),
    ("judged", "judged", "bool", 0),
    ("batch", "batch", "int64", 0),
)
READ_COLUMNS: Final = ", ".join(["device_id", *(column for _, column, _, _ in _READ)])
PIECE_ROWS: Final = 1_024  # of a COPY at once: about what the socket's buffers hold
_UNKNOWN: Final = np.array([unknown for *_, unknown in _READ], np.int64)
_TIMES: Final = ("fix_time_us", "received_time_us")


@dataclass(frozen=True, slots=True, eq=False)
class StoredPings:
    """Pings as they were stored.

    marks  : uint16 (n,)
    judged : bool (n,)
    batch  : int64 (n,)  the batch that brought each
    """

    pings: Pings
    marks: NDArray[np.uint16]
    judged: NDArray[np.bool_]
    batch: NDArray[np.int64]

    @classmethod
    def empty(cls, devices: Devices) -> Self:
        """No pings."""
        return cls(Pings.empty(devices), np.zeros(0, np.uint16), np.zeros(0, np.bool_), np.zeros(0, np.int64))

    def take(self, index: NDArray[np.intp]) -> Self:
        """Those at ``index``, in that order."""
        return replace(
            self,
            pings=self.pings.take(index),
            marks=self.marks[index],
            judged=self.judged[index],
            batch=self.batch[index],
        )


class PingPacker:
    """Packs batches over one table of devices; remembers the bytes and the order of their ids."""

    def __init__(self) -> None:
        self._devices: Devices | None = None
        self._begin(Devices())

    def _begin(self, devices: Devices) -> None:
        self._devices = devices
        self._known = 0
        self._id_bytes = np.zeros(0, np.uint8)
        self._id_start = np.zeros(1, np.int64)
        self._rank = np.zeros(0, np.int64)
        self._ranked = 0

    def _learn(self, devices: Devices) -> None:
        """Bring what is remembered of the ids up to date."""
        if devices is not self._devices:
            self._begin(devices)
        new = devices.ids[self._known :]
        if not new:
            return
        encoded = [device_id.encode() for device_id in new]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self._id_bytes = np.concatenate([self._id_bytes, np.frombuffer(b"".join(encoded), np.uint8)])
        self._id_start = np.concatenate([self._id_start, self._id_start[-1] + np.cumsum(lengths)])
        self._known += len(new)
        if self._known > self._ranked * 1.1:
            # Sorting all ids again costs 0.1 s for 200,000, so a few new ones wait at the end: the order only
            # decides how well rows fall together in the index, not what is stored.
            ids = np.array([device_id.encode() for device_id in devices.ids])
            self._rank = np.empty(self._known, np.int64)
            self._rank[np.argsort(ids, kind="stable")] = np.arange(self._known)
            self._ranked = self._known
        else:
            self._rank = np.concatenate([self._rank, np.arange(len(self._rank), self._known)])

    def order(self, pings: Pings) -> NDArray[np.int64]:
        """The pings by device id, then fix time: int64 (n,).

        Rows that fall together in the index go in together.
        """
        self._learn(pings.devices)
        if not len(pings):
            return np.zeros(0, np.int64)
        rank, time_us = self._rank[pings.device], pings.fix_time_us
        earliest = time_us.min()
        time_bits = int(time_us.max() - earliest).bit_length()
        if time_bits + self._known.bit_length() < 63:
            # one key sorts four times as fast as two
            return np.argsort((rank << time_bits) | (time_us - earliest))
        return np.lexsort((time_us, rank))

    def pack(  # noqa: PLR0917
        self,
        pings: Pings,
        marks: NDArray[np.uint16],
        judged: NDArray[np.bool_],
        share: int,
        batch: int,
        order: NDArray[np.int64] | None = None,
    ) -> memoryview:
        """The pings as a whole binary COPY of PING_COLUMNS, sorted by device and time."""
        pieces = self.pieces(pings, marks, judged, share, batch, order)
        return memoryview(b"".join(map(bytes, pieces)))

    def pieces(  # noqa: PLR0917
        self,
        pings: Pings,
        marks: NDArray[np.uint16],
        judged: NDArray[np.bool_],
        share: int,
        batch: int,
        order: NDArray[np.int64] | None = None,
    ) -> Iterator[memoryview]:
        """The same piece by piece: the server stores one while the next is packed.

        A piece is to be used up before the next is asked for: they share their memory.
        """
        if order is None:
            order = self.order(pings)
        longest = int((self._id_start[1:] - self._id_start[:-1]).max(initial=0))
        out = np.empty(len(COPY_HEADER) + min(len(order), PIECE_ROWS) * (PING_BYTES + longest) + 2, np.uint8)
        out[: len(COPY_HEADER)] = np.frombuffer(COPY_HEADER, np.uint8)
        columns = [getattr(pings, name) for name, _, _ in COLUMNS]
        of_devices, of_batch = (self._id_bytes, self._id_start), (marks, judged, share, batch)
        end = len(COPY_HEADER)
        for begin in range(0, len(order), PIECE_ROWS):
            some = order[begin : begin + PIECE_ROWS]
            arguments = (some, *of_devices, *columns, *of_batch, out[end:])
            end += pack_pings(*arguments)
            yield out.data[:end]
            end = 0
        out[end : end + 2] = 0xFF
        yield out.data[: end + 2]

    def pack_status(
        self,
        devices: Devices,
        slots: NDArray[np.int64],
        times: NDArray[np.int64],
        numbers: NDArray[np.int32],
    ) -> memoryview:
        """Rows of ``device_status`` as a whole binary COPY of STATUS_COLUMNS, sorted by device id.

        times, numbers : as ``telemetry.store._kernels.newest`` keeps them
        """
        self._learn(devices)
        slots = slots[np.argsort(self._rank[slots])]
        size = len(slots) * STATUS_BYTES + int((self._id_start[slots + 1] - self._id_start[slots]).sum())
        out = np.empty(len(COPY_HEADER) + size + len(COPY_TRAILER), np.uint8)
        out[: len(COPY_HEADER)] = np.frombuffer(COPY_HEADER, np.uint8)
        rows = out[len(COPY_HEADER) :]
        end = len(COPY_HEADER) + pack_status(slots, self._id_bytes, self._id_start, times, numbers, rows)
        out[end : end + 2] = 0xFF
        return out.data[: end + 2]


def unpack(chunks: Iterable[Any], devices: Devices) -> StoredPings:
    """Pings from the chunks of a binary COPY of READ_COLUMNS; their ids are given slots in ``devices``."""
    buffer = np.frombuffer(b"".join(chunks), np.uint8)
    n = int(count_rows(buffer, len(COPY_HEADER)))
    values = np.empty((len(_READ), max(n, 0)), np.int64)
    start, stop, hashed = (np.empty(max(n, 0), np.int64) for _ in range(3))
    if n < 0 or unpack_rows(buffer, len(COPY_HEADER), _UNKNOWN, values, start, stop, hashed) >= 0:
        raise StoreError(
            "the database sent rows of an unknown shape; its schema is not this program's: migrate it"
        )
    columns: dict[str, NDArray[Any]] = {}
    for (name, _, dtype, _), column in zip(_READ, values, strict=True):
        columns[name] = (column + POSTGRES_EPOCH_US if name in _TIMES else column).astype(dtype)
    marks, judged, batch = (columns.pop(name) for name in ("marks", "judged", "batch"))
    device = _slots(buffer, start, stop, hashed, devices)
    return StoredPings(Pings.of(devices, device=device, **columns), marks, judged, batch)


def _slots(
    buffer: NDArray[np.uint8],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    hashed: NDArray[np.int64],
    devices: Devices,
) -> NDArray[np.int32]:
    """The slots of the ids: only one of each hash is decoded, after all of them were compared with it."""
    _, first, which = np.unique(hashed, return_index=True, return_inverse=True)
    if not same_bytes(buffer, start, stop, first[which]):
        return devices.slots([buffer[a:b].tobytes().decode() for a, b in zip(start, stop, strict=True)])
    ids = [buffer[start[i] : stop[i]].tobytes().decode() for i in first]
    return devices.slots(ids)[which] if ids else np.zeros(0, np.int32)


def warm() -> None:
    """Compile the kernels (``python -m telemetry.warm``)."""
    devices = Devices(["a"])
    pings = Pings.of(devices, device=[0], fix_time_us=[0])
    packer, marks = PingPacker(), np.zeros(1, np.uint16)
    packer.pack(pings, marks, np.zeros(1, np.bool_), 0, 0)
    times, numbers = np.full((1, TIMES), NO_TIME), np.zeros((1, NUMBERS), np.int32)
    columns = [getattr(pings, name) for name in NOTED]
    arguments = (*columns, marks, 0, times, numbers, np.zeros(1, np.bool_))
    note_newest(*arguments)
    packer.pack_status(devices, np.zeros(1, np.int64), times, numbers)
    # the rows that are read have other columns than those that are written: one of NULLs
    row = bytes([0, len(_READ) + 1, 0, 0, 0, 1, 97]) + b"\xff" * 4 * len(_READ)
    unpack([COPY_HEADER, row, COPY_TRAILER], devices)
