"""The shapes that the pipeline's stages hand each other, in the order in which they appear.

Messages -> Decoded -> Admitted -> Batch. Each is columns (structure of arrays); per-item Python objects
appear only for what is rare: rejects, alerts, check-ins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from geofence import Decided, Pings
    from telemetry.mqtt.topics import Topics

__all__ = [
    "MARK_CLOCK_OFF",
    "MARK_IMPOSSIBLE_MOVEMENT",
    "MARK_LATE",
    "MARK_NAMES",
    "MARK_NOT_ENROLLED",
    "MARK_TAG_WRONG",
    "MARK_TOPIC_MISMATCH",
    "Admitted",
    "AlertChange",
    "Batch",
    "CheckIn",
    "CommandResult",
    "Decoded",
    "DeviceStatus",
    "Messages",
    "Outgoing",
    "Reject",
    "Tick",
]

# Doubts about a stored ping; a set of bits in the column `marks`.
MARK_LATE: Final = 1 << 0  # older than the device's newest judged ping
MARK_NOT_ENROLLED: Final = 1 << 1  # a roster exists and this device is not on it; not judged
MARK_TOPIC_MISMATCH: Final = 1 << 2  # topic and payload name different devices or kinds; not judged
MARK_TAG_WRONG: Final = 1 << 3  # a key is known and the tag is missing or wrong; not judged
MARK_IMPOSSIBLE_MOVEMENT: Final = (
    1 << 4
)  # faster than a vehicle since the last fix; judged, waits for a second fix
MARK_CLOCK_OFF: Final = 1 << 5  # fix time ahead of ours by more than a minute
MARK_NAMES: Final = (
    "late",
    "not_enrolled",
    "topic_mismatch",
    "tag_wrong",
    "impossible_movement",
    "clock_off",
)


@dataclass(frozen=True, slots=True, eq=False)
class Messages:
    """MQTT messages of one receive, as columns over one buffer.

    buffer           : uint8 (b,)  payload bytes, back to back or with gaps
    start, stop      : int64 (n,)  payload bounds in ``buffer``
    topic            : int32 (n,)  slot in ``topics``
    received_time_us : int64 (n,)  UTC microseconds
    acknowledge      : sends the PUBACKs of all n, on the connection that brought them (if it still
                       stands); call it once, after the commit, from any thread
    """

    topics: Topics
    buffer: NDArray[np.uint8]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    topic: NDArray[np.int32]
    received_time_us: NDArray[np.int64]
    acknowledge: Callable[[], None]

    def __len__(self) -> int:
        return len(self.start)

    def payload(self, i: int) -> bytes:
        """The bytes of message i."""
        return self.buffer[self.start[i] : self.stop[i]].tobytes()

    def payloads(self, index: NDArray[np.intp]) -> list[bytes]:
        """The bytes of many messages; five times faster than one by one."""
        if not len(index):
            return []
        start, stop = self.start[index], self.stop[index]
        first = int(start.min())
        data = self.buffer[first : int(stop.max())].tobytes()
        return [data[a:b] for a, b in zip((start - first).tolist(), (stop - first).tolist(), strict=True)]


@dataclass(frozen=True, slots=True)
class Reject:
    """Bytes that could not be taken in; a row of ``quarantine``.

    ``payload`` is what would have to be published to try again: the message, or of a list the one bad ping.
    ``reason`` is a word (``not_json``, ``out_of_range``, ``misdated``…), ``detail`` a sentence.
    """

    topic: str
    reason: str
    detail: str
    payload: bytes
    received_time_us: int


@dataclass(frozen=True, slots=True)
class CheckIn:
    """The result of a telephone, app or button check-in."""

    device_id: str
    time_us: int
    received_time_us: int
    outcome: str  # verified, failed, no_answer
    method: str  # voice, face, button


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """A device said, or its last will said for it, that it is online or offline."""

    device_id: str
    online: bool
    received_time_us: int


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a device did with a command."""

    device_id: str
    command_id: str
    done: bool  # False: refused
    detail: str
    time_us: int
    received_time_us: int


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What the payloads said.

    pings   : n pings, ``device`` from the topic
    message : int32 (n,)  the message that each came in
    marks   : uint16 (n,) doubts that decoding found (tag, mismatch)
    source  : topic and payload that, published, would bring ping i alone once more; None: not known
    """

    pings: Pings
    message: NDArray[np.int32]
    marks: NDArray[np.uint16]
    rejects: list[Reject] = field(default_factory=list)
    check_ins: list[CheckIn] = field(default_factory=list)
    statuses: list[DeviceStatus] = field(default_factory=list)
    results: list[CommandResult] = field(default_factory=list)
    source: Callable[[int], tuple[str, bytes]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Admitted:
    """What will be stored: no duplicate, nothing misdated.

    marks  : uint16 (n,) doubts, see MARK_NAMES
    judged : bool (n,)   the engine sees it
    """

    pings: Pings
    marks: NDArray[np.uint16]
    judged: NDArray[np.bool_]
    duplicates: int
    rejects: list[Reject]
    check_ins: list[CheckIn]
    statuses: list[DeviceStatus]
    results: list[CommandResult] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AlertChange:
    """One step in an alert's life, decided by the pipeline; a row of ``alert_log`` and of ``alerts``.

    rules_version : the rules by which it was decided; 0: those of the batch
    """

    alert_id: int
    change: str  # opened, updated, withdrawn
    violation_id: int
    device_id: str
    rule_id: str
    zone_id: str | None
    severity: str
    time_us: int
    sentence: str
    rules_version: int = 0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to operators; a row of ``outbox``, sent at least once, in order for each device."""

    alert_id: int
    device_id: str
    topic: str
    payload: bytes
    retain: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """How far time has come for the engine.

    watermark_us       : everything received up to then has been decided
    listening_since_us : from when on that is so without a gap; silence before then accuses nobody
    """

    watermark_us: int
    listening_since_us: int


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """All that one transaction writes. ``number`` counts up by one within a share.

    tick         : what the engine's ``tick`` was told after these pings; None: nothing
    rules_before : where the batch changes the rules, the version that held before: by it was judged what the
                   change itself decides, the first of ``decided``
    """

    share: int
    epoch: int
    number: int
    rules_version: int
    admitted: Admitted
    decided: list[Decided]
    tick: Tick | None
    alerts: list[AlertChange]
    outgoing: list[Outgoing]
    rules_before: int | None = None

    def version_of(self, decided: Decided) -> int:
        """The version of the rules by which this was decided."""
        if decided.version:
            return decided.version
        if self.rules_before is not None and decided is self.decided[0]:
            return self.rules_before
        return self.rules_version
