"""Pings as columns: the one shape in which positions travel from decoding to the store."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from geofence.errors import PingError
from geofence.units import NO_ACCURACY, NO_FIX, NO_SEQ, UNKNOWN_I16, UNKNOWN_U8, UNKNOWN_U16

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = [
    "BEACON_IN_RANGE",
    "BUFFERED",
    "BUTTON",
    "CASE_OPEN",
    "CHARGING",
    "COLUMNS",
    "JAMMING",
    "MOVING",
    "SOURCES",
    "SOURCE_MASK",
    "SOURCE_SHIFT",
    "STATUS_NAMES",
    "STRAP_OPEN",
    "Devices",
    "Pings",
]

# Bits of the status column, as in binary v1.
STRAP_OPEN: Final = 1 << 0
CASE_OPEN: Final = 1 << 1
CHARGING: Final = 1 << 2
MOVING: Final = 1 << 3
BEACON_IN_RANGE: Final = 1 << 4
JAMMING: Final = 1 << 5
BUTTON: Final = 1 << 6
BUFFERED: Final = 1 << 7
SOURCE_SHIFT: Final = 8
SOURCE_MASK: Final = 3 << SOURCE_SHIFT

STATUS_NAMES: Final = (
    "strap_open",
    "case_open",
    "charging",
    "moving",
    "beacon_in_range",
    "jamming",
    "button",
    "buffered",
)
SOURCES: Final = ("gnss", "wifi", "cell", "beacon")

# name, dtype, value that means "unknown" (None: the column is required)
COLUMNS: Final[tuple[tuple[str, str, int | None], ...]] = (
    ("device", "int32", None),
    ("fix_time_us", "int64", None),
    ("received_time_us", "int64", None),
    ("boot", "int32", NO_SEQ),
    ("seq", "int64", NO_SEQ),
    ("lat_e7", "int32", NO_FIX),
    ("lon_e7", "int32", NO_FIX),
    ("accuracy_mm", "int32", NO_ACCURACY),
    ("speed_cmps", "uint16", UNKNOWN_U16),
    ("heading_cdeg", "uint16", UNKNOWN_U16),
    ("altitude_m", "int16", UNKNOWN_I16),
    ("status", "uint16", 0),
    ("battery_pct", "uint8", UNKNOWN_U8),
    ("satellites", "uint8", UNKNOWN_U8),
)


class Devices:
    """An append-only table that gives each device id a small number, its slot.

    >>> devices = Devices(["a17"])
    >>> devices.slot("b2"), devices.slot("a17"), devices.ids
    (1, 0, ['a17', 'b2'])
    """

    __slots__ = ("_slots", "ids")

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self.ids: list[str] = []
        self._slots: dict[str, int] = {}
        for device_id in ids:
            self.slot(device_id)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, device_id: object) -> bool:
        return device_id in self._slots

    def slot(self, device_id: str) -> int:
        """The slot of a device, given on first sight."""
        slot = self._slots.get(device_id)
        if slot is None:
            slot = self._slots[device_id] = len(self.ids)
            self.ids.append(device_id)
        return slot

    def slots(self, device_ids: Sequence[str]) -> NDArray[np.int32]:
        """The slots of many devices: int32, one for each id."""
        return np.fromiter((self.slot(i) for i in device_ids), np.int32, len(device_ids))


@dataclass(frozen=True, slots=True, eq=False)
class Pings:
    """A batch of pings, structure of arrays; every column has the same length n.

    device           int32   slot in ``devices``
    fix_time_us      int64   UTC microseconds, the device's clock
    received_time_us int64   UTC microseconds, ours
    boot, seq        int32, int64; -1 where the format has none
    lat_e7, lon_e7   int32   1e-7 degree; both INT32_MIN: no fix
    accuracy_mm      int32   68 % horizontal radius; -1 unknown
    speed_cmps       uint16  65535 unknown
    heading_cdeg     uint16  0..35999 clockwise from north; 65535 unknown
    altitude_m       int16   -32768 unknown
    status           uint16  bits, see STATUS_NAMES; bits 8-9 index SOURCES
    battery_pct      uint8   255 unknown
    satellites       uint8   255 unknown
    """

    devices: Devices
    device: NDArray[np.int32]
    fix_time_us: NDArray[np.int64]
    received_time_us: NDArray[np.int64]
    boot: NDArray[np.int32]
    seq: NDArray[np.int64]
    lat_e7: NDArray[np.int32]
    lon_e7: NDArray[np.int32]
    accuracy_mm: NDArray[np.int32]
    speed_cmps: NDArray[np.uint16]
    heading_cdeg: NDArray[np.uint16]
    altitude_m: NDArray[np.int16]
    status: NDArray[np.uint16]
    battery_pct: NDArray[np.uint8]
    satellites: NDArray[np.uint8]

    def __post_init__(self) -> None:
        n = len(self.device)
        for name, dtype, _ in COLUMNS:
            column = getattr(self, name)
            if column.dtype != dtype or column.shape != (n,):
                raise PingError(
                    f"column {name} is {column.dtype}{column.shape}; it must be {dtype}({n},); "
                    "build batches with Pings.of, which converts and fills in"
                )

    def __len__(self) -> int:
        return len(self.device)

    @classmethod
    def of(cls, devices: Devices, **columns: object) -> Self:
        """Build a batch from the columns that are known; the others are filled with "unknown".

        ``device`` and ``fix_time_us`` are required; ``received_time_us`` defaults to the fix time.
        """
        n = len(np.asarray(columns["device"]))
        columns.setdefault("received_time_us", columns["fix_time_us"])
        filled = {
            name: np.full(n, unknown, dtype)
            if name not in columns
            else np.ascontiguousarray(columns.pop(name), dtype)
            for name, dtype, unknown in COLUMNS
        }
        if columns:
            raise PingError(f"no such column: {', '.join(sorted(columns))}")
        return cls(devices=devices, **filled)

    @classmethod
    def empty(cls, devices: Devices) -> Self:
        """A batch of none."""
        return cls.of(devices, device=[], fix_time_us=[])

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Self:
        """The pings at ``index`` (positions, mask or slice), in that order."""
        return replace(self, **{name: getattr(self, name)[index] for name, _, _ in COLUMNS})

    @classmethod
    def concat(cls, batches: Sequence[Self]) -> Self:
        """Batches over one device table, one after the other."""
        first = batches[0]
        if any(batch.devices is not first.devices for batch in batches):
            raise PingError("batches over different device tables can't be joined")
        return cls(
            devices=first.devices,
            **{name: np.concatenate([getattr(b, name) for b in batches]) for name, _, _ in COLUMNS},
        )


assert tuple(f.name for f in fields(Pings))[1:] == tuple(name for name, _, _ in COLUMNS)
