"""Who runs where: finding, telling apart and ending processes, from /proc.

A pid alone says little: it is reused. Two things tell a process for sure. One is its pid together with
the time at which it started. The other is its working directory, compared by device and inode: a server
that we start works in its own directory and in no other, so a server found working in *this* directory is
the orphan of an earlier run, whatever files say and even where a container shows the same path.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Owner", "ProcessId", "end", "pids_working_in", "run_as", "wait_until"]

POLL_S: Final = 0.01

# One process per line would be slow and, as root without CAP_SYS_PTRACE (the default in containers), root may
# not even look at another user's working directory; that user itself may. `-ef`: same device and inode.
FIND_WORKING_IN: Final = """
for process in /proc/[0-9]*; do
    if [ "$process/cwd" -ef "$1" ]; then echo "${process#/proc/}"; fi
done
"""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process of this boot, told apart from a later one with the same pid.

    started_ticks : clock ticks from boot to the start of the process (field 22 of /proc/PID/stat)
    boot_id       : the kernel's name of this boot
    """

    pid: int
    started_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The process that has this pid now; None when there is none or it has ended (zombie)."""
        stat = _stat(pid)
        if stat is None or stat.state in "ZX":
            return None
        return cls(pid, stat.started_ticks, _boot_id())

    def runs(self) -> bool:
        """Whether this very process still runs."""
        return ProcessId.of(self.pid) == self


@dataclass(frozen=True)
class Owner:
    """As whom a server runs. ``drop`` is False for the present user."""

    uid: int
    gid: int
    drop: bool

    @classmethod
    def myself(cls) -> Owner:
        """The user that this program runs as."""
        return cls(os.geteuid(), os.getegid(), drop=False)

    @cached_property
    def name(self) -> str:
        """The user's name, or its number where it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def popen(self) -> dict[str, Any]:
        """Keyword arguments that make ``subprocess`` start a program as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.drop else {}


def run_as(owner: Owner, command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end as ``owner``, in ``/``, with a bare environment; output is captured."""
    options = {"cwd": "/", "env": bare_environment(), **options}
    if "input" not in options and "stdin" not in options:
        options["stdin"] = subprocess.DEVNULL
    return subprocess.run(  # noqa: S603 - our own command lines
        [str(part) for part in command],
        check=False,
        capture_output=True,
        text=True,
        **owner.popen,
        **options,
    )


def bare_environment() -> dict[str, str]:
    """What a server's environment holds: nothing of the caller's (PGDATA, PGOPTIONS, LC_ALL, HOME…)."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def pids_working_in(directory: Path, program: str, owner: Owner) -> list[int]:
    """The pids of ``owner``'s running processes called ``program`` whose working directory is this one."""
    found = run_as(owner, ["/bin/sh", "-c", FIND_WORKING_IN, "sh", directory])
    stats = ((int(pid), _stat(int(pid))) for pid in found.stdout.split())
    return [pid for pid, stat in stats if stat and stat.program == program and stat.state not in "ZX"]


def end(pids: Iterable[int], steps: Sequence[tuple[signal.Signals, float]]) -> bool:
    """End these processes: send each step's signal to those that are left and wait up to its seconds.

    Whether none is left. A process that takes over one of the pids meanwhile is not touched.
    """
    left = [process for pid in pids if (process := ProcessId.of(pid))]
    for number, wait_s in steps:
        for process in left:
            if process.runs():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
        if wait_until(lambda: not any(process.runs() for process in left), wait_s):
            return True
    return False


def wait_until(done: Callable[[], bool], timeout_s: float) -> bool:
    """Ask every few milliseconds until it is done; False when the time is over."""
    deadline_s = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(POLL_S)
    return True


@dataclass(frozen=True, slots=True)
class _Stat:
    program: str
    state: str
    started_ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The program's name stands in parentheses and may itself hold spaces and parentheses.
    before, _, after = text.rpartition(")")
    fields = after.split()
    return _Stat(program=before.partition("(")[2], state=fields[0], started_ticks=int(fields[19]))


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
