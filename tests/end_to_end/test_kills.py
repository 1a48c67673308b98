"""SIGKILL of engine, database and broker, alone and together, at random moments under load.

What the broker acknowledged is stored exactly once, and the violations are those of an undisturbed run.
RINGFENCE_KILLS says how many kills (``make kills``: 500), RINGFENCE_KILLS_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import psycopg
import pytest

from geofence import NO_TIME
from tests.end_to_end.conftest import HOME, RunningEngine
from tests.end_to_end.ledger import CENTRE_E7, Ledger, expected_violations
from tests.end_to_end.test_embedded import alive, descendants, server_of

KILLS = int(os.environ.get("RINGFENCE_KILLS", "20"))
SEED = int(os.environ.get("RINGFENCE_KILLS_SEED", "17"))
PROGRAMS = {"database": "postgres", "broker": "nats-server"}
GROWTH_PINGS = 50  # stored anew before the next kill, so that each meets a run at work
BACK_S = 90.0


class Victims:
    """An engine with the servers that it started, and how to kill some of them at once."""

    def __init__(self, start, chance: random.Random) -> None:
        self._start = start
        self._chance = chance
        self.engine: RunningEngine = start()

    def kill(self, victims: tuple[str, ...]) -> None:
        """SIGKILL them in the same moment; whoever starts them again is waited for by ``stored``."""
        pids = [self.engine.process.pid] if "engine" in victims else []
        for victim in victims:
            if victim in PROGRAMS:
                server = server_of(self.engine.process.pid, PROGRAMS[victim])
                assert server is not None, f"{victim} does not run"
                pids.append(server)
                if self._chance.random() < 0.5:  # with its own children: else they outlive it by a moment
                    pids += alive(descendants(server))
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if "engine" in victims:
            self.engine.process.wait()
            self.engine = self._start()

    def stored(self) -> int:
        """How many pings are stored; -1 while nobody can tell."""
        try:
            with psycopg.connect(self.engine.database_url, connect_timeout=2) as connection:
                return connection.execute("SELECT count(*) FROM pings").fetchone()[0]
        except psycopg.Error:
            return -1

    def all_run(self, programs) -> bool:
        return all(server_of(self.engine.process.pid, program) for program in programs)


@pytest.mark.timeout(max(300, 30 * KILLS))
def test_with_the_embedded_broker_and_database(engines, short_tmp, circle_rules, eventually):
    data_dir = short_tmp / "kills"

    def start():
        return engines("--rules", str(circle_rules), data_dir=data_dir)

    torture(start, ("engine", "database", "broker"), KILLS, circle_rules, eventually)


@pytest.mark.timeout(max(300, 30 * KILLS))
def test_with_mosquitto(engines, short_tmp, mosquitto_url, circle_rules, eventually):
    """It acknowledges before it writes to disk, so it is left alive."""
    data_dir = short_tmp / "kills-mosquitto"

    def start():
        return engines("--mqtt-url", mosquitto_url, "--rules", str(circle_rules), data_dir=data_dir)

    torture(start, ("engine", "database"), max(KILLS // 4, 4), circle_rules, eventually)


def torture(start, parts: tuple[str, ...], kills: int, rules: Path, eventually) -> None:
    """Kill every combination of these parts in turn, in random order, under load; then compare."""
    assert tuple(round(degrees * 1e7) for degrees in HOME) == CENTRE_E7
    chance = random.Random(SEED)
    choices = [some for n in range(1, len(parts) + 1) for some in combinations(parts, n)]
    plan = [
        victims for _ in range(-(-kills // len(choices))) for victims in chance.sample(choices, len(choices))
    ]
    run = Victims(start, chance)
    servers = [PROGRAMS[part] for part in PROGRAMS if run.all_run([PROGRAMS[part]])]
    ledger = Ledger(run.engine.mqtt_url)
    ledger.start()
    began_s = time.monotonic()
    counts: Counter[str] = Counter()
    for number, victims in enumerate(plan[:kills], 1):
        before = max(run.stored(), 0)
        eventually(lambda: run.all_run(servers) and run.stored() > before + GROWTH_PINGS, BACK_S)  # noqa: B023 - called at once
        threading.Event().wait(chance.uniform(0, 0.3))  # a random moment of the commit cycle
        run.kill(victims)
        counts[" and ".join(victims)] += 1
        if number % 50 == 0:
            took_s = time.monotonic() - began_s
            print(f"\n{number} kills after {took_s:.0f} s, {ledger.acknowledged} pings acknowledged")
    eventually(lambda: run.stored() >= 0, BACK_S)
    ledger.finish(BACK_S)
    assert ledger.acknowledged == len(ledger.made)
    made = {(ping.device_id, ping.seq) for ping in ledger.made}
    eventually(lambda: run.stored() >= len(made), BACK_S)
    with psycopg.connect(run.engine.database_url) as connection:
        rows = connection.execute("SELECT device_id, seq, count(*) FROM pings GROUP BY 1, 2").fetchall()
        found = set(connection.execute(VIOLATIONS, (NO_TIME,)).fetchall())
        late = connection.execute("SELECT count(*) FROM pings WHERE marks & 1 <> 0").fetchone()[0]
        copies = connection.execute("SELECT sum(duplicates) FROM batches").fetchone()[0]
    assert {(device_id, seq) for device_id, seq, _ in rows} == made
    assert [row for row in rows if row[2] != 1] == []
    expected = expected_violations(rules, ledger.made)
    assert found == expected, (
        f"{len(found ^ expected)} violations differ, such as {list(found ^ expected)[:4]}"
    )
    assert run.engine.stop(20) == 0
    of_which = ", ".join(f"{who} {count}" for who, count in sorted(counts.items()))
    print(
        f"\n{kills} kills in {time.monotonic() - began_s:.0f} s ({of_which}): {len(rows)} pings "
        f"acknowledged, each stored once; {copies} copies and {late} late pings on the way; {len(found)} "
        f"violations, those of an undisturbed run; {ledger.broken} connections lost"
    )


VIOLATIONS = """
SELECT device_id, rule_id, (extract(epoch FROM opened_time) * 1000000)::int8,
       (extract(epoch FROM confirmed_time) * 1000000)::int8,
       coalesce((extract(epoch FROM closed_time) * 1000000)::int8, %s), depth_mm, fixes
FROM current_violations WHERE state IN ('open', 'closed')
"""
