"""Compile and cache every kernel: ``python -m telemetry.warm``.

Numba compiles a kernel when it is first called with new types and keeps the machine code beside the module.
It looks at the kernel's own file only: an edited callee in another file would stay inlined as it was. So all
sources of kernels have a digest together; when it differs from that of the last time, cached code is dropped.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections import deque
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "ENGINE_MODULES",
    "KERNEL_MODULES",
    "Interrupted",
    "compile_all",
    "ensure",
    "is_warm",
    "load_engine",
]

# Each has a function warm() that calls its kernels with tiny inputs of the types of run time. Longest first.
ENGINE_MODULES: Final = (
    "geofence.zone_rehearsal",
    "geofence.rehearsal",
    "telemetry._kernels.frames",
    "telemetry._kernels.binary_v1",
    "telemetry._kernels.window",
    "telemetry.store.packing",
)
KERNEL_MODULES: Final = (*ENGINE_MODULES, "firmware_sim.warm")
PACKAGES: Final = ("geofence", "telemetry", "firmware_sim")
STAMP: Final = "kernels.digest"
BEGUN: Final = " begun"  # after the digest in the stamp: old code is dropped, new code not complete
SIGN_OF_LIFE_S: Final = 15.0
POLL_S: Final = 0.02


class Interrupted(Exception):  # noqa: N818 - not an error: who waited for the kernels was told to stop
    """The compilation was given up before its end; what it has done is kept."""


def _never() -> bool:
    return False


def compile_all(say: Callable[[str], None]) -> None:
    """Compile what is not in the cache yet, a process for each core. RuntimeError when a kernel fails.

    Of several that come at once, the first compiles and the others wait for it.
    """
    with _alone(say, _never):
        _compile(say, _never)


def _compile(say: Callable[[str], None], stopping: Callable[[], bool]) -> None:
    digest, sources = _sources()
    if _stamp().is_file() and _stamp().read_text() not in {digest, digest + BEGUN}:
        dropped = sum(_drop(source) for source in sources)
        say(f"kernels have changed: {dropped} cached files dropped")
    with contextlib.suppress(OSError):  # told at the end
        _stamp().parent.mkdir(exist_ok=True)
        _stamp().write_text(digest + BEGUN)
    running = dict[str, subprocess.Popen[bytes]]()
    try:
        _compile_modules(say, stopping, running)
    finally:
        for process in running.values():
            process.terminate()
            process.wait()
    try:
        _stamp().write_text(digest)
    except OSError as error:
        say(f"{_stamp()} can't be written ({error.strerror}); every start will say that it compiles")


def _compile_modules(
    say: Callable[[str], None], stopping: Callable[[], bool], running: dict[str, subprocess.Popen[bytes]]
) -> None:
    began_s = said_s = time.monotonic()
    waiting = deque(KERNEL_MODULES)
    while waiting or running:
        if stopping():
            raise Interrupted
        while waiting and len(running) < (os.cpu_count() or 1):
            name = waiting.popleft()
            code = f"import {name} as module; module.warm()"
            # a session of its own: Ctrl-C is for us, who end it
            running[name] = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)  # noqa: S603 - our own modules
        for name, process in list(running.items()):
            if process.poll() is None:
                continue
            if process.returncode != 0:
                raise RuntimeError(f"the kernels of {name} did not compile; the lines above say why")
            del running[name]
            said_s = time.monotonic()
            done = len(KERNEL_MODULES) - len(running) - len(waiting)
            say(f"  {done} of {len(KERNEL_MODULES)} after {said_s - began_s:.0f} s: {name}")
        if time.monotonic() - said_s > SIGN_OF_LIFE_S:
            said_s = time.monotonic()
            say(f"  still at {', '.join(running)} ({said_s - began_s:.0f} s)")
        time.sleep(POLL_S)


def load_engine(say: Callable[[str], None], stopping: Callable[[], bool] = _never) -> None:
    """Have the engine's kernels in this process, so that its first batch is not slower than the others.

    Raises Interrupted when ``stopping`` says so meanwhile.
    """
    ensure(say, stopping)
    for name in ENGINE_MODULES:
        import_module(name).warm()


def ensure(say: Callable[[str], None], stopping: Callable[[], bool] = _never) -> None:
    """Compile, and say so, unless it is done: else a first use would be silent for a minute."""
    if is_warm():
        return
    say("compiling the kernels: a minute or two, once (make setup does it ahead of time)")
    with _alone(say, stopping):
        if not is_warm():  # another process has done it while we waited
            _compile(say, stopping)


def is_warm() -> bool:
    """Whether the kernels as they stand were compiled here, so that a start needs no compiler."""
    try:
        return _stamp().read_text() == _sources()[0]
    except OSError:
        return False


@contextlib.contextmanager
def _alone(say: Callable[[str], None], stopping: Callable[[], bool]) -> Iterator[None]:
    """Hold the compiler's lock; where it can't be written nobody else keeps machine code either."""
    lock = _stamp().with_suffix(".lock")
    try:
        lock.parent.mkdir(exist_ok=True)
        file = lock.open("w")
    except OSError:
        yield
        return
    with file:
        if not _locked(file):
            say("another process compiles them now; waiting for it")
            while not _locked(file):
                if stopping():
                    raise Interrupted
                time.sleep(POLL_S)
        yield


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stamp() -> Path:
    return Path(__file__).parent / "__pycache__" / STAMP


def _sources() -> tuple[str, list[Path]]:
    """The digest of all sources that hold kernels, and of Python and Numba as installed; and the sources."""
    digest = hashlib.blake2s(sys.version.encode())
    for package in ("numba", "llvmlite", "numpy"):
        spec = find_spec(package)
        digest.update(str(spec and spec.origin and Path(spec.origin).stat().st_mtime_ns).encode())
    sources = []
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            continue
        for source in sorted(Path(spec.origin).parent.rglob("*.py")):
            text = source.read_bytes()
            if b"njit" in text:
                digest.update(text)
                sources.append(source)
    return digest.hexdigest(), sources


def _drop(source: Path) -> int:
    """Remove the machine code kept for a source; how many files went."""
    kept = [*source.parent.glob(f"__pycache__/{source.stem}.*.nb[ci]")]
    for file in kept:
        file.unlink(missing_ok=True)
    return len(kept)


if __name__ == "__main__":
    compile_all(lambda line: print(line, flush=True))  # noqa: T201 - a command
