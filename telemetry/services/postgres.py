"""An embedded PostgreSQL: made, started, recovered and stopped by us, reachable through a socket only.

The server is a child with a session of its own, so that Ctrl-C in a terminal reaches us alone and the
database outlives the last commit. When we are killed it keeps running; the next start ends it first, and
PostgreSQL recovers by itself from whatever was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from telemetry.services.datadir import prepare_data_dir, write_private
from telemetry.services.errors import ClusterVersionError, DataDirInUse, StartError
from telemetry.services.postgres_home import SOCKET_PORT, Home, find_home, make_socket_dir, usable_binaries
from telemetry.services.processes import bare_environment, end, pids_working_in, run_as, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["EmbeddedPostgres"]

ROLE: Final = "ringfence"
DATABASE: Final = "ringfence"
START_S: Final = 300.0  # crash recovery reads up to max_wal_size of log; a slow disk needs minutes
STOP_S: Final = 9.0  # in all; the whole `up` has 15 s to stop
STOP_FAST_S: Final = 5.0  # disconnects and checkpoints
STOP_IMMEDIATE_S: Final = 2.0  # no checkpoint: the next start recovers
STOP_KILL_S: Final = 2.0
LOG_TAIL_LINES: Final = 8
SMALL_SHM_BYTES: Final = 256 << 20  # a parallel query can ask for this much; containers often have 64 MiB

# For a machine of 2 cores and 2 GiB that also runs the engine. Written once, into postgresql.conf, where an
# operator can change them; what must hold at every start is on the command line instead.
INITIAL_SETTINGS: Final = {
    "shared_buffers": "128MB",
    "max_connections": "50",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "maintenance_work_mem": "64MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgresql-%a.log",  # one a weekday, overwritten a week later
    "log_truncate_on_rotation": "on",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_line_prefix": "%m [%p] %u@%d ",
}

ACCESS: Final = f"""\
# Written by ringfence at every start. One role, by password, through the socket; everyone else is refused.
# TYPE  DATABASE     USER         METHOD
local   all          {ROLE}    scram-sha-256
local   replication  {ROLE}    scram-sha-256
"""


class EmbeddedPostgres:
    """The PostgreSQL of a data directory. ``start`` gives its URL; ``stop`` ends it within 10 seconds.

    Hold a DataDirLock around both: it keeps a second one out.
    """

    def __init__(self, data_dir: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self.data_dir = data_dir
        self._say = say
        self._child: subprocess.Popen[bytes] | None = None
        self._home: Home | None = None
        self._socket_dir: Path | None = None
        self._hold_fd: int | None = None
        self._is_known = False  # clients have our URL: a start after a death must keep it

    def start(self) -> str:
        """Make the database when it is missing, start it, and give its URL once it takes connections.

        Raises a ServiceError with the remedy. Calling it while the server runs changes nothing.
        """
        if self._child is not None and self._child.poll() is None:
            return self.url
        began_s = time.monotonic()
        self.data_dir = prepare_data_dir(self.data_dir)
        home = self._home = find_home(self.data_dir, self._say)
        self._hold(home)
        binaries = usable_binaries(home, self._say)
        self._end_orphan()
        if not self.cluster.exists():
            self._say("making the database (about 2 s, once)")
            self._make_cluster(binaries)
        self._check_version(binaries)
        if not self.password_path.exists():
            self._renew_password(binaries)
        self._socket_dir = make_socket_dir(home, self._remembered_socket_dir())
        for left in self._socket_dir.glob(".s.PGSQL.*"):  # its lock names a pid that may be another's by now
            left.unlink()
        write_private(self.data_dir / "postgres.socket", f"{self._socket_dir}\n")
        self._write_as_owner(home.directory / "pg_hba.conf", ACCESS)
        self._launch(binaries)
        self._is_known = True
        self._say(f"embedded PostgreSQL runs as {home.owner.name} ({time.monotonic() - began_s:.1f} s)")
        return self.url

    def stop(self, within_s: float = STOP_S) -> None:
        """End the server: fast, then without a checkpoint, then by force. Twice is fine.

        within_s : what there is for it; the less, the sooner it is ended by force, and then recovers later
        """
        self._is_known = False
        self._end_child(within_s / STOP_S)
        if self._socket_dir is not None and self._socket_dir.parent != self.home.directory:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
        if self._hold_fd is not None:
            os.close(self._hold_fd)
            self._hold_fd = None

    def _end_child(self, share_of_time: float = 1.0) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        part = min(share_of_time, 1.0)
        steps = (
            (signal.SIGINT, STOP_FAST_S * part),
            (signal.SIGQUIT, STOP_IMMEDIATE_S * part),
            (signal.SIGKILL, STOP_KILL_S),
        )
        end([child.pid], steps)
        child.wait()
        self._end_orphan(part)  # after SIGKILL the server's own children may take a moment to notice

    @property
    def url(self) -> str:
        """URL for libpq with the password: only for those who may read the password file."""
        password = self.password_path.read_text().strip()
        socket_dir = quote(str(self._socket_dir), safe="")
        return f"postgresql://{ROLE}:{password}@/{DATABASE}?host={socket_dir}&port={SOCKET_PORT}"

    @property
    def home(self) -> Home:
        """Where the database lives and as whom it runs; known once ``start`` was called."""
        if self._home is None:
            raise StartError("the database was not started; call start() first")
        return self._home

    @property
    def cluster(self) -> Path:
        """PostgreSQL's own directory (PGDATA)."""
        return self.home.directory / "cluster"

    @property
    def password_path(self) -> Path:
        """The file that holds the role's password."""
        return self.data_dir / "postgres.password"

    @property
    def pid(self) -> int | None:
        """The postmaster's pid while it runs."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    def _hold(self, home: Home) -> None:
        """Hold the home as DataDirLock holds the data directory, of which a copy may name the same home."""
        if self._hold_fd is not None:
            return
        fd = os.open(home.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise DataDirInUse(
                f"the database directory {home.directory} is in use by another ringfence up, whose data "
                f"directory is not {self.data_dir}; stop that one, or give another --data-dir "
                "(a data directory can't be copied without its database: use pg_dump)",
                pid=None,
            ) from error
        self._hold_fd = fd

    # --- the cluster ------------------------------------------------------------------------------

    def _make_cluster(self, binaries: Path) -> None:
        """Make it in a directory that gets its name only when it is whole: a kill leaves nothing half."""
        unfinished = self.home.directory / "cluster.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        command: list[str | Path] = [binaries / "initdb", "--pgdata", unfinished, "--username", ROLE]
        command += [
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--data-checksums",
            "--no-instructions",
        ]
        for name, value in {**INITIAL_SETTINGS, **_shared_memory()}.items():
            command += ["--set", f"{name}={value}"]
        password = secrets.token_urlsafe(24)
        with _readable_text(password) as fd:
            made = run_as(self.home.owner, [*command, f"--pwfile=/proc/self/fd/{fd}"], pass_fds=[fd])
        if made.returncode != 0:
            raise StartError(self._initdb_failed(made.stdout + made.stderr))
        self._single_user(binaries, unfinished, f"CREATE DATABASE {DATABASE}", database="postgres")
        write_private(self.password_path, password + "\n")
        unfinished.rename(self.cluster)

    def _initdb_failed(self, output: str) -> str:
        remedy = "give a database with --database-url"
        if "could not look up effective user ID" in output:
            remedy = f"add a line for uid {self.home.uid} to /etc/passwd, or {remedy}"
        elif "No space left on device" in output:
            remedy = "make room on the disk (80 MB are needed), or give another --data-dir"
        return f"initdb failed as {self.home.owner.name}; {remedy}. It said:\n{_tail(output)}"

    def _check_version(self, binaries: Path) -> None:
        made_by = (self.cluster / "PG_VERSION").read_text().strip()
        ours = run_as(self.home.owner, [binaries / "postgres", "--version"]).stdout.split()[-1]
        if made_by != ours.partition(".")[0]:
            raise ClusterVersionError(
                f"the database in {self.cluster} is of PostgreSQL {made_by}, and this one is {ours}; "
                f"dump it with the ringfence that made it (pg_dump) and load the dump into a new --data-dir"
            )

    def _renew_password(self, binaries: Path) -> None:
        self._say("postgres.password is missing: setting a new one")
        password = secrets.token_urlsafe(24)
        self._single_user(binaries, self.cluster, f"ALTER ROLE {ROLE} PASSWORD '{password}'")
        write_private(self.password_path, password + "\n")

    def _single_user(self, binaries: Path, cluster: Path, statement: str, database: str = DATABASE) -> None:
        """Run a statement in the cluster while no server runs on it."""
        command: list[str | Path] = [binaries / "postgres", "--single", "-D", cluster, "-j"]
        for name, value in {"logging_collector": "off", "exit_on_error": "true", **_shared_memory()}.items():
            command += ["-c", f"{name}={value}"]
        command.append(database)
        done = run_as(self.home.owner, command, input=f"{statement};\n\n")
        if done.returncode != 0 or "ERROR:" in done.stderr or "FATAL:" in done.stderr:
            raise StartError(f"PostgreSQL could not prepare {cluster}; it said:\n{_tail(done.stderr)}")

    # --- the server -------------------------------------------------------------------------------

    def _end_orphan(self, part: float = 1.0) -> None:
        """End what an earlier, killed run left working in our cluster, and clear its traces."""
        owner = self.home.owner
        if not self.cluster.exists():
            return

        pid_file = self.cluster / "postmaster.pid"
        if orphans := pids_working_in(self.cluster, "postgres", owner):
            self._say("ending the database server that an earlier run left behind")
            # The postmaster alone understands a fast shutdown, and ends its children.
            postmaster = _first_line_number(pid_file)
            end(
                [pid for pid in orphans if pid == postmaster],
                (
                    (signal.SIGINT, STOP_FAST_S),
                    (signal.SIGQUIT, STOP_IMMEDIATE_S),
                    (signal.SIGKILL, STOP_KILL_S),
                ),
            )
            # Without a postmaster its children end by themselves, unless they hang.
            orphans = pids_working_in(self.cluster, "postgres", owner)
            steps = ((signal.SIGQUIT, STOP_IMMEDIATE_S * part), (signal.SIGKILL, STOP_KILL_S))
            if not end(orphans, steps):
                raise StartError(
                    f"processes {orphans} of an earlier run still use {self.cluster} and can't be ended "
                    "(a disk that hangs?); end them, then start again"
                )
        # Nothing works in the cluster, so the file is stale. PostgreSQL would trust it if its pid has been
        # given to another process of the same user meanwhile.
        pid_file.unlink(missing_ok=True)

    def _launch(self, binaries: Path) -> None:
        home, log = self.home, self.data_dir / "postgres-start.log"
        command = [str(binaries / "postgres"), "-D", str(self.cluster)]
        for name, value in {
            "listen_addresses": "",
            "port": str(SOCKET_PORT),
            "unix_socket_directories": str(self._socket_dir),
            "unix_socket_permissions": "0700",
            "hba_file": str(home.directory / "pg_hba.conf"),
            **_shared_memory(),
        }.items():
            command += ["-c", f"{name}={value}"]
        log.unlink(missing_ok=True)
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:  # noqa: PTH123 - 0600 from the first moment
            self._child = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                cwd="/",
                env=bare_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                **home.owner.popen,
            )
        child = self._child
        told = False

        def ready_or_dead() -> bool:
            nonlocal told
            status = self._status()
            if status == "starting" and not told and time.monotonic() - began_s > 1.0:
                self._say("the database recovers from an unclean end; this can take a while")
                told = True
            return status in ("ready", "standby") or child.poll() is not None

        began_s = time.monotonic()
        finished = wait_until(ready_or_dead, START_S)
        if finished and child.poll() is None:
            return
        why = f"exit status {child.poll()}" if finished else f"not ready after {START_S:.0f} s"
        said = _tail(self._logged(log))
        if self._is_known:
            self._end_child()  # the socket's directory stays: the URL names it
        else:
            self.stop()
        raise StartError(f"PostgreSQL did not start ({why}); its last words:\n{said}")

    def _status(self) -> str | None:
        """What the postmaster says of itself in the last line of its pid file, as pg_ctl reads it."""
        with contextlib.suppress(OSError):
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
            if len(lines) >= 8 and self._child is not None and lines[0] == str(self._child.pid):
                return lines[7].strip()
        return None

    def _logged(self, start_log: Path) -> str:
        collected = sorted(self.cluster.glob("log/*.log"), key=lambda path: path.stat().st_mtime)
        return "".join(path.read_text(errors="replace") for path in [*collected[-1:], start_log])

    def _write_as_owner(self, path: Path, text: str) -> None:
        # Not by root: it would follow whatever that user has put there.
        written = run_as(self.home.owner, ["/bin/sh", "-c", 'umask 077; cat >"$1"', "sh", path], input=text)
        if written.returncode != 0:
            raise StartError(f"{path} can't be written as {self.home.owner.name}: {written.stderr.strip()}")

    def _remembered_socket_dir(self) -> Path | None:
        with contextlib.suppress(OSError):
            return Path((self.data_dir / "postgres.socket").read_text().strip())
        return None


@contextlib.contextmanager
def _readable_text(text: str) -> Iterator[int]:
    """A descriptor whose /proc/self/fd path any user that inherits it can open; it never touches a disk."""
    fd = os.memfd_create("password")
    try:
        os.write(fd, text.encode())
        yield fd
    finally:
        os.close(fd)


def _shared_memory() -> dict[str, str]:
    """Where parallel workers and statistics share memory: /dev/shm where it is large enough, else files."""
    return {"dynamic_shared_memory_type": "posix" if _shm_is_roomy() else "mmap"}


def _shm_is_roomy() -> bool:
    try:
        shm = os.statvfs("/dev/shm")  # noqa: S108 - only asked for its size
    except OSError:
        return False
    return shm.f_bavail * shm.f_frsize >= SMALL_SHM_BYTES and os.access("/dev/shm", os.W_OK)  # noqa: S108


def _first_line_number(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(path.read_text().splitlines()[0])
    return None


def _tail(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-LOG_TAIL_LINES:])
