import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from telemetry.services import DataDirError, DataDirInUse, DataDirLock
from telemetry.services.datadir import prepare_data_dir, write_private

HOLD = """
import sys
from pathlib import Path
from telemetry.services.datadir import DataDirLock
with DataDirLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "data")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_up_is_refused_with_the_pid_and_a_remedy(tmp_path: Path, holder) -> None:
    with pytest.raises(
        DataDirInUse, match=f"in use by another ringfence up .process {holder.pid}.*--data-dir"
    ) as caught:
        DataDirLock(tmp_path / "data").acquire()
    assert caught.value.pid == holder.pid


def test_a_killed_holder_leaves_no_lock(tmp_path: Path, holder) -> None:
    holder.kill()
    holder.wait()
    assert (tmp_path / "data" / "lock").exists()  # the file is there, and means nothing
    with DataDirLock(tmp_path / "data") as lock:
        assert (lock.data_dir / "lock").read_text() == f"{os.getpid()}\n"


def test_release_removes_the_file_and_lets_the_next_in(tmp_path: Path) -> None:
    lock = DataDirLock(tmp_path)
    with lock:
        pass
    lock.release()
    assert list(tmp_path.iterdir()) == []
    with lock, pytest.raises(DataDirInUse):
        DataDirLock(tmp_path).acquire()


def test_children_do_not_inherit_the_lock(tmp_path: Path) -> None:
    lock = DataDirLock(tmp_path)
    lock.acquire()
    child = subprocess.Popen(["sleep", "600"], close_fds=False)
    try:
        lock.release()
        with DataDirLock(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_new_data_directory_can_be_listed_by_its_owner_only(tmp_path: Path) -> None:
    made = prepare_data_dir(tmp_path / "a" / "b")
    mode = stat.S_IMODE(made.stat().st_mode)
    assert mode == (0o711 if os.geteuid() == 0 else 0o700)


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o777])
def test_an_existing_data_directory_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    prepare_data_dir(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == mode
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(DataDirError, match="not a directory; give another with --data-dir"):
            prepare_data_dir(path)


def test_a_directory_that_can_not_be_made_is_told_with_a_remedy() -> None:
    with pytest.raises(DataDirError, match=r"/proc/ringfence can't be made.*--data-dir"):
        prepare_data_dir(Path("/proc/ringfence"))


def test_a_directory_of_someone_else_is_told_with_a_remedy(
    short_tmp: Path, as_stranger: Callable[[Callable[[], object]], str]
) -> None:
    directory = short_tmp / "read-only"
    directory.mkdir(mode=0o755)
    answer = as_stranger(lambda: prepare_data_dir(directory))
    assert answer.startswith(
        f"DataDirError: data directory {directory} is not writable: Permission denied; give another"
    )
    directory.rmdir()


def test_a_private_file_is_private_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, "one")
    first = path.open()
    write_private(path, "two")
    assert first.read() == "one"
    first.close()
    assert path.read_text() == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
