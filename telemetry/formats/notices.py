"""What is no ping: online and offline, results of commands, check-ins, and messages too large to take in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from telemetry.columns import CheckIn, CommandResult, DeviceStatus
from telemetry.dating import misdated
from telemetry.formats.reading import Moment, Unreadable, read, time_us
from telemetry.mqtt.oversize import MAX_PAYLOAD_BYTES, Oversize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from telemetry.formats.gather import Gathered

__all__ = [
    "CHECK_IN_PAYLOAD",
    "RESULT_PAYLOAD",
    "STATUS_PAYLOAD",
    "decode_check_ins",
    "decode_oversize",
    "decode_results",
    "decode_statuses",
    "decode_unknown",
    "pass_over",
]

_State = Literal["online", "offline"]


class _Status(msgspec.Struct):
    state: _State


class _Result(msgspec.Struct):
    id: str | int
    result: Literal["done", "refused"]
    time: Moment
    reason: str = ""


class _CheckIn(msgspec.Struct):
    time: Moment
    outcome: Literal["verified", "failed", "no_answer"]
    method: Literal["voice", "face", "button"]


STATUS_PAYLOAD: Final = _State | _Status
RESULT_PAYLOAD: Final = _Result
CHECK_IN_PAYLOAD: Final = _CheckIn

_status: Final = msgspec.json.Decoder(STATUS_PAYLOAD)
_result: Final = msgspec.json.Decoder(RESULT_PAYLOAD)
_check_in: Final = msgspec.json.Decoder(CHECK_IN_PAYLOAD)


def decode_statuses(found: Gathered, index: NDArray[np.intp]) -> None:
    """``"online"``, ``"offline"`` (also without quotes, as many write it), or an object with ``state``."""
    for m in index.tolist():
        payload = found.messages.payload(m)
        try:
            said = read(_status, b'"%s"' % payload if payload in {b"online", b"offline"} else payload)
        except Unreadable as problem:
            found.reject(m, problem.reason, problem.detail)
            continue
        state = said.state if isinstance(said, _Status) else said
        found.statuses.append(DeviceStatus(found.device_id(m), state == "online", found.received_us(m)))


def decode_results(found: Gathered, index: NDArray[np.intp]) -> None:
    """What a device did with a command."""
    for m in index.tolist():
        try:
            said = read(_result, found.messages.payload(m))
        except Unreadable as problem:
            found.reject(m, problem.reason, problem.detail)
            continue
        found.results.append(
            CommandResult(
                device_id=found.device_id(m),
                command_id=str(said.id),
                done=said.result == "done",
                detail=said.reason,
                time_us=time_us(said.time),
                received_time_us=found.received_us(m),
            )
        )


def decode_check_ins(found: Gathered, index: NDArray[np.intp]) -> None:
    """The results of telephone, app and button check-ins."""
    for m in index.tolist():
        try:
            said = read(_check_in, found.messages.payload(m))
            wrong = misdated(time_us(said.time), found.received_us(m))
            if wrong is not None:
                raise Unreadable("misdated", wrong)  # noqa: TRY301 - one place rejects
        except Unreadable as problem:
            found.reject(m, problem.reason, problem.detail)
            continue
        found.check_ins.append(
            CheckIn(
                device_id=found.device_id(m),
                time_us=time_us(said.time),
                received_time_us=found.received_us(m),
                outcome=said.outcome,
                method=said.method,
            )
        )


def decode_oversize(found: Gathered, index: NDArray[np.intp]) -> None:
    """Set aside what was kept of a message that was too large."""
    for m in index.tolist():
        kept = Oversize.unpack(found.messages.payload(m))
        detail = (
            f"the message has {kept.length} bytes, more than {MAX_PAYLOAD_BYTES}; "
            f"its first {len(kept.prefix)} are kept, and its SHA-256 is {kept.sha256.hex()}"
        )
        found.reject(m, "too_large", detail, kept.prefix)


def decode_unknown(found: Gathered, index: NDArray[np.intp]) -> None:
    """Set aside what came on a topic that is none of ours."""
    for m in index.tolist():
        detail = "the topic names no device or kind, as {root}/{lane}/{device}/pings does"
        found.reject(m, "unknown_topic", detail)


def pass_over(_found: Gathered, _index: NDArray[np.intp]) -> None:
    """What an engine says of itself is not for an engine."""
