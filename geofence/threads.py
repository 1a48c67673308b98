"""One question asked by several threads, each of a slice: the kernels let go of the interpreter's lock.

The answer is the same for any number of threads, since each position is looked at alone and the slices come
back in order. A parallel kernel (prange) would say the same, and would have to be compiled besides the serial
one; a thread costs some 50 microseconds, which a slice of ``LEAST`` positions outweighs.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["LEAST", "in_slices"]

LEAST: Final = 1 << 14

Columns = tuple["NDArray[Any]", ...]


def in_slices(ask: Callable[..., Columns], columns: Columns, threads: int, *, counts_rows: bool) -> Columns:
    """What ``ask(*columns)`` gives.

    ask         : gives columns; it may be called from several threads
    columns     : equally long; slice i of all of them is asked by one thread
    counts_rows : the first column that ``ask`` gives counts rows of its slice
    """
    n = len(columns[0])
    slices = min(threads, n // LEAST)
    if slices < 2:
        return ask(*columns)
    cuts = np.linspace(0, n, slices + 1).astype(np.int64).tolist()
    parts = [tuple(column[a:b] for column in columns) for a, b in pairwise(cuts)]
    with ThreadPoolExecutor(slices) as pool:
        found = list(pool.map(lambda part: ask(*part), parts))
    if counts_rows:
        found = [(first + start, *rest) for (first, *rest), start in zip(found, cuts, strict=False)]
    return tuple(np.concatenate(column) for column in zip(*found, strict=True))
