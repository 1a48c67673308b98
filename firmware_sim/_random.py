"""Randomness for kernels: a splitmix64 stream in each state machine's own record.

Every state machine of every device owns one 64-bit word, ``rng``, and nothing else draws from it. So a
device's pings depend on the seed and the device alone, and neither on the size of the fleet nor on the
speed of the run. Only integer arithmetic, one multiplication and a table lookup are used: no libm call,
whose last bit may differ between machines.

Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (OOPSLA 2014), the mixing function
with the constants of Vigna's ``splitmix64.c``.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["decay", "draws", "exponential", "normal", "seed_streams", "uniform"]

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_M1: Final = np.uint64(0xBF58476D1CE4E5B9)
_M2: Final = np.uint64(0x94D049BB133111EB)
_S30: Final = np.uint64(30)
_S27: Final = np.uint64(27)
_S31: Final = np.uint64(31)
_S11: Final = np.uint64(11)
_TO_UNIT: Final = 2.0**-53

_NAME_BYTES: Final = 8
_CELLS: Final = 2048  # 16 KB of float64 stay in L1; the last cell's edge is 3.7 sigma
_NORMAL: Final = np.array(
    [
        NormalDist().inv_cdf(min(max(i / _CELLS, 1 / (4 * _CELLS)), 1 - 1 / (4 * _CELLS)))
        for i in range(_CELLS + 1)
    ]
)

_EXPONENTIAL: Final = np.array(
    [-math.log(1.0 - min(i / _CELLS, 1 - 1 / (2 * _CELLS))) for i in range(_CELLS + 1)]
)


@njit(nogil=True, cache=True)
def uniform(machine: Any) -> float:
    """The next number in [0, 1) of a record's stream; moves ``machine.rng`` on."""
    machine.rng = machine.rng + _GOLDEN
    z = machine.rng
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    z ^= z >> _S31
    return (z >> _S11) * _TO_UNIT  # type: ignore[no-any-return]


@njit(nogil=True, cache=True)
def normal(machine: Any) -> float:
    """The next standard normal number of a record's stream, by its quantile table."""
    u = uniform(machine) * _CELLS
    cell = int(u)
    low = _NORMAL[cell]
    return low + (u - cell) * (_NORMAL[cell + 1] - low)  # type: ignore[no-any-return]


@njit(nogil=True, cache=True)
def exponential(machine: Any) -> float:
    """The next exponential number of mean 1 of a record's stream, by its quantile table."""
    u = uniform(machine) * _CELLS
    cell = int(u)
    low = _EXPONENTIAL[cell]
    return low + (u - cell) * (_EXPONENTIAL[cell + 1] - low)  # type: ignore[no-any-return]


@njit(nogil=True, cache=True)
def decay(x: float) -> float:
    """exp(-x) for x >= 0 as (1 - x/1024) to the 1024th: 0.05 % off at x = 1, the same on every machine."""
    if x >= 20.0:
        return 0.0
    y = 1.0 - x / 1024.0
    for _ in range(10):
        y *= y
    return y


def seed_streams(seed: int, name: str, count: int) -> NDArray[np.uint64]:
    """The first words of ``count`` streams of one kind of state machine: uint64 (count,).

    Stream i is the same whatever ``count`` is. A name has at most eight bytes: all of it counts.
    """
    if len(name.encode()) > _NAME_BYTES:
        raise ValueError(
            f"stream {name!r} has more than {_NAME_BYTES} bytes; names that begin alike would be one"
        )
    salt = int.from_bytes(name.encode().ljust(_NAME_BYTES, b"\0"), "little")
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
        for word in (np.uint64(seed & 0xFFFF_FFFF_FFFF_FFFF), np.uint64(salt)):
            z = (z + word) * _M1
            z = (z ^ (z >> _S30)) * _M2
            z ^= z >> _S31
    return z.astype(np.uint64)


def draws(seed: int, name: str, count: int, columns: int) -> NDArray[np.float64]:
    """Numbers in [0, 1), float64 (count, columns): row i is the same whatever ``count`` is."""
    words = seed_streams(seed, name, count)
    drawn = np.empty((count, columns))
    with np.errstate(over="ignore"):
        for column in range(columns):
            words = words + _GOLDEN
            z = (words ^ (words >> _S30)) * _M1
            z = (z ^ (z >> _S27)) * _M2
            drawn[:, column] = ((z ^ (z >> _S31)) >> _S11) * _TO_UNIT
    return drawn
