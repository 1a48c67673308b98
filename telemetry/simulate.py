"""``ringfence simulate``: the simulated fleet against a broker, with its progress shown."""

from __future__ import annotations

import os
import signal
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from firmware_sim import fleet
from firmware_sim.scenario import build, load, write_rules
from geofence.units import to_rfc3339
from telemetry.config import Settings, SettingsError
from telemetry.services.state import read_state

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

__all__ = ["run_simulation", "write_city_rules"]


def write_city_rules(scenario: str, devices: int, seed: int, directory: Path) -> None:
    """Write the zones and rules of a simulated city, for ``ringfence up --rules``."""
    write_rules(build(load(scenario), devices, seed), directory)


def run_simulation(
    settings: Settings,
    console: Console,
    *,
    devices: int,
    speed: float,
    seed: int,
    scenario: str,
    truth: Path | None,
    duration_s: float | None,
    exact_sessions: bool | None,
    quiet: bool,
    until_input_ends: bool = False,
) -> None:
    """Publish until ``duration_s`` simulated seconds are over, or Ctrl-C or SIGTERM comes.

    until_input_ends : also stop when standard input ends: the program that holds its other end is gone

    Raises SettingsError when there is no broker to publish to, and the simulator's own errors.
    """
    running = read_state(settings.data_dir)
    url = settings.mqtt_url or (running.mqtt_url if running else None)
    if url is None:
        raise SettingsError(
            f"no `ringfence up` runs on {settings.data_dir}; start one, or name a broker with --mqtt-url"
        )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if until_input_ends:
        threading.Thread(target=_stop_at_end_of_input, args=[stop], daemon=True).start()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console, disable=quiet, transient=False) as bar:
        task = bar.add_task("connecting", total=duration_s, left="")

        def show(progress: fleet.Progress) -> None:
            left = "" if progress.eta_s is None else f"{timedelta(seconds=round(progress.eta_s))} left"
            done_s = (
                None if progress.eta_s is None or duration_s is None else duration_s - progress.eta_s * speed
            )
            bar.update(
                task,
                completed=done_s,
                left=left,
                description=(
                    f"{progress.connected} of {progress.sessions} sessions, {progress.pings:,} pings, "
                    f"{progress.pings_per_s:,.0f}/s, at {to_rfc3339(progress.sim_time_us)[:19]}Z"
                ),
            )

        fleet.run(
            url,
            devices=devices,
            seed=seed,
            speed=speed,
            scenario=scenario,
            truth=truth,
            root=settings.mqtt_root,
            duration_s=duration_s,
            progress=show,
            stop=stop,
            exact_sessions=exact_sessions,
        )


def _stop_at_end_of_input(stop: threading.Event) -> None:
    while os.read(0, 4096):  # not sys.stdin: its lock, held by this thread at exit, aborts the interpreter
        pass
    stop.set()
