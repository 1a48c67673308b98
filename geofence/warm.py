"""Compile and cache every kernel: ``python -m geofence.warm``.

Numba compiles a kernel when it is first called with new types and keeps the machine code beside the module.
It looks at
the kernel's own file only: an edited callee in another file would stay inlined as it was. So the sources of
all kernels
together have a digest; when it differs from that of the last warm-up, all cached code is dropped first.
"""

from __future__ import annotations

import hashlib
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

__all__ = ["KERNEL_MODULES", "is_warm", "main"]

# Each has a function warm(), which calls kernels with tiny inputs of the types used at run time.
KERNEL_MODULES: Final = (
    "geofence.zone_rehearsal",
    "geofence.rehearsal",
    "telemetry._kernels.frames",
    "telemetry._kernels.binary_v1",
    "telemetry._kernels.window",
    "telemetry.store.packing",
    "firmware_sim.warm",
)
PACKAGES: Final = ("geofence", "telemetry", "firmware_sim")
STAMP: Final = "kernels.digest"


def main() -> int:
    """Compile what is not in the cache yet, saying so; 0 when all is ready."""
    digest, sources = _sources()
    if _stamp().is_file() and not is_warm():
        dropped = sum(_drop(source) for source in sources)
        sys.stdout.write(f"kernels have changed: {dropped} cached files dropped\n")
    for name in KERNEL_MODULES:
        begun = time.perf_counter()
        sys.stdout.write(f"{name}: ")
        sys.stdout.flush()
        import_module(name).warm()
        sys.stdout.write(f"ready in {time.perf_counter() - begun:.1f} s\n")
    try:
        _stamp().parent.mkdir(exist_ok=True)
        _stamp().write_text(digest)
    except OSError as exc:
        sys.stdout.write(
            f"{_stamp()} can't be written ({exc.strerror}); every start will say that it compiles\n"
        )
    return 0


def is_warm() -> bool:
    """Whether the kernels as they stand were compiled here, so that a start needs no compiler.

    For whoever starts a process and wants to say why the first batch takes a minute; imports no compiler.
    """
    try:
        return _stamp().read_text() == _sources()[0]
    except OSError:
        return False


def _stamp() -> Path:
    return Path(__file__).parent / "__pycache__" / STAMP


def _sources() -> tuple[str, list[Path]]:
    """The digest of all sources that hold kernels, Python and Numba as installed; and the sources."""
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
    sys.exit(main())
