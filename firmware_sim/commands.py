"""Commands from the control room: JSON in, a change to the device, JSON out.

``{"id": "c1", "command": "locate"}`` takes and sends a fix at once; ``set_interval`` (``seconds``: 5 to
3600, and ``mode``: ``moving`` or ``resting``, left out: both) changes the sampling; ``vibrate`` is felt by
whoever wears the device, and most of them answer with the button; ``message`` is done by doing nothing. All
else is refused, with the reason.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from firmware_sim.codec import rfc3339

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["obey"]

_MIN_INTERVAL_S: Final = 5
_MAX_INTERVAL_S: Final = 3600


def obey(payload: bytes, device: NDArray[Any], now_ms: int) -> bytes | None:
    """Carry out one command on a DEVICE (1,) view; the result's payload, None where no id can be answered."""
    try:
        command = json.loads(payload)
    except ValueError:
        return None
    if not isinstance(command, dict) or not isinstance(command.get("id"), (str, int)):
        return None
    refusal = _do(command, device)
    result: dict[str, Any] = {
        "id": command["id"],
        "result": "refused" if refusal else "done",
        "time": rfc3339(now_ms),
    }
    if refusal:
        result["reason"] = refusal
    return json.dumps(result, separators=(",", ":")).encode()


def _do(command: dict[str, Any], device: NDArray[Any]) -> str | None:
    """Change the device; the reason why not, if not."""
    match command.get("command"):
        case "locate":
            device["asked"] = 1
        case "vibrate":
            device["vibrates"] = 1
        case "message":
            pass
        case "set_interval":
            seconds, mode = command.get("seconds"), command.get("mode")
            if type(seconds) is not int or not _MIN_INTERVAL_S <= seconds <= _MAX_INTERVAL_S:
                return f"seconds must be an integer from {_MIN_INTERVAL_S} to {_MAX_INTERVAL_S}"
            if mode not in {None, "moving", "resting"}:
                return 'mode must be "moving" or "resting"'
            for name in ("moving", "resting") if mode is None else (mode,):
                device[f"{name}_s"] = seconds
                device[f"upload_{name}_s"] = max(seconds, int(device[f"upload_{name}_s"][0]))
            device["next_sample_s"] = 0
        case unknown:
            return f"unknown command {unknown!r}"
    return None
