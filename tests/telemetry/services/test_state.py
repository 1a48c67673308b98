import os
import stat
from pathlib import Path

import msgspec
import pytest

from telemetry.services import RunningUp, clear_state, read_state, write_state


@pytest.fixture
def running() -> RunningUp:
    return RunningUp.of_this_process(
        mqtt_url="mqtt://ringfence:secret@127.0.0.1:1",
        database_url="postgresql:///x",
        http_url="http://127.0.0.1:2",
    )


def test_what_is_written_is_read(tmp_path: Path, running: RunningUp) -> None:
    write_state(tmp_path, running)
    assert read_state(tmp_path) == running
    assert running.pid == os.getpid()


def test_nobody_else_reads_the_passwords(tmp_path: Path, running: RunningUp) -> None:
    write_state(tmp_path, running)
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o600


def test_the_state_of_a_process_that_is_gone_does_not_count(tmp_path: Path, running: RunningUp) -> None:
    write_state(tmp_path, msgspec.structs.replace(running, started_ticks=running.started_ticks - 1))
    assert read_state(tmp_path) is None


def test_cleared_state_is_none_and_clearing_twice_is_fine(tmp_path: Path, running: RunningUp) -> None:
    write_state(tmp_path, running)
    clear_state(tmp_path)
    clear_state(tmp_path)
    assert read_state(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "\0"])
def test_a_damaged_state_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert read_state(tmp_path) is None
