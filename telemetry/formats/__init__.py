"""Payloads to columns. Each format is a module; what a topic carries says which one reads it.

Nothing here raises for what a device sent: what can't be read becomes a Reject with a reason and a sentence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from geofence import Pings
from telemetry.columns import MARK_TAG_WRONG, Decoded
from telemetry.formats import binary_v1, json_v1, lwm2m, owntracks, teltonika, traccar
from telemetry.formats.gather import FIX_COLUMNS, Gathered, Part
from telemetry.formats.notices import (
    decode_check_ins,
    decode_oversize,
    decode_results,
    decode_statuses,
    decode_unknown,
    pass_over,
)
from telemetry.mqtt.topics import (
    CHECKINS,
    ENGINE,
    LWM2M,
    OVERSIZE,
    OWNTRACKS,
    PINGS,
    RESULTS,
    STATUS,
    TELTONIKA,
    TRACCAR,
    UNKNOWN,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from geofence import Devices
    from telemetry.columns import Messages

__all__ = ["FORMATS", "decode"]

_BINARY: Final = 100  # not a kind of topic: pings whose first byte says that they are binary

# What reads the messages of each kind of topic.
FORMATS: Final[dict[int, Callable[[Gathered, NDArray[np.intp]], None]]] = {
    PINGS: json_v1.decode,
    _BINARY: binary_v1.decode,
    OWNTRACKS: owntracks.decode,
    TRACCAR: traccar.decode,
    TELTONIKA: teltonika.decode,
    LWM2M: lwm2m.decode,
    STATUS: decode_statuses,
    RESULTS: decode_results,
    CHECKINS: decode_check_ins,
    OVERSIZE: decode_oversize,
    ENGINE: pass_over,
    UNKNOWN: decode_unknown,
}

# How to cut one ping out of a message.
_EXCERPTS: Final[dict[int, Callable[[Gathered, int, int], bytes]]] = {
    PINGS: json_v1.excerpt,
    _BINARY: binary_v1.excerpt,
    OWNTRACKS: owntracks.excerpt,
    TRACCAR: traccar.excerpt,
    TELTONIKA: teltonika.excerpt,
    LWM2M: lwm2m.excerpt,
}


def decode(messages: Messages, devices: Devices, keys: Callable[[str], bytes | None]) -> Decoded:
    """What the payloads say, in the order of the messages.

    keys : the key for tags of a device; None where it has none. With one, what lacks the right tag is marked.
    """
    found = Gathered(messages, keys, np.zeros(len(messages), np.uint16))
    kind = _kinds(messages)
    for code in np.unique(kind).tolist():
        FORMATS[code](found, np.flatnonzero(kind == code))
    part = _join(found)
    _mark_untagged(found, kind)
    message = part.message

    def source(i: int) -> tuple[str, bytes]:
        m = int(message[i])
        return found.topic(m), _EXCERPTS[int(kind[m])](found, m, int(part.record[i]))

    found.rejects.sort(key=lambda reject: reject[0])
    return Decoded(
        pings=Pings(
            devices=devices,
            device=messages.topics.device_slots(messages.topic[message], devices),
            received_time_us=messages.received_time_us[message],
            **part.columns,
        ),
        message=message,
        marks=found.marks[message],
        rejects=[reject for _, reject in found.rejects],
        check_ins=found.check_ins,
        statuses=found.statuses,
        results=found.results,
        source=source,
    )


def _kinds(messages: Messages) -> NDArray[np.int16]:
    """The kind of each message's topic; binary pings apart."""
    kind = messages.topics.kind[messages.topic].astype(np.int16)
    pings = np.flatnonzero((kind == PINGS) & (messages.stop > messages.start))
    binary = messages.buffer[messages.start[pings]] == binary_v1.FIRST_BYTE
    kind[pings[binary]] = _BINARY
    return kind


def _join(found: Gathered) -> Part:
    """All parts as one, in the order of the messages."""
    nothing = Part(
        {name: np.zeros(0, dtype) for name, dtype, _ in FIX_COLUMNS},
        np.zeros(0, np.int32),
        np.zeros(0, np.int32),
    )
    parts = found.parts or [nothing]
    if len(parts) == 1:
        return parts[0]
    message = np.concatenate([part.message for part in parts])
    order = np.argsort(message, kind="stable")
    return Part(
        {name: np.concatenate([part.columns[name] for part in parts])[order] for name, _, _ in FIX_COLUMNS},
        message[order],
        np.concatenate([part.record for part in parts])[order],
    )


def _mark_untagged(found: Gathered, kind: NDArray[np.int16]) -> None:
    """A device with a key must tag its messages, and only the binary format can."""
    untagged = np.flatnonzero(np.isin(kind, [code for code in _EXCERPTS if code != _BINARY]))
    found.marks[found.with_key(untagged)] |= MARK_TAG_WRONG
