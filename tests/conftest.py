"""Real parts for tests: PostgreSQL, TimescaleDB where it is set up, brokers. All end with the session."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from telemetry.services.broker import EmbeddedBroker
from telemetry.services.postgres import EmbeddedPostgres

TIMESCALE_URL = os.environ.get("RINGFENCE_TEST_TIMESCALE_URL")

# Tests that use these fixtures have these markers, so that one can ask for them or leave them out.
MARKER_OF_FIXTURE = {
    "mosquitto_url": "mosquitto",
    "distro_postgres_url": "distro_postgres",
    "distro_database_url": "distro_postgres",
}
# Set by .ci/run, which installs all of it: to skip a test for the lack of one of these is a failure there.
MUST_RUN = set(os.environ.get("RINGFENCE_TEST_MUST_RUN", "").split())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in MARKER_OF_FIXTURE:
                item.add_marker(MARKER_OF_FIXTURE[fixture])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    lacking = MUST_RUN & {marker.name for marker in item.iter_markers()}
    if report.skipped and lacking and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason}; but RINGFENCE_TEST_MUST_RUN names {', '.join(sorted(lacking))}"
    return report


@pytest.fixture(scope="session")
def eventually() -> Callable[..., object]:
    """``eventually(predicate, timeout_s=10.0)``: asks until the answer is true, gives it, or fails.

    An AssertionError of the predicate counts as "not yet", and is what the test fails with.
    """

    def wait(predicate: Callable[[], object], timeout_s: float = 10.0, poll_s: float = 0.02) -> object:
        deadline_s = time.monotonic() + timeout_s
        while True:
            last: AssertionError | None = None
            answer: object = None
            try:
                answer = predicate()
            except AssertionError as error:
                last = error
            if answer:
                return answer
            if time.monotonic() > deadline_s:
                raise last or AssertionError(f"not true within {timeout_s} s; the last answer was {answer!r}")
            time.sleep(poll_s)

    return wait


@pytest.fixture(scope="session")
def short_tmp() -> Iterator[Path]:
    """A directory that every user may pass through, with a short path; removed at the end.

    Pytest's own are 0700: as root, the database's user could not reach a data directory in them.
    At the end no server may work in it any more: whoever starts one has to stop it.
    """
    directory = Path(tempfile.mkdtemp(prefix="rf-test-", dir="/tmp"))
    directory.chmod(0o711)
    yield directory
    left = _working_under(directory)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(directory, ignore_errors=True)
    assert not left, f"these were left running: {left}"


@pytest.fixture(scope="session")
def postgres_url(short_tmp: Path) -> Iterator[str]:
    """The URL of one embedded PostgreSQL for the whole session; its role may do everything."""
    server = EmbeddedPostgres(short_tmp / "postgres-data")
    yield server.start()
    server.stop()


@pytest.fixture(
    params=[
        "embedded",
        pytest.param(
            "timescale",
            marks=[
                pytest.mark.timescale,
                pytest.mark.skipif(TIMESCALE_URL is None, reason="RINGFENCE_TEST_TIMESCALE_URL is not set"),
            ],
        ),
    ]
)
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh, empty database: once on the embedded server, once on TimescaleDB where it is set up."""
    server = TIMESCALE_URL if request.param == "timescale" else request.getfixturevalue("postgres_url")
    assert server is not None
    yield from _fresh_database(server)


@pytest.fixture
def embedded_database_url(postgres_url: str) -> Iterator[str]:
    """A fresh, empty database on the embedded server only: where the kind of server is no matter."""
    yield from _fresh_database(postgres_url)


@pytest.fixture(scope="session")
def distro_postgres_url(short_tmp: Path) -> Iterator[str]:
    """A PostgreSQL of the distribution, on a socket; skips where none is installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not installed:
        pytest.skip("no PostgreSQL of the distribution in /usr/lib/postgresql")
    binaries = installed[-1].parent
    home = short_tmp / "distro-postgres"
    home.mkdir(mode=0o700)
    user: dict[str, object] = {}
    if os.geteuid() == 0:
        shutil.chown(home, "postgres", "postgres")
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    data = home / "data"
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "ringfence", "--auth=trust", "-E", "UTF8"],
        check=True,
        capture_output=True,
        cwd="/",
        **user,
    )
    log = (home / "log").open("wb")
    server = subprocess.Popen(
        [binaries / "postgres", "-D", data, "-c", "listen_addresses=", "-k", home, "-c", "fsync=off"],
        stdout=log,
        stderr=log,
        cwd="/",
        **user,
    )
    url = f"postgresql://ringfence@/postgres?host={home}&port=5432"
    try:
        _until(lambda: _answers(url), server)
        yield url
    finally:
        server.terminate()
        server.wait()
        log.close()


@pytest.fixture
def distro_database_url(distro_postgres_url: str) -> Iterator[str]:
    """A fresh, empty database on the distribution's PostgreSQL."""
    yield from _fresh_database(distro_postgres_url)


@pytest.fixture
def nats_url(short_tmp: Path) -> Iterator[str]:
    """The URL of a fresh embedded broker of this test alone."""
    broker = EmbeddedBroker(short_tmp / f"broker-{uuid.uuid4().hex[:8]}")
    yield broker.start()
    broker.stop()
    shutil.rmtree(broker.data_dir)


@pytest.fixture
def mosquitto_url(short_tmp: Path) -> Iterator[str]:
    """A fresh mosquitto of this test alone, with the limits of docs/mosquitto.conf; skips where absent."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed")
    directory = short_tmp / f"mosquitto-{uuid.uuid4().hex[:8]}"
    directory.mkdir(mode=0o711)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What is shipped, but for the place: another port, another directory, and no users to make first.
    shipped = Path(__file__).parents[1].joinpath("docs", "mosquitto.conf").read_text().splitlines()
    ours = [
        line
        for line in shipped
        if not line.startswith(("listener", "allow_", "password_", "persistence_location"))
    ]
    ours += [
        f"listener {port} 127.0.0.1",
        "allow_anonymous true",
        f"persistence_location {directory}/",
        "user root",
    ]
    config = directory / "mosquitto.conf"
    config.write_text("\n".join(ours) + "\n")
    server = subprocess.Popen([program, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"mqtt://127.0.0.1:{port}"
    try:
        _until(lambda: _listens(url), server)
        yield url
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(directory)


def _working_under(directory: Path) -> dict[int, str]:
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(directory):
                found[int(process.name)] = (process / "comm").read_text().strip()
    return found


def _fresh_database(server_url: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield urlsplit(server_url)._replace(path=f"/{name}").geturl().replace("postgresql:/?", "postgresql:///?")
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _until(ready: Callable[[], bool], server: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 20.0
    while not ready():
        assert server.poll() is None, f"{server.args} ended with status {server.returncode}"
        assert time.monotonic() < deadline_s, f"{server.args} does not answer"
        time.sleep(0.02)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    try:
        socket.create_connection((parts.hostname, parts.port), 1.0).close()
    except OSError:
        return False
    return True
