"""Looking for processes, and an ``up`` that can be killed: what the tests of the services share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from telemetry.services.postgres_home import Home

__all__ = ["KillableUp", "forget", "listening_on", "pids_inside"]

# Starts both services as `ringfence up` does, tells their URLs, and waits to be killed.
UP = """
import sys, time
from pathlib import Path
from telemetry.services import DataDirLock, EmbeddedBroker, EmbeddedPostgres
with DataDirLock(Path(sys.argv[1])) as lock:
    print(EmbeddedPostgres(lock.data_dir).start(), EmbeddedBroker(lock.data_dir).start(), flush=True)
    sys.stdin.read()
"""


def forget(data_dir: Path) -> None:
    """End whatever works in a data directory, and remove a database directory that is elsewhere."""
    homes = [data_dir]
    with suppress(FileNotFoundError):
        record = (data_dir / "postgres.json").read_bytes()
        home = (
            data_dir
            / msgspec.json.decode(record, type=Home, dec_hook=lambda kind, value: kind(value)).directory
        )
        homes += [] if home.is_relative_to(data_dir) else [home]
    for pid in pids_inside(homes):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for home in homes[1:]:
        shutil.rmtree(home)


def pids_inside(directories: list[Path]) -> list[int]:
    """The processes whose working directory lies in one of these; not the way the code looks for them."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit():
                here = (entry / "cwd").readlink()
                found += [int(entry.name)] if any(here.is_relative_to(place) for place in directories) else []
    return found


def listening_on(pids: list[int]) -> list[tuple[str, int]]:
    """The TCP sockets on which these processes listen: address in hex as /proc/net/tcp has it, and port."""
    links = []
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since it was listed: it does not listen
                links.append(str(link.readlink()))
    found = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        rows = [line.split() for line in table.read_text().splitlines()[1:]] if table.exists() else []
        for row in rows:
            if row[3] == "0A" and f"socket:[{row[9]}]" in links:
                address, _, port = row[1].partition(":")
                found.append((address, int(port, 16)))
    return found


class KillableUp:
    """Both services, started by a process of their own."""

    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", UP, str(data_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        answer = self.process.stdout.readline().split()
        assert len(answer) == 2, "it did not start"
        self.database_url, self.mqtt_url = answer

    def kill(self) -> None:
        """SIGKILL to the process alone: what it started stays."""
        self.process.kill()
        self.process.communicate()
