"""What the API asks of the running engine: is it ready, what does it say of itself, what did it count."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Health"]


class Health(Protocol):
    """Answers come from memory, at once, from any thread: probes and scrapes must not wait for the engine."""

    def ready(self) -> list[str]:
        """Why the engine is not ready, one sentence with its remedy each; empty: it is."""
        ...

    def live(self) -> dict[str, Any]:
        """What ``/healthz`` tells besides that the process lives; JSON-able."""
        ...

    def metrics(self) -> bytes:
        """The Prometheus text format."""
        ...
