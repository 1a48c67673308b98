"""Joining the parts of growing zone sets, aside: nobody who asks a set waits for it.

Sets that descend from one another share a ``Lineage``. When one of them has grown to many parts, a thread
joins the newest ones into one block and builds its index. From then on every set of the lineage that has
those parts uses the joined one instead. The answers are the same before and after, only faster.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from geofence.parts import Parts, joined

if TYPE_CHECKING:
    from geofence.parts import Part

__all__ = ["MANY_PARTS", "Lineage"]

MANY_PARTS: Final = 16  # asking one part more costs a call 10 to 20 microseconds and a ping 1 to 3 ns


class Lineage:
    """What sets that descend from one another share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._done: tuple[tuple[Part, ...], Part] | None = None

    def newest(self, parts: Parts) -> Parts:
        """The same zones, with the parts that were joined meanwhile."""
        done = self._done
        if done is None:
            return parts
        run, whole = done
        for at in range(len(parts.parts) - len(run) + 1):
            if all(a is b for a, b in zip(parts.parts[at:], run, strict=False)):
                return Parts((*parts.parts[:at], whole, *parts.parts[at + len(run) :]))
        return parts

    def consider(self, parts: Parts) -> None:
        """Begin to join parts if there are many and nothing is being joined."""
        run = _run(parts.parts)
        if not run:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._join, args=(run,), name="joining zones")
                self._thread.start()

    def wait(self) -> None:
        """Until what is being joined is joined."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _join(self, run: tuple[Part, ...]) -> None:
        try:
            whole = joined(run)
            for build in ("number", "columns", "index", "sides"):
                if not threading.main_thread().is_alive():
                    return  # the program ends: what is not built is not missed
                getattr(whole.block, build)
            self._done = (run, whole)
        finally:
            self._thread = None


def _run(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """The parts at the end that are worth joining: half of the most, and those before that are not more than
    twice as large as all after them.

    So a zone is moved a number of times that grows with the logarithm of the number of zones, and a large
    part is left alone until half as many zones have come as it has. A part that lost more than half of its
    zones is built anew.
    """
    worn = next((part for part in parts if len(part.gone) > len(part)), None)
    if worn is not None:
        return (worn,)
    if len(parts) <= MANY_PARTS:
        return ()
    first = len(parts) - MANY_PARTS // 2
    zones = sum(map(len, parts[first:]))
    while first and len(parts[first - 1]) <= 2 * zones:
        first -= 1
        zones += len(parts[first])
    return parts[first:]
