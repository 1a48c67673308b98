"""Topics: how they are built, and what a received one says.

A topic string is parsed once, when it is first seen; from then on a message carries its slot, a small number.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from telemetry.mqtt.patterns import DEFAULT_FORMATS, Pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from geofence import Devices

__all__ = [
    "CHECKINS",
    "ENGINE",
    "KIND_OF_FORMAT",
    "LWM2M",
    "OVERSIZE",
    "OWNTRACKS",
    "PINGS",
    "RESULTS",
    "STATUS",
    "TELTONIKA",
    "TRACCAR",
    "UNKNOWN",
    "Topics",
    "alert_topic",
    "device_topic",
    "is_device_id",
    "lane_of",
    "subscriptions",
]

# What a topic carries.
UNKNOWN: Final = 0  # not one of ours, or its device id or lane is malformed
PINGS: Final = 1
STATUS: Final = 2
RESULTS: Final = 3
CHECKINS: Final = 4
OWNTRACKS: Final = 5
ENGINE: Final = 7  # an engine's own heartbeat, which the filter for devices' status matches as well
OVERSIZE: Final = 6  # stands in for a message that was too large to take in, see telemetry.mqtt.oversize
TRACCAR: Final = 8
TELTONIKA: Final = 9
LWM2M: Final = 10

# The formats that a topic pattern of the settings can name; `pings` is binary v1 or JSON v1.
KIND_OF_FORMAT: Final = {
    "pings": PINGS,
    "owntracks": OWNTRACKS,
    "traccar": TRACCAR,
    "teltonika": TELTONIKA,
    "lwm2m": LWM2M,
}

_LEAVES: Final = {"pings": PINGS, "status": STATUS, "results": RESULTS, "checkins": CHECKINS}
_DEVICE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LANE: Final = re.compile(r"[0-9a-f]{2}")


def is_device_id(text: str) -> bool:
    """Whether this can be a device id: 1 to 64 letters, digits, ``_`` and ``-``."""
    return _DEVICE_ID.fullmatch(text) is not None


def lane_of(device_id: str) -> str:
    """The two hex digits in a device's topics: a one-byte BLAKE2b hash of its id.

    >>> lane_of("a17")
    '8d'
    """
    return blake2b(device_id.encode(), digest_size=1).hexdigest()


def device_topic(root: str, device_id: str, leaf: str) -> str:
    """``{root}/{lane}/{device_id}/{leaf}``, for example ``ringfence/v1/8d/a17/pings``."""
    return f"{root}/{lane_of(device_id)}/{device_id}/{leaf}"


def alert_topic(root: str, severity: str, device_id: str, alert_id: str) -> str:
    """``{root}/alerts/{severity}/{device_id}/{alert_id}``."""
    return f"{root}/alerts/{severity}/{device_id}/{alert_id}"


def subscriptions(root: str, formats: Mapping[str, str] = DEFAULT_FORMATS) -> list[str]:
    """The topic filters of an engine that has all lanes. formats: topic pattern -> format."""
    leaves = ("pings", "status", "results", "checkins")
    return [f"{root}/+/+/{leaf}" for leaf in leaves] + [Pattern.of(text).filter for text in formats]


class Topics:
    """An append-only table that gives each topic string a small number, its slot.

    >>> topics = Topics()
    >>> slot = topics.slot("ringfence/v1/8d/a17/pings")
    >>> topics.kind[slot] == PINGS, topics.device_id(slot), topics.names[slot]
    (True, 'a17', 'ringfence/v1/8d/a17/pings')

    It grows with the number of different topics, about 300 bytes each: the broker's access list is what keeps
    a device to its own. One thread adds to it (the session's); others may read what it has handed out.
    """

    def __init__(self, root: str = "ringfence/v1", formats: Mapping[str, str] = DEFAULT_FORMATS) -> None:
        """formats: topic pattern -> format, see KIND_OF_FORMAT; of two that fit a topic the first counts."""
        self.root = root
        self._patterns = [(Pattern.of(text), KIND_OF_FORMAT[name]) for text, name in formats.items()]
        self.names: list[str] = []
        self._slots: dict[str | bytes, int] = {}
        self._oversize: dict[int, int] = {}
        self._device_ids: list[str | None] = []
        self._kinds = np.zeros(64, np.int8)
        self._devices: Devices | None = None
        self._device_slots = np.zeros(0, np.int32)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def kind(self) -> NDArray[np.int8]:
        """int8, one for each slot: PINGS, STATUS and so on, see above."""
        return self._kinds[: len(self.names)]

    def device_id(self, slot: int) -> str | None:
        """The device that the topic names; None when it names none."""
        return self._device_ids[slot]

    def slot(self, topic: str | bytes) -> int:
        """The slot of a topic, given on first sight. Bytes that are not UTF-8 get one of kind UNKNOWN."""
        slot = self._slots.get(topic)
        if slot is not None:
            return slot
        name = topic if isinstance(topic, str) else topic.decode("utf-8", "backslashreplace")
        slot = self._slots.get(name)
        if slot is None:
            slot = self._append(name, *self._parse(name))
            self._slots[name] = slot
        self._slots[topic] = slot
        return slot

    def oversize_slot(self, slot: int) -> int:
        """The slot that stands for messages of this topic that were too large to take in."""
        found = self._oversize.get(slot)
        if found is None:
            found = self._oversize[slot] = self._append(self.names[slot], OVERSIZE, self._device_ids[slot])
        return found

    def device_slots(self, topic: NDArray[np.int32], devices: Devices) -> NDArray[np.int32]:
        """The devices' slots of many topics that name one: int32. Devices are added on first sight."""
        if self._devices is not devices:
            self._devices, self._device_slots = devices, np.zeros(0, np.int32)
        if len(self._device_slots) < len(self.names):
            grown = np.full(max(len(self.names), 2 * len(self._device_slots)), -1, np.int32)
            grown[: len(self._device_slots)] = self._device_slots
            self._device_slots = grown
        found = self._device_slots[topic]
        if (found < 0).any():
            missing, first = np.unique(topic[found < 0], return_index=True)
            for slot in missing[np.argsort(first)]:  # in order of arrival
                device_id = self._device_ids[slot]
                assert device_id is not None, f"{self.names[slot]} names no device"
                self._device_slots[slot] = devices.slot(device_id)
            found = self._device_slots[topic]
        return found

    def _append(self, name: str, kind: int, device_id: str | None) -> int:
        slot = len(self.names)
        if slot == len(self._kinds):
            grown: NDArray[Any] = np.zeros(2 * slot, np.int8)
            grown[:slot] = self._kinds
            self._kinds = grown
        self._kinds[slot] = kind
        self._device_ids.append(device_id)
        self.names.append(name)
        return slot

    def _parse(self, name: str) -> tuple[int, str | None]:
        if name.startswith(self.root + "/"):
            lane, _, rest = name[len(self.root) + 1 :].partition("/")
            device_id, _, leaf = rest.partition("/")
            if _LANE.fullmatch(lane) and is_device_id(device_id) and leaf in _LEAVES:
                return _LEAVES[leaf], device_id
            if lane == "engine" and leaf == "status":
                return ENGINE, None
        for pattern, kind in self._patterns:
            found = pattern.device_id(name)
            if found is not None and is_device_id(found):
                return kind, found
        return UNKNOWN, None
