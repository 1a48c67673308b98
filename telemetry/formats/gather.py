"""Where the formats put what they find; one place decides order, devices and marks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence.pings import COLUMNS
from telemetry.columns import CheckIn, CommandResult, DeviceStatus, Messages, Reject

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["FIX_COLUMNS", "Gathered", "Part"]

FIX_COLUMNS: Final = tuple(c for c in COLUMNS if c[0] not in {"device", "received_time_us"})


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Pings that one format decoded.

    columns : the columns of Pings but device and received_time_us, each (n,)
    message : int32 (n,)   the message that each came in
    record  : int32 (n,)   its position in that message, as ``excerpt`` of the format counts
    """

    columns: dict[str, NDArray[Any]]
    message: NDArray[np.int32]
    record: NDArray[np.int32]


@dataclass(slots=True, eq=False)
class Gathered:
    """What is found in one batch of messages.

    keys  : the key of a device, None where it has none
    marks : uint16 (messages,)  doubts about a whole message
    """

    messages: Messages
    keys: Callable[[str], bytes | None]
    marks: NDArray[np.uint16]
    parts: list[Part] = field(default_factory=list)
    rejects: list[tuple[int, Reject]] = field(default_factory=list)  # with the message's index, for the order
    check_ins: list[CheckIn] = field(default_factory=list)
    statuses: list[DeviceStatus] = field(default_factory=list)
    results: list[CommandResult] = field(default_factory=list)

    def with_key(self, index: NDArray[np.intp]) -> NDArray[np.intp]:
        """Those of the messages at ``index`` whose device has a key."""
        slots, where = np.unique(self.messages.topic[index], return_inverse=True)
        ids = (self.messages.topics.device_id(slot) for slot in slots.tolist())
        has_key = np.array([i is not None and self.keys(i) is not None for i in ids], np.bool_)
        return index[has_key[where]]

    def topic(self, message: int) -> str:
        """The topic of a message."""
        return self.messages.topics.names[int(self.messages.topic[message])]

    def device_id(self, message: int) -> str:
        """The device that a message's topic names."""
        device_id = self.messages.topics.device_id(int(self.messages.topic[message]))
        assert device_id is not None, f"{self.topic(message)} names no device"
        return device_id

    def received_us(self, message: int) -> int:
        """When a message was received."""
        return int(self.messages.received_time_us[message])

    def reject(self, message: int, reason: str, detail: str, payload: bytes | None = None) -> None:
        """Set a message aside; or, with ``payload``, a part of it."""
        self.rejects.append(
            (
                message,
                Reject(
                    topic=self.topic(message),
                    reason=reason,
                    detail=detail,
                    payload=self.messages.payload(message) if payload is None else payload,
                    received_time_us=self.received_us(message),
                ),
            )
        )
