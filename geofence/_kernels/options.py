"""How the engine's kernels are compiled."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["PLAIN"]

# _nrt=False: no counting of references. Numba else counts one up and one down for every array of a tuple that
# is handed to a function, some 70 atomic operations a call: `judge` took 3,010 ns for a ping with them, and
# takes 171 ns without (benchmarks/engine.py). It is sound here because these kernels make no arrays.
PLAIN: Final[dict[str, Any]] = {"cache": True, "nogil": True, "_nrt": False}
