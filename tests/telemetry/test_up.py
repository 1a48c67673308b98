"""What a running engine does about the servers that it has started; tests/end_to_end has the rest."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from geofence import RuleError
from telemetry import up as up_module
from telemetry.config import load_settings
from telemetry.services.broker import EmbeddedBroker
from telemetry.up import Up


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def up(said: list[str], monkeypatch: pytest.MonkeyPatch) -> Up:
    """An engine of which only the loop runs; its session never becomes ready."""
    monkeypatch.setattr(up_module, "SICK_S", 0.1)
    up = Up(load_settings(), said.append)
    up._share_thread = threading.current_thread()
    up._share_session = SimpleNamespace(ready=False, problem=None, publish=lambda *_: None)
    up._heartbeat = SimpleNamespace(of=lambda *_: None)
    up.share, up.metrics = SimpleNamespace(problem=None), None
    return up


def test_bad_rules_are_refused_before_anything_is_started(tmp_path, said):
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "rules.toml").write_text('timezone = "Mars/Base"\n')
    settings = load_settings(rules=rules, data_dir=tmp_path / "data", http="127.0.0.1:0")
    with pytest.raises(RuleError, match=r"rules\.toml:1: timezone"), Up(settings, said.append):
        pass
    assert said == []
    assert not (tmp_path / "data" / "postgres").exists()


def test_a_server_that_finds_no_room_on_the_disk_does_not_end_the_engine(up, said):
    def start() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    up._start_again(start)
    assert "No space left on device" in said[0]


def test_a_broker_that_runs_and_serves_nobody_is_started_again(up, said):
    stop = threading.Event()

    class SickBroker(EmbeddedBroker):
        pid = 1

        def restart(self) -> None:
            stop.set()

    up._servers["broker"] = SickBroker(Path("somewhere"))
    up.serve(stop, threading.Event())
    assert "serves nobody" in said[0]
    assert "nats-server.log" in said[0]
