"""The data directory: made when it is missing, checked, and held by one ``ringfence up`` at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from telemetry.services.errors import DataDirError, DataDirInUse

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["DataDirLock", "prepare_data_dir", "write_private"]

LOCK_NAME: Final = "lock"


def prepare_data_dir(data_dir: Path) -> Path:
    """Make the directory when it is missing, prove that it can be written; gives its absolute path.

    An existing directory keeps its mode. A new one is 0700; as root it is 0711, so that the unprivileged
    user that the database runs as can pass through it to the 0700 directory that is its own.
    """
    data_dir = Path(os.path.abspath(data_dir))  # noqa: PTH100 - resolve() would follow links and fail on loops
    remedy = "give another with --data-dir, or correct its owner and mode"
    try:
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataDirError(
            f"data directory {data_dir}: {error.filename} is not a directory; {remedy}"
        ) from error
    except OSError as error:
        raise DataDirError(f"data directory {data_dir} can't be made: {error.strerror}; {remedy}") from error
    if not data_dir.is_dir():
        raise DataDirError(f"data directory {data_dir} is not a directory; {remedy}")
    probe = data_dir / f".write-test-{os.getpid()}"
    try:
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        raise DataDirError(
            f"data directory {data_dir} is not writable: {error.strerror}; {remedy}"
        ) from error
    return data_dir


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, all at once: a reader sees the old text or the new."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:  # noqa: PTH123 - a mode from the first moment
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


class DataDirLock:
    """Holds a data directory, so that a second ``ringfence up`` is refused. A context manager.

    The kernel drops the lock when the process ends, however it ends, so a lock is never stale; children
    do not inherit it.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._fd: int | None = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock. Raises DataDirInUse when another process has it, DataDirError when it can't be."""
        self.data_dir = prepare_data_dir(self.data_dir)
        path = self.data_dir / LOCK_NAME
        while True:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise DataDirError(
                    f"{path} can't be opened: {error.strerror}; correct its owner and mode, "
                    "or give another directory with --data-dir"
                ) from error
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                pid = _pid_in(fd)
                os.close(fd)
                who = f"another ringfence up (process {pid})" if pid else "another ringfence up"
                raise DataDirInUse(
                    f"data directory {self.data_dir} is in use by {who}; "
                    "stop that one, or give this one a directory of its own with --data-dir",
                    pid,
                ) from error
            except OSError as error:
                os.close(fd)
                raise DataDirError(
                    f"{path} can't be locked: {error.strerror}; "
                    "give a directory on a local file system with --data-dir"
                ) from error
            if _is_still(path, fd):
                break
            os.close(fd)  # its holder released and removed it between our open and our lock
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd

    def release(self) -> None:
        """Give the lock back and remove its file; twice is fine."""
        if self._fd is None:
            return
        with contextlib.suppress(FileNotFoundError):
            (self.data_dir / LOCK_NAME).unlink()
        os.close(self._fd)
        self._fd = None


def _pid_in(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _is_still(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False
