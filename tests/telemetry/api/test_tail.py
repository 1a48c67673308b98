"""``ringfence alerts tail`` as a process of its own, over a real stream."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from rich.console import Console

from telemetry.alerts.tail import Board, TailError, age, printable, tail
from tests.telemetry.api.town import START_US, serving

PROGRAM = (
    "import sys; from telemetry.alerts.tail import tail; tail(sys.argv[1], as_json=sys.argv[2] == 'json')"
)


def follow(url: str, style: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url, style], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_json_lines_across_a_restart_of_the_server_and_a_quiet_end(town, eventually):
    port = free_port()
    lines: list[dict] = []
    with serving(town.url, port=port) as url:
        process = follow(url, "json")
        reader = threading.Thread(target=lambda: lines.extend(json.loads(line) for line in process.stdout))
        reader.start()
        # its connection stands once an alert comes through
        first = town.raise_alert("a1")
        repeat = iter(range(100))
        eventually(
            lambda: lines or (town.raise_alert("a1", opened_us=START_US + next(repeat) * 10**6) and False)
        )
    missed = town.raise_alert("a2")
    with serving(town.url, port=port):
        eventually(lambda: lines[-1]["data"]["alert_id"] == str(missed), timeout_s=20)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    reader.join(10)
    said = process.stderr.read().splitlines()
    assert said
    assert all(line.startswith("connection lost (") for line in said)
    told = [int(line["data"]["alert_id"]) for line in lines]
    written = [alert_id for alert_id in [first, *town.alert_ids[1:]] if alert_id >= told[0]]
    assert told == written


def test_plain_lines_where_the_output_is_no_terminal(town, eventually):
    with serving(town.url) as url:
        process = follow(url, "plain")
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(process.stdout))
        reader.start()
        repeat = iter(range(100))
        eventually(
            lambda: lines or (town.raise_alert("a1", opened_us=START_US + next(repeat) * 10**6) and False)
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        reader.join(10)
    assert "opened critical a1 no-schools: inside school-1 by 62 m" in lines[0]


def test_without_a_database_it_waits_and_says_why(eventually):
    with serving("postgresql://nobody@127.0.0.1:1/nothing") as url:
        process = follow(url, "json")
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(process.stderr))
        reader.start()
        eventually(lambda: lines, timeout_s=20)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        reader.join(10)
    assert "the database is not available" in lines[0]


def test_nothing_answers():
    with pytest.raises(TailError, match=r"nothing answers at .*start `ringfence up`"):
        tail(f"http://127.0.0.1:{free_port()}", as_json=True)


def test_something_else_answers(filled):
    with serving(filled.url) as url, pytest.raises(TailError, match="is no Ringfence"):
        tail(f"{url}/elsewhere", as_json=True)


def an_alert(alert_id: str, **changes) -> dict:
    alert = {
        "alert_id": alert_id,
        "severity": "high",
        "state": "open",
        "opened_at": "2026-11-24T08:00:00Z",
        "device_id": "a17",
        "sentence": "left home",
        "confidence": 0.9999,
    }
    return alert | changes


def text_of(board: Board, height: int = 40) -> str:
    output = io.StringIO()
    Console(file=output, width=120).print(board.render(height))
    return output.getvalue()


def test_the_board_ranks_and_forgets():
    board = Board()
    board.replace(
        [
            an_alert("1", device_id="low1", severity="low"),
            an_alert("2", device_id="crit1", severity="critical"),
        ]
    )
    board.put(an_alert("3", device_id="ack1", severity="critical", state="acknowledged"))
    text = text_of(board)
    assert text.index("crit1") < text.index("low1") < text.index("ack1")
    assert "3 alerts to do" in text
    assert "99.9 %" in text  # never rounded up to certainty
    board.put(an_alert("2", state="resolved"))
    assert "crit1" not in text_of(board)


def test_the_board_keeps_to_the_terminals_height():
    board = Board()
    board.replace([an_alert(str(i)) for i in range(100)])
    assert "100 alerts to do, the first 10 shown" in text_of(board, height=24)


def test_names_can_not_steer_the_terminal():
    board = Board()
    board.put(an_alert("1", sentence="inside \x1b[2J[bold]home[/bold]"))
    text = text_of(board)
    assert "\x1b" not in text
    assert "[bold]home[/bold]" in text
    assert printable("a\x07b") == "a\ufffdb"


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0 s"), (59, "59 s"), (60, "1 min"), (3_700, "1 h 1 min"), (90_000, "1 d 1 h")]
)
def test_age(seconds, text):
    assert age(seconds * 1_000_000) == text


def test_a_dead_reader_of_our_output_ends_it_quietly(town):
    with serving(town.url) as url:
        process = follow(url, "json")
        process.stdout.close()
        deadline_s = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline_s:
            town.raise_alert("a1", opened_us=START_US + len(town.alert_ids) * 10**6)
            process.poll() or threading.Event().wait(0.1)
        assert process.wait(5) == 0
        assert "Traceback" not in process.stderr.read()
