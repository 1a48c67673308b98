"""What reading asks of the database, at scale: ``python -m benchmarks.queries``.

Fills a database of its own with a fleet that pings once a minute for some whole days and for today so far, in
the order in which pings come, through the tables and indexes of the store; then asks what console, API and
reports ask, with the very statements of ``telemetry/store/queries.py``, and keeps PostgreSQL's own account of
each: EXPLAIN (ANALYZE, BUFFERS). The first run of a question finds little in memory, the second all of it.

The rows are made by generate_series in the server. 5.04 million of them are a day of 3,500 devices; each
walks a circle of its own about a home in a city of 30 by 30 km. Everything is dropped at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.whole import machine
from telemetry.services.postgres import EmbeddedPostgres
from telemetry.store import Store, queries
from telemetry.store.cells import CELL_E7, COLUMNS_OF_CELLS, FIRST_COLUMN, FIRST_ROW, cells_around
from telemetry.store.connect import SESSION_SQL
from telemetry.store.partitions import DAY_US
from telemetry.store.rows import moment

RESULT = Path(__file__).parent / "results" / "queries.txt"
HOME_E7 = (352_271_000, -808_431_000)
PLACE = (HOME_E7[0], HOME_E7[1], 200.0)  # where the crime was, and how near is near
MINUTES = 1_440
# Every device at its minute, device after device within it: so a batch of the store would lay them down.
PINGS = f"""
INSERT INTO pings (fix_time, received_time, seq, batch, lat_e7, lon_e7, cell, accuracy_mm, speed_cmps,
                   heading_cdeg, status, marks, boot, altitude_m, battery_pct, satellites, share, judged,
                   device_id)
SELECT fix_time, fix_time + interval '0.3 s', m, %(batch)s::int8 + m, lat_e7, lon_e7,
       (floor(lat_e7 / {CELL_E7}.0)::int + {FIRST_ROW}) * {COLUMNS_OF_CELLS}
       + floor(lon_e7 / {CELL_E7}.0)::int + {FIRST_COLUMN},
       8000, 120, 9000, 8, 0, 1, 220, 80, 9, 0, true, device_id
FROM (
    SELECT m, %(midnight)s::timestamptz + make_interval(mins => m, secs => hashint4(d) & 15) AS fix_time,
           'device-' || lpad(d::text, 6, '0') AS device_id,
           {HOME_E7[0]} + (hashint4(d * 2) & 2097151) - 1048576
           + (20000 * sin(m / 230.0 + d))::int AS lat_e7,
           {HOME_E7[1]} + (hashint4(d * 2 + 1) & 2097151) - 1048576
           + (20000 * cos(m / 230.0 + d))::int AS lon_e7
    FROM generate_series(%(first)s::int4, %(last)s::int4) m, generate_series(1, %(devices)s::int4) d
) made
"""
STATUS = """
INSERT INTO device_status (device_id, fix_time, received_time, position_time, lat_e7, lon_e7, accuracy_mm,
                           speed_cmps, heading_cdeg, status, marks, battery_pct)
SELECT 'device-' || lpad(d::text, 6, '0'), now(), now(), now(), 352271000 + d, -808431000 - d, 8000,
       120, 9000, 8, 0, 80
FROM generate_series(1, %(devices)s::int4) d
"""
# Of a hundred violations one is open; each has its opening and, when it is over, its closing revision.
VIOLATIONS = """
INSERT INTO violations (violation_id, opened_time, confirmed_time, closed_time, recorded_time,
                        rules_version, batch, revision, confidence_ppm, depth_mm, fixes, share, late, change,
                        severity, device_id, rule_id, zone_id)
SELECT v, opened, opened, CASE WHEN revision = 1 THEN opened + interval '9 min' END, opened, 1, 1, revision,
       990000, 60000, 3, 0, false, CASE revision WHEN 0 THEN 'opened' ELSE 'closed' END, 'high',
       'device-' || lpad((v %% %(devices)s::int8 + 1)::text, 6, '0'), 'keep-away', 'school-' || v %% 400
FROM (SELECT v, %(from)s::timestamptz
             + (%(to)s::timestamptz - %(from)s::timestamptz) * v / %(violations)s::int8 AS opened
      FROM generate_series(1::int8, %(violations)s::int8) v) made
CROSS JOIN generate_series(0, 1) revision WHERE revision = 0 OR v %% 100 <> 0
"""
HEADS = """
INSERT INTO violation_heads (violation_id, opened_time, revision, state, severity, device_id, rule_id,
                             zone_id)
SELECT violation_id, opened_time, max(revision), CASE max(revision) WHEN 0 THEN 'open' ELSE 'closed' END,
       min(severity), min(device_id), min(rule_id), min(zone_id)
FROM violations GROUP BY violation_id, opened_time
"""


@dataclass(frozen=True)
class Question:
    """What is asked, and the statement that asks it."""

    name: str
    sql: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """rows, milliseconds and pages (found in PostgreSQL's memory, asked of the system) of one run."""

    rows: int
    took_ms: float
    hit: int
    read: int
    plan: str


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queries", description=__doc__)
    parser.add_argument("--devices", type=int, default=3_500)
    parser.add_argument("--days", type=int, default=10, help="whole days before today")
    parser.add_argument("--violations", type=int, default=1_000_000)
    parser.add_argument(
        "--positions", type=int, default=200_000, help="devices in the table of newest positions"
    )
    parser.add_argument(
        "--database-url", help="an empty database to fill; left out: an embedded one, dropped"
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    lines = [machine()]
    with _database(options.database_url) as url, psycopg.connect(url, autocommit=True) as connection:
        store = Store.open(url)
        store.migrate()
        now_us = time.time_ns() // 1000
        lines += fill(connection, store, options, now_us)
        began_s = time.perf_counter()
        store.keep_house(now_us)
        lines.append(f"index by place of {options.days} days: {time.perf_counter() - began_s:.0f} s")
        store.close()
        connection.execute("VACUUM ANALYZE")
        connection.execute(SESSION_SQL)
        lines += shape(connection)
        for question in questions(options.devices, options.days, now_us):
            first, again = ask(connection, question), ask(connection, question)
            lines += report(question, first, again)
            print("\n".join(lines[-3:]), flush=True)
    options.out.write_text("\n".join(lines) + "\n")


@contextlib.contextmanager
def _database(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        server = EmbeddedPostgres(Path(folder) / "data")
        try:
            yield server.start()
        finally:
            server.stop()


def fill(connection: psycopg.Connection, store: Store, options: argparse.Namespace, now_us: int) -> list[str]:
    """The days before today, then today up to now; each day in an hour's transactions."""
    connection.execute("SET synchronous_commit = off")
    today = now_us // DAY_US
    layout = store._layout_of(connection)  # noqa: SLF001 - the days of the past have to be made
    layout.ensure(connection, "pings", range(today - options.days, today + 1))
    layout.ensure(connection, "violations", range(today - options.days, today + 1))
    began_s, made = time.perf_counter(), 0
    for day in range(today - options.days, today + 1):
        until = (now_us % DAY_US) // 60_000_000 if day == today else MINUTES
        for first in range(0, until, 60):
            last = min(first + 60, until) - 1
            values = {"batch": (day - today + options.days) * MINUTES, "midnight": moment(day * DAY_US)}
            values |= {"first": first, "last": last, "devices": options.devices}
            made += connection.execute(PINGS, values).rowcount
        print(f"{made:,} pings after {time.perf_counter() - began_s:.0f} s", flush=True)
    connection.execute(STATUS, {"devices": options.positions})
    values = {"from": moment((today - options.days) * DAY_US), "to": moment(now_us)}
    connection.execute(VIOLATIONS, values | {"devices": options.devices, "violations": options.violations})
    connection.execute(HEADS)
    return [
        f"{made:,} pings of {options.devices:,} devices on {options.days} whole days and today",
        f"{options.violations:,} violations, {options.positions:,} newest positions",
    ]


def shape(connection: psycopg.Connection) -> list[str]:
    """What the server is, and how large the pings are."""
    version, memory = connection.execute(
        "SELECT current_setting('server_version'), current_setting('shared_buffers')"
    ).fetchone()
    sizes = connection.execute(
        "SELECT count(*), sum(pg_relation_size(c.oid))::int8, sum(pg_indexes_size(c.oid))::int8"
        " FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'pings'::regclass"
    ).fetchone()
    return [
        f"PostgreSQL {version}, shared_buffers {memory}",
        f"pings: {sizes[0]} days, {sizes[1] / 1e9:.1f} GB of rows and {sizes[2] / 1e9:.1f} GB of indexes",
    ]


def questions(devices: int, days: int, now_us: int) -> list[Question]:
    """What console, API and reports ask. A whole day is one in the middle of those that are over."""
    today_us = now_us // DAY_US * DAY_US
    day_us = today_us - (days // 2 + 1) * DAY_US
    hour_us = DAY_US // 24
    closed = {"from": moment(day_us), "to": moment(day_us + DAY_US)}
    opened = {"from": moment(today_us), "to": moment(now_us)}
    hour = {"from": moment(day_us + 12 * hour_us), "to": moment(day_us + 13 * hour_us)}
    last_hour = {"from": moment(now_us - hour_us), "to": moment(now_us)}
    lat_e7, lon_e7, radius_m = PLACE
    place = {"lat": lat_e7 / 1e7, "lon": lon_e7 / 1e7, "radius_m": radius_m, "limit": 10_000}
    place["cells"] = cells_around(*PLACE)
    device = {"device_id": f"device-{devices // 2:06d}"}
    track = queries.TRACK.format(mine="")
    state = queries.VIOLATIONS.format(where="h.state = %(state)s")
    near = queries.NEAR
    return [
        Question("track of a device, a whole day", track, device | closed),
        Question("track of a device, today so far", track, device | opened),
        Question("violations that are open, newest 100", state, {"state": "open", "limit": 101}),
        Question("violations that are closed, newest 100", state, {"state": "closed", "limit": 101}),
        Question("newest position of every device", queries.POSITIONS, {}),
        Question("within 200 m, an hour of a whole day", near, place | hour),
        Question("within 200 m, a whole day", near, place | closed),
        Question("within 200 m, the last hour", near, place | last_hour),
        Question("within 200 m, today so far", near, place | opened),
    ]


def ask(connection: psycopg.Connection, question: Question) -> Answer:
    """One run under EXPLAIN (ANALYZE, BUFFERS)."""
    sql = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) " + question.sql
    plan = "\n".join(row[0] for row in connection.execute(sql, question.values, prepare=False))
    rows = int(re.search(r"actual rows=(\d+)", plan)[1])
    buffers = re.search(r"Buffers: shared(?: hit=(\d+))?(?: read=(\d+))?", plan)
    took = float(re.search(r"Execution Time: ([\d.]+) ms", plan)[1])
    hit, read = (0, 0) if buffers is None else (int(pages or 0) for pages in buffers.groups())
    return Answer(rows, took, hit, read, plan)


def report(question: Question, first: Answer, again: Answer) -> list[str]:
    """A question, its two runs, and the plan of the first."""
    return [
        f"\n{question.name}: {first.rows:,} rows",
        f"  first {first.took_ms:.1f} ms, {first.read:,} pages read and {first.hit:,} found",
        f"  again {again.took_ms:.1f} ms, {again.read:,} pages read and {again.hit:,} found",
        *(f"    {line}" for line in first.plan.splitlines() if "never executed" not in line),
    ]


if __name__ == "__main__":
    main()
