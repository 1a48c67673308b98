"""``ringfence simulate``: the simulated fleet against a broker, with its progress shown."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

from firmware_sim import fleet, scenario as scenarios
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from telemetry.config import Settings, SettingsError
from telemetry.services.state import read_state

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["run_simulation", "write_city_rules"]


def write_city_rules(scenario: str, devices: int, seed: int, directory: Path) -> None:
    """Write the zones and rules of a simulated city, for ``ringfence up --rules``."""
    scenarios.write_rules(scenarios.build(scenarios.load(scenario), devices, seed), directory)


def run_simulation(
    settings: Settings,
    *,
    devices: int,
    speed: float,
    seed: int,
    scenario: str,
    truth: Path | None,
    duration_s: float | None,
    quiet: bool,
) -> None:
    """Publish until the duration is over or the process is asked to stop."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
