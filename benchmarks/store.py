"""Rows per second into the store, beside the peers on the same rows: ``python -m benchmarks.store``.

Four ways write the same pings into the same table, with its index by device and time and its index by batch,
one transaction for each batch; they take turns, so that a slow spell of the machine meets all:

  store        Store.commit: sort, pack, the share's row, COPY, the newest of each device, the batch's row
  psql         psql \\copy … (format binary) of a file that is ready, sorted by device and time
  psql, as is  the same of a file in the order in which pings came
  executemany  psycopg's executemany of one INSERT (of the first 4 batches only: it is slow)

Prints wall seconds, and CPU seconds of the client and of the whole database server. Last comes a
restart: reading 300,000 pings back, 30 s at 10,000 a second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psycopg

from geofence import COLUMNS, Devices, Pings
from telemetry.columns import Admitted, Batch
from telemetry.services.postgres import EmbeddedPostgres
from telemetry.services.postgres_home import installed_binaries
from telemetry.store import Store
from telemetry.store.cells import CELL_E7, COLUMNS_OF_CELLS, FIRST_COLUMN, FIRST_ROW
from telemetry.store.packing import PING_COLUMNS, PingPacker, warm
from telemetry.store.rows import moment

START_US = 1_790_000_000_000_000
SLOW_BATCHES = 4


def make_pings(devices: Devices, n: int, number: int, rng: np.random.Generator) -> Pings:
    """A batch as a fleet sends it: each device once at most, within 15 s, in any order."""
    count = len(devices)
    return Pings.of(
        devices,
        device=rng.choice(count, n, replace=n > count),
        fix_time_us=START_US + number * 15_000_000 + rng.integers(0, 15_000_000, n),
        received_time_us=np.full(n, START_US + number * 15_000_000 + 15_000_000),
        boot=np.ones(n),
        seq=np.full(n, number),
        lat_e7=350_000_000 + rng.integers(0, 3_000_000, n),
        lon_e7=-810_000_000 + rng.integers(0, 3_000_000, n),
        accuracy_mm=rng.integers(3_000, 30_000, n),
        speed_cmps=rng.integers(0, 2_000, n),
        heading_cdeg=rng.integers(0, 36_000, n),
        altitude_m=np.full(n, 220),
        status=np.full(n, 8),
        battery_pct=rng.integers(5, 100, n),
        satellites=np.full(n, 9),
    )


class Clock:
    """Wall time, CPU time of this process with its children, and CPU time of the whole database server."""

    def __init__(self, server_pid: int) -> None:
        self._server_pid = server_pid
        self.total: dict[str, float] = defaultdict(float)

    def __call__(self, work: Callable[[], object]) -> None:
        before = self._now()
        work()
        for name, now in self._now().items():
            self.total[name] += now - before[name]

    def _now(self) -> dict[str, float]:
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        pid = self._server_pid
        ticks = sum(self._ticks(pid)[:4])  # with those children that have ended
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError):
                ticks += sum(self._ticks(int(child))[:2])
        return {
            "wall_s": time.perf_counter(),
            "client_cpu_s": own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
            "server_cpu_s": ticks / os.sysconf("SC_CLK_TCK"),
        }

    @staticmethod
    def _ticks(pid: int) -> list[int]:
        """utime, stime, cutime, cstime."""
        return [int(text) for text in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]]


def measure(directory: Path, batches: int, n: int, device_count: int) -> dict[str, Any]:
    """All ways in turns; gives rows per second and CPU seconds of each."""
    server = EmbeddedPostgres(directory / "data")
    base = server.start()
    rng = np.random.default_rng(1)
    devices = Devices(f"device-{i:07d}" for i in rng.permutation(device_count))
    psql = str(installed_binaries() / "bin" / "psql")
    ways = ("store", "psql", "psql, as is", "executemany")
    assert server.pid is not None
    urls, clocks = {}, {way: Clock(server.pid) for way in ways}
    try:
        with psycopg.connect(base, autocommit=True) as admin:
            for i, way in enumerate(ways):
                admin.execute(f"DROP DATABASE IF EXISTS bench{i}")
                admin.execute(f"CREATE DATABASE bench{i}")
                urls[way] = (
                    urlsplit(base)
                    ._replace(path=f"/bench{i}")
                    .geturl()
                    .replace("postgresql:/?", "postgresql:///?")
                )
        stores = {way: Store.open(url, now_us=lambda: START_US) for way, url in urls.items()}
        for store in stores.values():
            store.migrate()  # makes the days around START_US
        lease = stores["store"].take_share(0)
        warm()
        packer = PingPacker()
        inserter = psycopg.connect(urls["executemany"])
        for number in range(1, batches + 1):
            pings = make_pings(devices, n, number, rng)
            marks, judged = np.zeros(n, np.uint16), np.ones(n, np.bool_)
            admitted = Admitted(pings, marks, judged, 0, [], [], [])
            batch = Batch(0, lease.epoch, number, 1, admitted, [], None, [], [])
            clocks["store"](partial(stores["store"].commit, batch))
            for way, order in (("psql", None), ("psql, as is", np.arange(n))):
                file = directory / "rows"
                file.write_bytes(packer.pack(pings, marks, judged, 0, number, order))
                copy = f"\\copy pings ({PING_COLUMNS}) FROM '{file}' (FORMAT BINARY)"
                clocks[way](partial(subprocess.run, [psql, "-Xqd", urls[way], "-c", copy], check=True))
            if number <= SLOW_BATCHES:
                some = list(rows(pings, number))
                clocks["executemany"](partial(insert, inserter, some))
        results = {
            way: {
                "rows_per_s": round(
                    (SLOW_BATCHES if way == "executemany" else batches) * n / clock.total["wall_s"]
                )
            }
            | {name: round(value, 2) for name, value in clock.total.items()}
            for way, clock in clocks.items()
        }
        results["machine"] = {
            "cpus": os.cpu_count(),
            "load": os.getloadavg()[0],
            "python": platform.python_version(),
        }
        results["replay"] = measure_replay(stores["store"], batches, n)
        with psycopg.connect(urls["store"]) as connection:
            row = connection.execute(
                "SELECT sum(pg_total_relation_size(inhrelid)), sum(pg_relation_size(inhrelid))"
                " FROM pg_inherits WHERE inhparent = 'pings'::regclass"
            ).fetchone()
            assert row is not None
            results["bytes_per_ping"] = {
                "with indexes": round(row[0] / batches / n),
                "rows": round(row[1] / batches / n),
            }
        inserter.close()
        for store in stores.values():
            store.close()
        return results
    finally:
        server.stop()


def measure_replay(store: Store, batches: int, n: int) -> dict[str, Any]:
    """Reading the last 300,000 pings back: 30 s at 10,000 a second."""
    last = max(1, 300_000 // n)
    began_s = time.perf_counter()
    pings = sum(len(past.pings) for past in store.replay(0, batches - last))
    took_s = time.perf_counter() - began_s
    return {"pings": pings, "wall_s": round(took_s, 2), "rows_per_s": round(pings / took_s)}


def insert(connection: psycopg.Connection[Any], some: list[Any]) -> None:
    """One transaction of executemany."""
    with connection.transaction(), connection.cursor() as cursor:
        values = ", ".join(["%s"] * len(some[0]))
        cursor.executemany(f"INSERT INTO pings ({PING_COLUMNS}) VALUES ({values})", some)


def rows(pings: Pings, number: int) -> Any:
    """Rows for executemany, in the order of PING_COLUMNS."""
    columns = {name: getattr(pings, name).tolist() for name, _, _ in COLUMNS}
    for i in range(len(pings)):
        p = {name: column[i] for name, column in columns.items()}
        cell = (p["lat_e7"] // CELL_E7 + FIRST_ROW) * COLUMNS_OF_CELLS + p["lon_e7"] // CELL_E7 + FIRST_COLUMN
        times = (moment(p["fix_time_us"]), moment(p["received_time_us"]))
        place = (p["lat_e7"], p["lon_e7"], cell, p["accuracy_mm"], p["speed_cmps"], p["heading_cdeg"])
        state = (p["status"], 0, p["boot"], p["altitude_m"], p["battery_pct"], p["satellites"])
        yield (*times, p["seq"], number, *place, *state, 0, True, pings.devices.ids[p["device"]])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--rows", type=int, default=50_000, help="pings in a batch")
    parser.add_argument("--devices", type=int, default=200_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rf-bench-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o711)
        print(json.dumps(measure(directory, arguments.batches, arguments.rows, arguments.devices), indent=2))


if __name__ == "__main__":
    main()
