"""A data directory for each test, and an ``up`` that can be killed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from telemetry.services import EmbeddedPostgres
from tests.telemetry.services.services_helpers import KillableUp, forget


@pytest.fixture
def data_dir(short_tmp: Path) -> Iterator[Path]:
    """A data directory that does not exist yet. What a failed test leaves running in it is ended."""
    base = short_tmp / uuid.uuid4().hex[:8]
    base.mkdir(mode=0o711)
    directory = base / "data"
    yield directory
    forget(directory)
    shutil.rmtree(base)


@pytest.fixture(scope="session")
def template(short_tmp: Path) -> Path:
    """A data directory with a database, made once: initdb is most of the time that a test would take."""
    directory = short_tmp / "template"
    server = EmbeddedPostgres(directory)
    server.start()
    server.stop()
    return directory


@pytest.fixture
def made_data_dir(data_dir: Path, template: Path) -> Path:
    """``data_dir``, with a database that has been stopped cleanly."""
    subprocess.run(["cp", "-a", template, data_dir], check=True)
    return data_dir


@pytest.fixture
def killable_up(made_data_dir: Path) -> Iterator[KillableUp]:
    up = KillableUp(made_data_dir)
    yield up
    up.kill()


@pytest.fixture
def as_stranger() -> Callable[[Callable[[], object]], str]:
    """Runs a function as a user that is neither root nor the database's; tells what came of it."""
    if os.geteuid() != 0:
        pytest.skip("only root can try as another user")

    def run(attempt: Callable[[], object]) -> str:
        user = pwd.getpwnam("daemon")
        read, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # fork with threads: the child only tries and ends
            pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setgid(user.pw_gid)
                os.setuid(user.pw_uid)
                answer = f"got in: {attempt()!r}"
            except BaseException as error:
                answer = f"{type(error).__name__}: {error}"
            os.write(write, answer.encode())
            os._exit(0)
        os.close(write)
        os.waitpid(pid, 0)
        with os.fdopen(read) as file:
            return file.read()

    return run
