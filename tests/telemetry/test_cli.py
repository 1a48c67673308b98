"""The command as a newcomer meets it: help that fits a terminal, and errors that end with status 2."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from telemetry.config import DEFAULT_HTTP, Settings


def ringfence(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "telemetry.cli", *arguments],
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "80", "HOME": "/nowhere"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "command", ["", "up", "check", "simulate", "replay", "doctor", "alerts", "alerts tail"]
)
def test_help_fits_80_columns_and_cuts_nothing(command):
    shown = ringfence(*command.split(), "--help")
    assert shown.returncode == 0, shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "…" not in shown.stdout
    assert "--no-" not in shown.stdout


def test_help_names_the_defaults():
    for default in (DEFAULT_HTTP, "~/.local/state/ringfence", str(Settings().simulate_seed)):
        assert f"default: ({default})" in ringfence("up", "--help").stdout


def test_it_says_its_version():
    assert ringfence("--version").stdout == f"ringfence {version('ringfence')}\n"


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["up", "--http", "0.0.0.0"], {}, "--http: '0.0.0.0' is not HOST:PORT"),
        (["up"], {"RINGFENCE_LOG_LEVEL": "loud"}, "loud: there are debug, info, warning and error"),
        (["alerts", "tail", "--url", "http://127.0.0.1:1"], {}, "start `ringfence up`"),
    ],
)
def test_a_users_error_is_a_line_and_status_2(arguments, environment, words):
    ended = ringfence(*arguments, **environment)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_an_output_that_cant_be_written_is_a_users_error(tmp_path):
    (tmp_path / "zones").mkdir()
    (tmp_path / "rules.toml").write_text('timezone = "UTC"\n')
    (tmp_path / "pings.csv").write_text("device_id,time\na17,2026-11-24T08:00:00Z\n")
    out = tmp_path / "missing" / "out.json"
    ended = ringfence("check", "--rules", str(tmp_path), str(tmp_path / "pings.csv"), "--out", str(out))
    assert ended.returncode == 2
    assert f"--out {out}: No such file or directory" in ended.stderr
    assert "Traceback" not in ended.stderr
