import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from telemetry.services import (
    ClusterVersionError,
    DataDirInUse,
    EmbeddedPostgres,
    StartError,
    postgres,
    postgres_home,
)
from telemetry.services.processes import ProcessId, run_as, wait_until
from tests.telemetry.services.services_helpers import forget, listening_on, pids_inside

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the database as another user")
AttemptAs = Callable[[Callable[[], object]], str]


@pytest.fixture
def server(made_data_dir: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(made_data_dir)
    server.start()
    yield server
    server.stop()


def ask(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]


def remember(url: str, number: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS remembered (number int)")
        connection.execute("INSERT INTO remembered VALUES (%s)", (number,))


def remembered(url: str) -> object:
    return ask(url, "SELECT array_agg(number ORDER BY number) FROM remembered")


def socket_of(url: str) -> Path:
    return Path(parse_qs(urlsplit(url).query)["host"][0]) / ".s.PGSQL.5432"


def pids_of(server: EmbeddedPostgres) -> list[int]:
    return pids_inside([server.home.directory])


# --- an ordinary life -----------------------------------------------------------------------------


def test_what_is_stored_is_there_after_a_restart(server: EmbeddedPostgres) -> None:
    url = server.url
    remember(url, 1)
    server.stop()
    assert EmbeddedPostgres(server.data_dir).start() == url
    assert remembered(url) == [1]


def test_stop_leaves_no_process_and_no_socket(server: EmbeddedPostgres) -> None:
    connection = psycopg.connect(server.url)  # a client that stays does not hold it up
    assert len(pids_of(server)) > 3
    server.stop()
    assert pids_of(server) == []
    assert not socket_of(server.url).exists()
    assert not (server.cluster / "postmaster.pid").exists()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    server.stop()


def test_starting_twice_changes_nothing(server: EmbeddedPostgres) -> None:
    pid = server.pid
    assert server.start() == server.url
    assert server.pid == pid


def test_it_is_safe_and_reads_text_as_utf8(server: EmbeddedPostgres) -> None:
    expected = {
        "fsync": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "listen_addresses": "",
        "password_encryption": "scram-sha-256",
    }
    assert {name: ask(server.url, f"SHOW {name}") for name in expected} == expected
    assert ask(server.url, "SELECT datcollate FROM pg_database WHERE datname = 'ringfence'") == "C"


def test_it_listens_on_no_tcp_port(server: EmbeddedPostgres) -> None:
    assert listening_on(pids_of(server)) == []


def test_progress_is_told(data_dir: Path) -> None:
    said: list[str] = []
    server = EmbeddedPostgres(data_dir, said.append)
    server.start()
    server.stop()
    assert [line.split(" (")[0] for line in said[-2:]] == [
        "making the database",
        f"embedded PostgreSQL runs as {server.home.owner.name}",
    ]


def test_ctrl_c_in_the_terminal_does_not_reach_it(server: EmbeddedPostgres) -> None:
    assert server.pid is not None
    assert os.getsid(server.pid) != os.getsid(0)
    assert os.getpgid(server.pid) != os.getpgid(0)


# --- killed ---------------------------------------------------------------------------------------


def test_it_starts_after_its_postmaster_was_killed(server: EmbeddedPostgres) -> None:
    remember(server.url, 1)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert wait_until(lambda: server.pid is None, 5.0)
    assert (server.cluster / "postmaster.pid").exists()
    assert remembered(server.start()) == [1]


def test_it_starts_after_all_of_it_was_killed_in_the_middle_of_writing(server: EmbeddedPostgres) -> None:
    remember(server.url, 1)
    unfinished = psycopg.connect(server.url)
    unfinished.execute("INSERT INTO remembered SELECT 2 FROM generate_series(1, 10000)")
    for pid in pids_of(server):
        os.kill(pid, signal.SIGKILL)
    unfinished.close()
    assert wait_until(lambda: server.pid is None, 5.0)
    assert remembered(server.start()) == [1]


def test_an_orphan_is_ended_and_its_data_kept(data_dir: Path, killable_up) -> None:
    remember(killable_up.database_url, 1)
    orphan = ProcessId.of(int((data_dir / "postgres/cluster/postmaster.pid").read_text().split()[0]))
    assert orphan is not None
    killable_up.kill()
    assert orphan.runs()
    said: list[str] = []
    server = EmbeddedPostgres(data_dir, said.append)
    assert remembered(server.start()) == [1]
    assert not orphan.runs()
    assert "ending the database server that an earlier run left behind" in said
    server.stop()


def test_a_postmaster_that_hangs_is_ended(
    data_dir: Path, killable_up, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "STOP_FAST_S", 0.2)
    monkeypatch.setattr(postgres, "STOP_IMMEDIATE_S", 0.2)
    remember(killable_up.database_url, 1)
    orphan = int((data_dir / "postgres/cluster/postmaster.pid").read_text().split()[0])
    killable_up.kill()
    os.kill(orphan, signal.SIGSTOP)
    server = EmbeddedPostgres(data_dir)
    assert remembered(server.start()) == [1]
    server.stop()


def test_stop_ends_one_that_hangs(server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "STOP_FAST_S", 0.2)
    monkeypatch.setattr(postgres, "STOP_IMMEDIATE_S", 0.2)
    remember(server.url, 1)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    server.stop()
    assert pids_of(server) == []
    assert remembered(server.start()) == [1]


def test_a_stale_pid_that_now_is_someone_elses_harms_nobody(server: EmbeddedPostgres) -> None:
    pid_file = server.cluster / "postmaster.pid"
    text = pid_file.read_text()
    pid = str(server.pid)
    server.stop()
    with subprocess.Popen(["sleep", "600"], cwd="/", **server.home.owner.popen) as innocent:
        server._write_as_owner(pid_file, text.replace(pid, str(innocent.pid), 1))
        assert ask(server.start(), "SELECT 1") == 1
        assert innocent.poll() is None
        innocent.kill()


def test_a_half_made_database_is_made_anew(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    home = postgres_home.find_home(postgres.prepare_data_dir(data_dir), lambda _: None)
    run_as(home.owner, ["mkdir", "-p", home.directory / "cluster.unfinished" / "base"])
    assert ask(server.start(), "SELECT 1") == 1
    server.stop()


# --- who may and who may not ----------------------------------------------------------------------


def test_files_and_socket_are_private(server: EmbeddedPostgres) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(server.password_path) == 0o600
    assert mode(server.home.directory) == 0o700
    assert mode(server.cluster) == 0o700
    assert mode(socket_of(server.url).parent) == 0o700
    owners = {path.stat().st_uid for path in (server.home.directory, server.cluster, socket_of(server.url))}
    assert owners == {server.home.uid}
    assert server.home.uid != 0


def test_another_user_gets_in_nowhere(server: EmbeddedPostgres, as_stranger: AttemptAs) -> None:
    url, path = server.url, str(socket_of(server.url))

    def reach_the_socket() -> object:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect(path)

    attempts: list[Callable[[], object]] = [
        reach_the_socket,
        server.password_path.read_text,
        lambda: list(server.home.directory.iterdir()),
        (server.cluster / "PG_VERSION").read_text,
        (server.data_dir / "postgres-start.log").read_text,
        lambda: list(server.data_dir.iterdir()),
    ]
    for attempt in attempts:
        assert as_stranger(attempt).startswith("PermissionError")
    # Even who knows the password does not reach it.
    assert "Permission denied" in as_stranger(lambda: psycopg.connect(url))


def test_who_reaches_the_socket_needs_the_password(server: EmbeddedPostgres) -> None:
    password = urlsplit(server.url).password
    assert password is not None
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url.replace(password, "guess"))
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(server.url.replace(f":{password}", ""))
    for stranger in ("postgres", "root", "nobody"):
        with pytest.raises(psycopg.OperationalError, match=r"no pg_hba.conf entry"):
            psycopg.connect(server.url.replace("ringfence:", f"{stranger}:", 1))


@AS_ROOT
def test_as_root_it_runs_as_somebody_without_privileges(server: EmbeddedPostgres) -> None:
    names = [user.pw_name for user in pwd.getpwall()]
    assert server.home.owner.name == ("postgres" if "postgres" in names else "nobody")
    for pid in pids_of(server):
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"Uid:\t{server.home.uid}\t{server.home.uid}\t{server.home.uid}" in status
        assert "Groups:\t \n" in status
        assert "CapEff:\t0000000000000000" in status


@AS_ROOT
def test_without_postgres_and_nobody_the_first_system_user_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    users = [user for user in pwd.getpwall() if user.pw_name not in ("postgres", "nobody")]
    monkeypatch.setattr(pwd, "getpwall", lambda: users)
    owner = postgres_home.unprivileged_user()
    assert 0 < owner.uid < 1000
    monkeypatch.setattr(pwd, "getpwall", list)
    with pytest.raises(StartError, match=r"no unprivileged user.*--database-url"):
        postgres_home.unprivileged_user()


# --- places ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x" * 200, "a b,'c\"; d", "ümläut"])
def test_a_data_directory_may_have_any_name(data_dir: Path, name: str) -> None:
    directory = data_dir.parent / name
    said: list[str] = []
    server = EmbeddedPostgres(directory, said.append)
    try:
        url = server.start()
        assert len(os.fsencode(socket_of(url))) <= 107
        remember(url, 1)
        place = socket_of(url).parent
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert server.home.directory == directory / "postgres"
        server.stop()
        assert not place.exists()
        assert remembered(server.start()) == [1]
    finally:
        server.stop()
        forget(directory)


def test_after_a_death_the_url_stays_though_a_start_fails(data_dir: Path) -> None:
    directory = data_dir.parent / ("y" * 200)  # its socket lives elsewhere
    server = EmbeddedPostgres(directory)
    try:
        url = server.start()
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        assert wait_until(lambda: server.pid is None, 5.0)
        configuration = server.cluster / "postgresql.conf"
        right = configuration.read_text()
        configuration.write_text(right + "\nshared_buffers = 'much'\n")
        with pytest.raises(StartError):
            server.start()
        configuration.write_text(right)
        assert server.start() == url
    finally:
        server.stop()
        assert not socket_of(url).parent.exists()
        forget(directory)


@AS_ROOT
def test_a_data_directory_that_its_user_can_not_reach(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    data_dir = hidden / "data"
    server = EmbeddedPostgres(data_dir)
    try:
        remember(server.start(), 1)
        home = server.home.directory
        assert not home.is_relative_to(tmp_path)
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE(hidden.stat().st_mode) == 0o700
        server.stop()
        again = EmbeddedPostgres(data_dir)
        assert remembered(again.start()) == [1]
        assert again.home.directory == home
        again.stop()
        assert pids_of(again) == []
    finally:
        forget(data_dir)


@AS_ROOT
def test_a_copied_data_directory_does_not_take_the_running_database(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)  # so that the database is elsewhere, and both copies name it
    server = EmbeddedPostgres(tmp_path / "data")
    try:
        url = server.start()
        shutil.copytree(server.data_dir, tmp_path / "copy")
        with pytest.raises(DataDirInUse, match=r"is in use by another ringfence up.*--data-dir"):
            EmbeddedPostgres(tmp_path / "copy").start()
        assert ask(url, "SELECT 1") == 1
        server.stop()
    finally:
        forget(tmp_path / "data")


def test_a_moved_data_directory_takes_its_database_along(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    remember(server.start(), 1)
    server.stop()
    moved = data_dir.rename(data_dir.with_name("moved"))
    server = EmbeddedPostgres(moved)
    assert remembered(server.start()) == [1]
    assert server.home.directory == moved / "postgres"
    server.stop()


@AS_ROOT
def test_a_database_moved_out_of_its_users_reach_is_told(data_dir: Path, tmp_path: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.start()
    server.stop()
    moved = shutil.move(data_dir, tmp_path / "moved")
    with pytest.raises(postgres_home.DataDirError, match=r"can't reach .*chmod"):
        EmbeddedPostgres(Path(moved)).start()


def test_the_documented_backup_loads_again(server: EmbeddedPostgres, tmp_path: Path) -> None:
    remember(server.url, 1)
    programs = postgres_home.installed_binaries() / "bin"
    dump = tmp_path / "ringfence.dump"
    subprocess.run([programs / "pg_dump", "--format=custom", f"--file={dump}", server.url], check=True)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE another")
    another = server.url.replace("/ringfence?", "/another?")
    subprocess.run([programs / "pg_restore", f"--dbname={another}", dump], check=True)
    assert remembered(another) == [1]


@AS_ROOT
def test_binaries_that_its_user_can_not_read_are_copied(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = postgres_home.installed_binaries().parent
    for name in (package.name, f"{package.name}.libs"):
        (tmp_path / name).symlink_to(package.with_name(name))
    tmp_path.chmod(0o700)
    monkeypatch.syspath_prepend(tmp_path)
    said: list[str] = []
    server = EmbeddedPostgres(data_dir, said.append)
    remember(server.start(), 1)
    copies = server.home.directory / "binaries"
    command_line = Path(f"/proc/{server.pid}/cmdline").read_text()
    assert command_line.startswith(f"{copies}/")
    server.stop()
    assert sum("copying PostgreSQL" in line for line in said) == 1
    assert remembered(server.start()) == [1]
    server.stop()
    assert sum("copying PostgreSQL" in line for line in said) == 1  # once is enough


def test_without_home_and_with_a_foreign_environment(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    for name, value in {
        "PGDATA": "/nowhere",
        "PGPORT": "1",
        "PGOPTIONS": "-c x=y",
        "LC_ALL": "xx_XX",
    }.items():
        monkeypatch.setenv(name, value)
    server = EmbeddedPostgres(data_dir)
    url = server.start()
    monkeypatch.delenv("PGOPTIONS")
    assert ask(url, "SELECT 1") == 1
    server.stop()


def test_a_small_dev_shm_is_no_obstacle(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "SMALL_SHM_BYTES", 1 << 60)
    server = EmbeddedPostgres(data_dir)
    with psycopg.connect(server.start()) as connection:
        assert connection.execute("SHOW dynamic_shared_memory_type").fetchone() == ("mmap",)
        connection.execute("SET debug_parallel_query = on")
        plan = "\n".join(
            row[0] for row in connection.execute("EXPLAIN ANALYZE SELECT count(*) FROM pg_class")
        )
        assert "Workers Launched: 1" in plan
    server.stop()


# --- what can't be mended by itself ---------------------------------------------------------------


def test_a_database_of_another_major_version_is_refused(server: EmbeddedPostgres) -> None:
    server.stop()
    server._write_as_owner(server.cluster / "PG_VERSION", "12\n")
    with pytest.raises(ClusterVersionError, match=r"is of PostgreSQL 12, and this one is \d+\.\d+; dump it"):
        server.start()


def test_a_lost_password_is_replaced(server: EmbeddedPostgres) -> None:
    remember(server.url, 1)
    old = urlsplit(server.url).password
    server.stop()
    server.password_path.unlink()
    url = server.start()
    assert remembered(url) == [1]
    assert urlsplit(url).password != old


def test_a_home_that_somebody_opened_is_refused(server: EmbeddedPostgres) -> None:
    server.stop()
    server.home.directory.chmod(0o755)
    with pytest.raises(postgres_home.DataDirError, match="is not a 0700 directory of"):
        server.start()


def test_a_missing_home_is_refused_and_not_made_anew(server: EmbeddedPostgres) -> None:
    server.stop()
    shutil.rmtree(server.home.directory)
    with pytest.raises(
        postgres_home.DataDirError, match=r"is missing.*restore it, or give another --data-dir"
    ):
        server.start()


def test_what_the_server_said_is_in_the_error(server: EmbeddedPostgres) -> None:
    server.stop()
    with (server.cluster / "postgresql.conf").open("a") as file:
        file.write("\nshared_buffers = 'much'\n")
    with pytest.raises(StartError, match=r"(?s)did not start .exit status 1.*invalid value.*\"much\""):
        server.start()
    assert pids_of(server) == []
