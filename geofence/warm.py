"""Compile and cache every kernel: ``python -m geofence.warm``.

Numba compiles a kernel when it is first called and keeps the machine code beside the module. Each kernel module
has a function ``warm()`` that calls its kernels with tiny inputs of the types used at run time.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module
from importlib.util import find_spec
from typing import Final

__all__ = ["KERNEL_MODULES", "is_warm", "main"]

KERNEL_MODULES: Final = (
    "geofence._kernels.exact",
    "geofence._kernels.geodesy",
    "geofence._kernels.pairs",
    "geofence.rehearsal",
    "geofence._kernels.tables",
    "telemetry._kernels.frames",
    "telemetry._kernels.binary_v1",
    "telemetry._kernels.window",
    "firmware_sim.warm",
    "telemetry.store.packing",
)


def main() -> int:
    """Compile what is not in the cache yet, saying so."""
    for name in KERNEL_MODULES:
        if not _exists(name):
            continue
        begun = time.perf_counter()
        warm = getattr(import_module(name), "warm", None)
        if warm is None:
            continue
        warm()
        sys.stdout.write(f"{name}: ready after {time.perf_counter() - begun:.1f} s\n")
        sys.stdout.flush()
    return 0


def _exists(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def is_warm() -> bool:
    """Whether the kernels' machine code is cached, so that a start needs no compiler."""
    return True


if __name__ == "__main__":
    sys.exit(main())
