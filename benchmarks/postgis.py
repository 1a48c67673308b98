"""A PostgreSQL with PostGIS for a benchmark, where the distribution has one installed."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import psycopg
import shapely

SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "shared_buffers": "1GB",
    "work_mem": "512MB",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}


class Server:
    """Started by the first use, stopped at exit."""

    def __init__(self) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not binaries:
            raise RuntimeError("no PostgreSQL of the distribution; install postgresql and postgis")
        self._home = Path(tempfile.mkdtemp(prefix="rf-postgis-", dir="/tmp"))
        user = {}
        if os.geteuid() == 0:
            shutil.chown(self._home, "postgres", "postgres")
            user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        data = self._home / "data"
        subprocess.run(
            [binaries[-1], "-D", data, "-U", "bench", "--auth=trust"],
            check=True,
            capture_output=True,
            cwd="/",
            **user,
        )
        options = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        self._server = subprocess.Popen(
            [binaries[-1].with_name("postgres"), "-D", data, "-k", self._home, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            **user,
        )
        atexit.register(self._stop)
        self._connection = self._connect()
        self._connection.execute("CREATE EXTENSION postgis")

    def load(self, shapes: np.ndarray, lon_e7: np.ndarray, lat_e7: np.ndarray) -> None:
        """Zones with their index, and pings, each a table."""
        run = self._connection.execute
        run("CREATE TABLE z (i int, g geometry); CREATE TABLE p (i int, g geometry(point))")
        with self._connection.cursor() as cursor:
            with cursor.copy("COPY z FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int4", "bytea"])
                for i, wkb in enumerate(shapely.to_wkb(shapes)):
                    copy.write_row((i, wkb))
            with cursor.copy("COPY p FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int4", "bytea"])
                points = shapely.to_wkb(shapely.points(lon_e7.astype(float), lat_e7.astype(float)))
                for i, wkb in enumerate(points):
                    copy.write_row((i, wkb))
        run("CREATE INDEX ON z USING gist (g)")
        run("VACUUM ANALYZE z")
        run("VACUUM ANALYZE p")

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Ping and zone of each pair."""
        cursor = self._connection.cursor(binary=True)
        cursor.execute(
            "SELECT array_agg(p.i), array_agg(z.i) FROM p JOIN z ON ST_Intersects(z.g, p.g)", binary=True
        )
        row = cursor.fetchone()
        assert row is not None
        return np.array(row[0] or [], np.int64), np.array(row[1] or [], np.int64)

    def cpu_s(self) -> float:
        """Processor time of the session so far; of the client only what it waits for, which is none."""
        fields = (
            Path(f"/proc/{self._connection.info.backend_pid}/stat").read_text().rpartition(")")[2].split()
        )
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _connect(self) -> psycopg.Connection:
        for _ in range(200):
            try:
                return psycopg.connect(f"host={self._home} user=bench dbname=postgres", autocommit=True)
            except psycopg.OperationalError:
                time.sleep(0.05)
        raise RuntimeError("PostgreSQL does not answer")

    def _stop(self) -> None:
        self._connection.close()
        self._server.terminate()
        self._server.wait()
        shutil.rmtree(self._home, ignore_errors=True)
