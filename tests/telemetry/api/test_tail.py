"""``ringfence alerts tail`` as a process of its own, over a real stream."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import threading
import time

import pytest
from rich.console import Console

from telemetry.alerts.board import Board, age, printable
from telemetry.alerts.stream import TailError
from telemetry.alerts.tail import tail
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


class Terminal:
    """``alerts tail`` in a pseudo-terminal of its own: what it drew, and keys for it."""

    def __init__(self, url: str) -> None:
        self.ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (30, 130))
        self.modes = termios.tcgetattr(theirs)
        outer = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url, "table"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=outer | {"TERM": "xterm-256color", "NO_COLOR": "1"},
        )
        self.theirs = theirs
        self.drawn = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(self.ours, 65536):
                self.drawn += part.decode(errors="replace")

    @property
    def table(self) -> str:
        """The last table that was drawn."""
        return self.drawn.rpartition("Ringfence: ")[2]

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.theirs)
        self._reader.join(5)
        os.close(self.ours)


@pytest.fixture
def terminal():
    opened: list[Terminal] = []

    def start(url: str) -> Terminal:
        opened.append(Terminal(url))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def states(town_api, *alert_ids: int) -> list[str]:
    return [town_api.get(f"/api/v1/alerts/{alert_id}").json()["state"] for alert_id in alert_ids]


def test_keys_choose_an_alert_and_acknowledge_it(town, town_api, terminal, eventually):
    first = town.raise_alert("a1", severity="critical")
    second = town.raise_alert("a2", severity="high")
    third = town.raise_alert("a3", severity="low")
    screen = terminal(str(town_api.base_url).rstrip("/"))
    eventually(lambda: "3 alerts to do" in screen.drawn and "a acknowledges" in screen.table)

    screen.press("a")  # nothing is chosen, so nothing happens
    eventually(lambda: "choose an alert first" in screen.table)
    assert states(town_api, first, second, third) == ["open"] * 3

    screen.press("\x1b[Bj")  # arrow down, and j: the second
    eventually(lambda: "> high" in screen.table)
    screen.press("a")
    eventually(lambda: "a2 acknowledged by local operator" in screen.table)
    assert states(town_api, first, second, third) == ["open", "acknowledged", "open"]
    assert "> high" in screen.table  # the choice stays with its alert, which is the last one now
    screen.press("a")
    eventually(lambda: "it is acknowledged already" in screen.table)
    screen.press("k")
    eventually(lambda: "> low" in screen.table)

    screen.press("q")
    assert screen.process.wait(10) == 0
    assert termios.tcgetattr(screen.theirs) == screen.modes  # the terminal is as it was
    assert "Traceback" not in screen.drawn


def test_an_alert_is_chosen_by_typing_its_id(town, town_api, terminal, eventually):
    ids = [town.raise_alert(f"a{i}") for i in range(3)]
    screen = terminal(str(town_api.base_url).rstrip("/"))
    eventually(lambda: "3 alerts to do" in screen.drawn)
    screen.press(str(ids[1])[-6:])
    eventually(lambda: "> critical" in screen.table)
    screen.press("a")
    eventually(lambda: "a1 acknowledged by" in screen.table)
    assert states(town_api, *ids) == ["open", "acknowledged", "open"]
    screen.process.send_signal(signal.SIGINT)
    assert screen.process.wait(10) == 0
    assert termios.tcgetattr(screen.theirs) == screen.modes


def test_what_the_api_refuses_is_shown_and_the_table_goes_on(town, town_api, terminal, eventually):
    alert_id = town.raise_alert("a1")
    screen = terminal(str(town_api.base_url).rstrip("/"))
    eventually(lambda: "1 alert to do" in screen.drawn)
    step = {"outcome": "real", "who": "m.ito"}
    with serving("postgresql://nobody@127.0.0.1:1/nothing") as url:
        broken = terminal(url)
        eventually(lambda: "the database is not available" in broken.table, timeout_s=20)
        broken.press("ja")
        eventually(lambda: "choose an alert first" in broken.table)
        broken.press("q")
        assert broken.process.wait(10) == 0
    assert town_api.post(f"/api/v1/alerts/{alert_id}/resolve", json=step).status_code == 200
    eventually(lambda: "0 alerts to do" in screen.table)
    screen.press("q")
    assert screen.process.wait(10) == 0


def test_the_choice_goes_with_its_alert_and_ends_with_it():
    board = Board(keys=True)
    board.replace([an_alert(f"90000{i}", device_id=f"d{i}") for i in range(5)])
    board.move(1)
    chosen = board.chosen["alert_id"]
    board.put(an_alert("900009", severity="critical"))
    assert board.chosen["alert_id"] == chosen
    board.put(an_alert(chosen, state="resolved"))
    assert board.chosen is None
    board.move(-1)
    assert board.chosen is not None
    board.type("9")  # five fit
    assert "id 9" in text_of(board)
    for digit in "00003":
        board.type(digit)
    assert board.chosen["alert_id"] == "900003"
    board.type("7")
    assert "no alert to do has an id that begins with 7" in text_of(board)
    board.forget()
    assert board.chosen is None


def test_the_table_moves_along_with_the_choice():
    board = Board(keys=True)
    board.replace(
        [an_alert(str(i), device_id=f"d{i:03}", opened_at=f"2026-11-24T08:{i:02}:00Z") for i in range(60)]
    )
    for _ in range(30):
        board.move(1)
    text = text_of(board, height=24)
    assert board.chosen["device_id"] == "d030"
    assert "d030" in text
    assert "60 alerts to do, 22 to 30 shown" in text
