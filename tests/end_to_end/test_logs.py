"""The log of a real run as JSON lines: every line is one, and none holds a coordinate."""

from __future__ import annotations

import json
import re

import psycopg
import pytest

from tests.end_to_end.conftest import RunningEngine


@pytest.fixture
def run(short_tmp):
    """A run with a fleet, at info level, with a webhook that nobody answers."""
    directory = short_tmp / "logs"
    directory.mkdir(mode=0o711)
    config = directory / "ringfence.toml"
    config.write_text(
        'log_format = "json"\n'
        '[[webhooks]]\nname = "nobody"\nurl = "http://127.0.0.1:9/"\nallow_networks = ["127.0.0.0/8"]\n'
        'secrets = ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]\n'
    )
    engine = RunningEngine(
        directory / "data", "--config", str(config), "--simulate", "30", "--log-level", "info"
    )
    try:
        yield engine.wait_ready()
    finally:
        engine.stop(30.0)


def test_no_line_of_the_log_holds_a_coordinate(run, eventually):
    with psycopg.connect(run.database_url, autocommit=True) as connection:

        def pings() -> list[tuple[int, int]]:
            return connection.execute("SELECT lat_e7, lon_e7 FROM pings WHERE lat_e7 IS NOT NULL").fetchall()

        eventually(lambda: len(pings()) >= 30, timeout_s=90.0)
        fixes = pings()
    run.process.send_signal(1)  # SIGHUP: reload, with nothing to reload, is told too
    eventually(lambda: "SIGHUP" in run.output)
    assert run.stop(30.0) == 0
    lines = [json.loads(line) for line in run.lines if line.startswith("{")]
    assert len(lines) == len([line for line in run.lines if line.strip()]), run.output
    assert {"time", "level", "logger", "thread", "message"} <= set(lines[0])
    assert any("ready after" in line["message"] for line in lines)
    text = run.output
    # three decimals are some 100 m: any number that is near a fix would be found
    near = {f"{abs(e7) / 1e7:.3f}"[:-1] for fix in fixes for e7 in fix} | {
        str(e7)[:7] for f in fixes for e7 in f
    }
    told = set(re.findall(r"\d+\.\d{2}|\d{7}", text))
    assert near
    assert not near & told
