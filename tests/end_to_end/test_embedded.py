"""``ringfence up`` with nothing given: its own broker and database, through stops and kills."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import uuid
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.test_main_job import ALERTS, HOME, now


@pytest.fixture
def state_root(short_tmp) -> Path:
    """A data directory with a short path."""
    return short_tmp / f"up-{uuid.uuid4().hex[:8]}"


def descendants(pid: int) -> set[int]:
    """Every process below ``pid``, by the parent links in /proc; the embedded servers are among them."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    found: set[int] = set()
    fresh = {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def alive(pids: set[int]) -> set[int]:
    """Those that still run; zombies don't."""
    running = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                running.add(pid)
    return running


def test_stop_leaves_no_process_and_no_stale_state(engines, state_root, circle_rules, clients, eventually):
    engine = engines("--rules", str(circle_rules), data_dir=state_root)
    children = descendants(engine.process.pid)
    assert len(children) >= 2, "a broker and a database at least"
    operator = clients(engine.mqtt_url, subscribe=ALERTS)
    clients(engine.mqtt_url).ping("a17", time=now(), lat=HOME[0], lon=HOME[1], accuracy_m=5)
    assert json.loads(operator.next(3.0).payload)["data"]["device_id"] == "a17"
    began_s = time.monotonic()
    assert engine.stop(15) == 0
    assert time.monotonic() - began_s < 15
    eventually(lambda: not alive(children), 5)
    assert not (state_root / "state.json").exists()
    assert not (state_root / "lock").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_stop_it(engines, state_root, circle_rules, number):
    engine = engines("--rules", str(circle_rules), data_dir=state_root)
    engine.process.send_signal(number)
    assert engine.process.wait(15) == 0


def test_kill_of_everything_then_up_again_keeps_what_was_acknowledged(
    engines, state_root, circle_rules, clients, eventually
):
    engine = engines("--rules", str(circle_rules), data_dir=state_root)
    device = clients(engine.mqtt_url)
    for seq in range(50):
        device.ping("a17", time=now(), boot=1, seq=seq, lat=1, lon=2)
    device.close()
    for pid in [engine.process.pid, *descendants(engine.process.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    engine.process.wait()

    again = engines("--rules", str(circle_rules), data_dir=state_root)
    eventually(lambda: sorted(row["seq"] for row in again.track("a17")) == list(range(50)), 20)
    assert again.stop() == 0


def test_orphaned_servers_of_a_killed_engine_are_taken_care_of(engines, state_root, circle_rules, eventually):
    engine = engines("--rules", str(circle_rules), data_dir=state_root)
    orphans = descendants(engine.process.pid)
    engine.kill()
    again = engines("--rules", str(circle_rules), data_dir=state_root)
    family = descendants(again.process.pid)
    assert again.stop() == 0
    eventually(lambda: not alive(orphans | family), 5)


def test_the_engine_says_that_it_runs_and_its_will_that_it_is_lost(
    engines, state_root, circle_rules, clients, eventually
):
    engine = engines("--rules", str(circle_rules), data_dir=state_root)
    listener = clients(engine.mqtt_url, subscribe="ringfence/v1/engine/0/status")

    def said(state: str) -> bool:
        return json.loads(listener.next(20).payload)["state"] == state

    eventually(lambda: said("running"), 20)
    engine.kill()  # its broker goes on, and publishes the will
    eventually(lambda: said("lost"), 20)
    again = engines("--rules", str(circle_rules), data_dir=state_root)
    listener = clients(again.mqtt_url, subscribe="ringfence/v1/engine/0/status")
    eventually(lambda: said("running"), 30)
    assert again.stop() == 0


def server_of(pid: int, program: str) -> int | None:
    """The pid of the server of this name that the engine itself has started; None: it does not run."""
    for child in alive(descendants(pid)):
        with contextlib.suppress(OSError):
            name, _, fields = Path(f"/proc/{child}/stat").read_text().partition("(")[2].rpartition(")")
            if name == program and int(fields.split()[1]) == pid:
                return child
    return None


@pytest.mark.parametrize("programs", [["postgres"], ["nats-server"], ["postgres", "nats-server"]])
def test_servers_that_die_while_it_runs_are_started_again(
    engines, state_root, circle_rules, clients, eventually, programs
):
    engine = engines("--rules", str(circle_rules), data_dir=state_root)
    clients(engine.mqtt_url).ping("a17", time=now(), boot=1, seq=1, lat=1, lon=2)
    killed = {program: server_of(engine.process.pid, program) for program in programs}
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)

    for program, pid in killed.items():
        eventually(lambda: server_of(engine.process.pid, program) not in {None, pid}, 60)  # noqa: B023 - called at once
    eventually(lambda: httpx.get(f"{engine.http_url}/readyz", timeout=5).status_code == 200, 60)
    device = eventually(lambda: connected(clients, engine.mqtt_url), 30)
    device.ping("a17", time=now(), boot=1, seq=2, lat=1, lon=2)
    eventually(lambda: [row["seq"] for row in engine.track("a17")] == [1, 2], 30)
    assert engine.stop() == 0
    assert "starting it again" in engine.output


def connected(clients, url):
    """A client of this broker; None while nobody listens there."""
    with contextlib.suppress(ConnectionError):
        return clients(url)


def test_a_killed_engine_takes_its_fleet_along(engines, state_root, eventually):
    engine = engines("--simulate", "3", data_dir=state_root)
    eventually(lambda: programs_below(engine.process.pid, "simulate"), 10)
    fleet = programs_below(engine.process.pid, "simulate")
    engine.kill()
    eventually(lambda: not alive(fleet), 10)
    again = engines("--simulate", "3", data_dir=state_root)
    eventually(lambda: again.items("devices"), 60)  # its fleet runs
    assert again.stop() == 0
    assert "Fatal" not in again.output


def programs_below(pid: int, argument: str) -> set[int]:
    """The processes below this one that were started with this argument."""
    found = set()
    for child in descendants(pid):
        with contextlib.suppress(OSError):
            if argument.encode() in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                found.add(child)
    return found


def test_a_second_engine_on_the_same_data_directory_is_refused(engines, state_root, circle_rules):
    engines("--rules", str(circle_rules), data_dir=state_root)
    second = engines("--rules", str(circle_rules), data_dir=state_root, ready=False)
    assert second.process.wait(20) == 2
    second.stop()
    assert "--data-dir" in second.output


def test_the_simulated_fleet_raises_an_alert_within_a_minute_of_ready(engines, state_root):
    engine = engines("--simulate", "50", data_dir=state_root)
    deadline = time.monotonic() + 60
    while not engine.items("alerts") and time.monotonic() < deadline:
        time.sleep(0.5)
    assert engine.items("alerts")
    assert engine.items("violations")
    assert len(engine.items("devices")) > 25
    assert engine.stop() == 0
