import dataclasses
import os
import signal
import subprocess
from pathlib import Path

from telemetry.services.processes import Owner, ProcessId, end, pids_working_in, wait_until

SLEEP = ["sleep", "600"]


def test_a_process_is_itself_and_runs() -> None:
    me = ProcessId.of(os.getpid())
    assert me is not None
    assert me.runs()


def test_a_reused_pid_is_another_process() -> None:
    me = ProcessId.of(os.getpid())
    assert me is not None
    assert not dataclasses.replace(me, started_ticks=me.started_ticks - 1).runs()
    assert not dataclasses.replace(me, boot_id="an earlier boot").runs()


def test_a_zombie_does_not_run() -> None:
    child = subprocess.Popen(SLEEP)
    process = ProcessId.of(child.pid)
    assert process is not None
    os.kill(child.pid, signal.SIGKILL)
    assert wait_until(lambda: not process.runs(), 5.0)
    assert Path(f"/proc/{child.pid}").exists()  # it is there still: nobody has waited for it
    child.wait()
    assert ProcessId.of(child.pid) is None


def test_a_program_is_found_by_the_directory_it_works_in(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    link = tmp_path / "link"
    link.symlink_to(here)
    children = [subprocess.Popen(SLEEP, cwd=place) for place in (here, there)]
    try:
        assert wait_until(lambda: pids_working_in(here, "sleep", Owner.myself()) == [children[0].pid], 5.0)
        assert pids_working_in(link, "sleep", Owner.myself()) == [children[0].pid]
        assert pids_working_in(here, "nats-server", Owner.myself()) == []
        # A new directory of the same name is another directory.
        here.rename(tmp_path / "moved")
        here.mkdir()
        assert pids_working_in(here, "sleep", Owner.myself()) == []
        assert pids_working_in(tmp_path / "moved", "sleep", Owner.myself()) == [children[0].pid]
    finally:
        for child in children:
            child.kill()
            child.wait()


def test_end_goes_on_to_the_next_signal_when_one_is_ignored(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    stubborn = subprocess.Popen(
        ["sh", "-c", f"trap '' TERM; : >{ready}; while :; do sleep 600; done"], process_group=0
    )
    assert wait_until(ready.exists, 5.0)

    try:
        assert not end([stubborn.pid], [(signal.SIGTERM, 0.2)])
        assert end([stubborn.pid], [(signal.SIGTERM, 0.1), (signal.SIGKILL, 5.0)])
        assert stubborn.wait() == -signal.SIGKILL
    finally:
        os.killpg(stubborn.pid, signal.SIGKILL)
