"""Guessing costs time: after some failures, each further try waits twice as long as the one before."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Throttle"]

LONGEST_WAIT_S: Final = 300.0
FORGET_S: Final = 3600.0
MOST_KEYS: Final = 10_000  # whoever has more addresses than that to try from is not stopped by this


@dataclass(slots=True)
class _Failures:
    count: int
    last_s: float
    open_s: float  # when the next try is let through


class Throttle:
    """Counts failures by key (an address, an account). Not for several threads.

    free  : failures that cost nothing
    clock : monotonic seconds, for tests
    """

    def __init__(self, free: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._free = free
        self._clock = clock
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """How long this key has to wait; 0: it may try."""
        failures = self._failures.get(key)
        return 0.0 if failures is None else max(failures.open_s - self._clock(), 0.0)

    def failed(self, key: str) -> None:
        """Note a failure; call it before the try is judged, so that tries side by side count too."""
        now_s = self._clock()
        failures = self._failures.pop(key, None)
        if failures is None or now_s - failures.last_s > FORGET_S:
            failures = _Failures(0, now_s, now_s)
        failures.count += 1
        failures.last_s = now_s
        if failures.count >= self._free:
            failures.open_s = now_s + min(2.0 ** (failures.count - self._free), LONGEST_WAIT_S)
        self._failures[key] = failures
        while len(self._failures) > MOST_KEYS:
            self._failures.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Forget the failures of this key."""
        self._failures.pop(key, None)
