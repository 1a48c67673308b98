import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from telemetry import doctor
from telemetry.config import Settings
from telemetry.doctor import Check, check_clock, run_checks
from telemetry.services import RunningUp, write_state
from telemetry.store import Store

RULES = """
timezone = "UTC"
[[rules]]
id = "keep-away"
subjects = ["all"]
require = "outside"
zones = ["home"]
"""
ZONE = """
{"type": "Feature", "properties": {"id": "home", "radius_m": 100},
 "geometry": {"type": "Point", "coordinates": [8.5, 47.4]}}
"""


def checks(data_dir: Path, **settings: object) -> dict[str, Check]:
    found = run_checks(Settings.model_validate({"data_dir": data_dir, **settings}))
    names = [check.name for check in found]
    assert len(names) == len(set(names))
    for check in found:
        assert check.ok == (check.remedy is None), check
    return {check.name: check for check in found}


def wrong(found: dict[str, Check]) -> list[str]:
    return [name for name, check in found.items() if not check.ok]


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    directory = tmp_path / "rules"
    (directory / "zones").mkdir(parents=True)
    (directory / "zones" / "home.geojson").write_text(ZONE)
    (directory / "rules.toml").write_text(RULES)
    return directory


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as bound:  # bound, and never listening: nothing else can take it
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_before_the_first_up_all_is_well_and_nothing_is_made(tmp_path: Path) -> None:
    data_dir = tmp_path / "not" / "yet"
    found = checks(data_dir)
    assert wrong(found) == []
    assert list(found) == ["data directory", "disk", "clock", "broker", "database", "rules"]
    assert "not running" in found["broker"].detail
    assert "not running" in found["database"].detail
    assert list(tmp_path.iterdir()) == []


def test_with_everything_there_all_is_well(
    tmp_path: Path, nats_url: str, database_url: str, rules: Path
) -> None:
    with psycopg.connect(database_url) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_class").fetchone()
    found = checks(tmp_path, mqtt_url=nats_url, database_url=database_url, rules=rules)
    assert wrong(found) == []
    assert "none yet" in found["schema"].detail
    assert "1 rules, 1 zones" in found["rules"].detail
    password = urlsplit(nats_url).password
    assert password is not None
    assert not [check for check in found.values() if password in check.detail]
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_class").fetchone() == tables  # it has only looked

    store = Store.open(database_url)
    store.migrate()
    extension = store.extension
    store.close()
    found = checks(tmp_path, mqtt_url=nats_url, database_url=database_url)
    assert wrong(found) == []
    assert found["schema"].detail.startswith("version 1 of 1")
    assert (extension or "no TimescaleDB").partition(",")[0] in found["extension"].detail
    assert (extension or "") in found["schema"].detail  # with its edition


def test_mosquitto_is_as_good(tmp_path: Path, mosquitto_url: str) -> None:
    assert wrong(checks(tmp_path, mqtt_url=mosquitto_url)) == []


def test_a_running_up_is_found_through_its_data_directory(
    tmp_path: Path, nats_url: str, embedded_database_url: str
) -> None:
    write_state(
        tmp_path,
        RunningUp.of_this_process(
            mqtt_url=nats_url, database_url=embedded_database_url, http_url="http://127.0.0.1:1"
        ),
    )
    found = checks(tmp_path)
    assert wrong(found) == []
    assert f"process {os.getpid()}" in found["data directory"].detail
    assert f"127.0.0.1:{urlsplit(nats_url).port}" in found["broker"].detail


def test_an_unreachable_broker(tmp_path: Path, closed_port: int) -> None:
    found = checks(tmp_path, mqtt_url=f"mqtt://127.0.0.1:{closed_port}")
    assert wrong(found) == ["broker"]
    assert str(closed_port) in found["broker"].detail


def test_wrong_credentials_of_the_broker(tmp_path: Path, nats_url: str) -> None:
    password = urlsplit(nats_url).password
    assert password is not None
    found = checks(tmp_path, mqtt_url=nats_url.replace(password, "guess"))
    assert wrong(found) == ["broker"]
    assert "password" in f"{found['broker'].detail} {found['broker'].remedy}"


def test_an_unreachable_database(tmp_path: Path, closed_port: int) -> None:
    found = checks(tmp_path, database_url=f"postgresql://a:b@127.0.0.1:{closed_port}/c")
    assert wrong(found) == ["database"]


def test_wrong_credentials_of_the_database(tmp_path: Path, postgres_url: str) -> None:
    password = urlsplit(postgres_url).password
    assert password is not None
    found = checks(tmp_path, database_url=postgres_url.replace(password, "guess"))
    assert wrong(found) == ["database"]
    assert "password" in (found["database"].remedy or "")


@pytest.mark.parametrize(
    ("statement", "detail"),
    [
        ("ALTER ROLE {role} SET default_transaction_read_only = on", "read-only"),
        ("SELECT 1", "may not make tables"),
    ],
)
def test_a_database_that_can_not_be_written(
    tmp_path: Path, embedded_database_url: str, statement: str, detail: str
) -> None:
    role = "reader_" + os.urandom(4).hex()
    parts = urlsplit(embedded_database_url)
    with psycopg.connect(embedded_database_url, autocommit=True) as connection:
        # pg_hba.conf of the embedded server admits one role only, so the reader is that role's disguise.
        connection.execute(f"CREATE ROLE {role}")
        connection.execute(statement.format(role="ringfence"))
        try:
            url = embedded_database_url + f"&options=-c%20role%3D{role}"
            found = checks(tmp_path, database_url=url)
        finally:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER ROLE ringfence RESET default_transaction_read_only")
            connection.execute(f"DROP ROLE {role}")
    assert parts.username == "ringfence"
    assert wrong(found) == ["database writable"]
    assert detail in found["database writable"].detail


def test_a_clock_that_is_far_off(
    tmp_path: Path, embedded_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 7300.0)
    found = checks(tmp_path, database_url=embedded_database_url)
    assert wrong(found) == ["clock", "database clock"]
    assert "2 hours away from the file system's clock" in found["clock"].detail
    assert "2 hours ahead of this machine's" in found["database clock"].detail
    assert "NTP" in (found["clock"].remedy or "")


def test_a_clock_that_went_back(tmp_path: Path) -> None:
    assert check_clock(tmp_path).ok
    file = tmp_path / "from-the-future"
    file.touch()
    os.utime(file, (time.time() + 3 * 86_400,) * 2)
    check = check_clock(tmp_path)
    assert not check.ok
    assert "3 days behind" in check.detail


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=1000))
    found = checks(tmp_path)
    assert wrong(found) == ["disk"]
    assert "0.0 GB free" in found["disk"].detail


def test_a_data_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert wrong(checks(tmp_path / "file")) == ["data directory"]


def test_wrong_rules_are_told_whole(tmp_path: Path, rules: Path) -> None:
    (rules / "rules.toml").write_text(RULES.replace('"home"', '"hme"').replace('"outside"', '"out"'))
    found = checks(tmp_path, rules=rules)
    assert wrong(found) == ["rules"]
    assert "hme" in found["rules"].detail
    assert "rules.toml" in found["rules"].detail


def test_spans_are_said_as_people_say_them() -> None:
    assert [doctor._span(seconds) for seconds in (0.04, 90.0, 125.0, 7200.0, 200_000.0)] == [
        "0.0 s",
        "90.0 s",
        "2 minutes",
        "2 hours",
        "2 days",
    ]
