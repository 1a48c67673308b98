"""What a running ``ringfence up`` tells its siblings: one small file in the data directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import msgspec

from telemetry.services.datadir import write_private
from telemetry.services.processes import ProcessId

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RunningUp", "clear_state", "read_state", "write_state"]

STATE_NAME: Final = "state.json"


class RunningUp(msgspec.Struct, frozen=True, kw_only=True):
    """A running ``up``: which process it is, and its addresses with their passwords."""

    pid: int
    started_ticks: int
    boot_id: str
    mqtt_url: str
    database_url: str
    http_url: str

    @classmethod
    def of_this_process(cls, *, mqtt_url: str, database_url: str, http_url: str) -> RunningUp:
        """The state that this process should write."""
        me = ProcessId.of(os.getpid())
        if me is None:  # a process can always see itself, unless /proc is not mounted
            raise OSError("/proc does not show this process; mount /proc")
        return cls(
            pid=me.pid,
            started_ticks=me.started_ticks,
            boot_id=me.boot_id,
            mqtt_url=mqtt_url,
            database_url=database_url,
            http_url=http_url,
        )

    def runs(self) -> bool:
        """Whether the process that wrote this still runs."""
        return ProcessId(self.pid, self.started_ticks, self.boot_id).runs()


def write_state(data_dir: Path, state: RunningUp) -> None:
    """Publish the state to this user's other programs (0600: it holds passwords)."""
    write_private(data_dir / STATE_NAME, msgspec.json.format(msgspec.json.encode(state)).decode() + "\n")


def read_state(data_dir: Path) -> RunningUp | None:
    """The ``up`` that runs on this data directory; None when none does, or when this user may not know."""
    try:
        state = msgspec.json.decode((data_dir / STATE_NAME).read_bytes(), type=RunningUp)
    except (OSError, msgspec.DecodeError):
        return None
    return state if state.runs() else None


def clear_state(data_dir: Path) -> None:
    """Remove the state; twice is fine."""
    (data_dir / STATE_NAME).unlink(missing_ok=True)
