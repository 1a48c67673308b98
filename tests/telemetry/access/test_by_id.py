"""Steps from a terminal: by an id's end, under the token's name, with what the API says when it refuses."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from telemetry.alerts.by_id import api_client, take_step
from telemetry.alerts.stream import TailError
from telemetry.cli import app


def test_alerts_are_worked_on_by_the_end_of_their_id(caseloads, door_api, keys, monkeypatch, tmp_path):
    alert_id = str(caseloads.raise_alert("a1"))
    at = ["--url", str(door_api.base_url), "--data-dir", str(tmp_path)]
    run = CliRunner().invoke
    monkeypatch.setenv("RINGFENCE_TOKEN", keys["operator"])
    taken = run(app, ["alerts", "acknowledge", alert_id[-6:], "--note", "calling", *at])
    assert taken.exit_code == 0, taken.output
    assert "acknowledged by operator" in " ".join(taken.output.split())
    assert run(app, ["alerts", "resolve", alert_id, "--outcome", "false", *at]).exit_code == 0
    log = door_api.get(
        f"/api/v1/alerts/{alert_id}", headers={"Authorization": f"Bearer {keys['operator']}"}
    ).json()["log"]
    assert [(s["change"], s["who"], s["note"]) for s in log[1:]] == [
        ("acknowledged", "operator", "calling"),
        ("resolved", "operator", None),
    ]


def test_what_the_api_refuses_is_told(caseloads, door_api, keys):
    url = str(door_api.base_url)
    alert_id = str(caseloads.raise_alert("a1"))
    with api_client(url, None, None) as client, pytest.raises(TailError, match="nobody is logged in"):
        take_step(client, alert_id, "acknowledge", {})
    with api_client(url, keys["read_only"], None) as client, pytest.raises(TailError, match="read_only"):
        take_step(client, alert_id, "acknowledge", {})
    with (
        api_client(url, keys["operator"], None) as client,
        pytest.raises(TailError, match="no id of an alert"),
    ):
        take_step(client, "x", "acknowledge", {})
