"""What is shipped to run it: the dashboard names metrics that exist, the unit and the files are sound."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from telemetry.config import Settings
from telemetry.metrics import Metrics

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"


@pytest.fixture(scope="module")
def dashboard() -> dict:
    return json.loads((DEPLOY / "grafana-dashboard.json").read_text())


def exported() -> set[str]:
    """Every sample name that /metrics can have."""
    names = set()
    for family in Metrics().registry.collect():
        names |= {
            "counter": {f"{family.name}_total"},
            "histogram": {f"{family.name}_{part}" for part in ("bucket", "sum", "count")},
        }.get(family.type, {family.name})
    return names


def test_each_expression_names_a_metric_that_exists(dashboard):
    expressions = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", [])]
    expressions += [v["definition"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    named = {name for e in expressions for name in re.findall(r"ringfence_\w+", e)}
    assert named <= exported()
    for expression in expressions:
        assert expression.count("(") == expression.count(")"), expression


def test_each_metric_is_on_the_dashboard(dashboard):
    text = json.dumps(dashboard)
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported() if name in text}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported()} - shown == set()


def test_no_panel_lies_on_another(dashboard):
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    taken = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_unit_is_sound(tmp_path):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "ringfence.service"
    text = (DEPLOY / "ringfence.service").read_text()
    executable = re.search(r"^ExecStart=(\S+)", text, re.MULTILINE)[1]
    assert executable == "/opt/ringfence/.venv/bin/ringfence"
    unit.write_text(text.replace(executable, "/bin/true"))
    verified = subprocess.run([program, "verify", unit], capture_output=True, text=True, check=False)
    told = [line for line in verified.stderr.splitlines() if "ringfence.service" in line]
    assert (verified.returncode, told) == (0, [])
    rated = subprocess.run(
        [program, "security", "--offline=true", "--threshold=20", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout[-300:]


def test_the_compose_file_fits_the_program():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"broker", "database", "engine"}
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("../"):
                assert (DEPLOY / source).resolve().is_file(), source
            elif not source.startswith("."):
                assert source in compose["volumes"]
    settings = {name.removeprefix("RINGFENCE_").lower() for name in services["engine"]["environment"]}
    assert settings <= {*Settings.model_fields, "log_level"}
    asked = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    given = set(re.findall(r"^(\w+)=", (DEPLOY / "secrets.env.example").read_text(), re.MULTILINE))
    assert asked == given
    build = services["engine"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    conf = (REPOSITORY / "docs" / "mosquitto.conf").read_text()
    passwd = next(v for v in services["broker"]["volumes"] if "passwd" in v).split(":")[1]
    assert f"password_file {passwd}" in conf


def test_the_container_file_copies_what_there_is():
    lines = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    words = {line.split()[0] for line in lines if line.strip() and not line.startswith(("#", " "))}
    assert words <= {
        "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT",
        "CMD",
    }  # fmt: skip
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (REPOSITORY / source).exists(), source


def test_prometheus_asks_at_the_default_address():
    from telemetry.config import DEFAULT_HTTP

    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    assert config["scrape_configs"][0]["static_configs"][0]["targets"] == [DEFAULT_HTTP]
