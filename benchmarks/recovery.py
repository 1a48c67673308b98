"""How long a start takes: ``python -m benchmarks.recovery``.

A share of 200,000 devices saves its snapshot, then commits 30 s of a load in batches of a quarter of a
second, and is gone. Its successor takes the share, loads the snapshot, decides the later batches again, and
would subscribe: that is timed, wall and CPU, several times over on the same database. The bar is 5 s. The
kernels are compiled before, as they are in ``ringfence up``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from benchmarks.store import START_US, make_pings
from benchmarks.whole import machine, rules
from geofence import Devices, Pings, Ruleset
from telemetry import pipeline
from telemetry.columns import Admitted
from telemetry.config import Settings
from telemetry.metrics import Metrics
from telemetry.services.postgres import EmbeddedPostgres
from telemetry.share import RulesVersion, Share
from telemetry.store import Store

BATCHES_PER_S = 4


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    parser.add_argument("--devices", type=int, default=200_000)
    parser.add_argument("--seconds", type=int, default=30, help="of load to decide again")
    parser.add_argument("--pings-per-s", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-", dir="/tmp") as folder:
        home = Path(folder)
        home.chmod(0o711)
        server = EmbeddedPostgres(home / "data")
        url = server.start()
        try:
            ruleset = Ruleset.load(rules(home))
            pings = fill(url, ruleset, options)
            for _ in range(options.runs):
                wall_s, cpu_s = time.perf_counter(), time.process_time()
                share = share_on(url, ruleset)
                wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
                assert len(share.devices) == options.devices
                print(
                    f"{options.devices:,} devices, {pings:,} pings in {options.seconds * BATCHES_PER_S} "
                    f"batches to decide again: {wall_s:.1f} s; CPU of this process {cpu_s:.1f} s",
                    flush=True,
                )
        finally:
            server.stop()


def share_on(url: str, ruleset: Ruleset) -> Share:
    """A share with its state restored, as ``up`` makes it, but without a session."""
    store = Store.open(url, now_us=lambda: START_US)
    store.migrate()
    version = store.save_ruleset(ruleset.document, ruleset.digest, START_US)
    session = SimpleNamespace(connected_since_us=None, idle=False)
    share = Share(Settings(), store, session, Metrics(), lambda: None)
    share.start(RulesVersion(version, ruleset, START_US))
    return share


def fill(url: str, ruleset: Ruleset, options: argparse.Namespace) -> int:
    """Every device once, a snapshot, and the load after it; gives how many pings of it."""
    share, rng = share_on(url, ruleset), np.random.default_rng(1)
    devices: Devices = share.devices
    devices.slots([f"device-{i:07d}" for i in rng.permutation(options.devices)])
    for number in range(4):
        take(share, make_pings(devices, options.devices // 4 * 3, number, rng))
    share._save_snapshot()  # noqa: SLF001 - else only a running share saves one
    n = options.pings_per_s // BATCHES_PER_S
    for number in range(options.seconds * BATCHES_PER_S):
        take(share, make_pings(devices, n, 4 + number, rng))
    return n * options.seconds * BATCHES_PER_S


def take(share: Share, pings: Pings) -> None:
    """Have a batch decided and committed, from the step on at which pings are columns."""
    n = len(pings)
    work = pipeline.Work(None)
    work.admitted = Admitted(pings, np.zeros(n, np.uint16), np.ones(n, np.bool_), 0, [], [], [])
    share.admission.remember(pings)
    pipeline.check(share, work)
    pipeline.raise_alerts(share, work)
    work.messages = SimpleNamespace()  # something came, so there is something to store
    pipeline.commit(share, work)


if __name__ == "__main__":
    main()
