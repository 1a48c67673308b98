"""What a running engine says of itself: a retained heartbeat over MQTT, and health and metrics over HTTP."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec

from geofence import NO_TIME, to_rfc3339
from telemetry.columns import Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from telemetry.metrics import Metrics
    from telemetry.share import Share
    from telemetry.up import Up

__all__ = ["EngineHealth", "Heartbeat", "Trouble"]

TELL_S: Final = 2.0  # a trouble that lasts this long is told


class EngineHealth:
    """What ``/healthz``, ``/readyz`` and ``/metrics`` tell of a running engine."""

    def __init__(self, up: Up) -> None:
        self._up = up

    def ready(self) -> list[str]:
        """Reasons why the engine is not ready; empty: it is."""
        return self._up.not_ready()

    def live(self) -> dict[str, object]:
        """Who answers."""
        share = self._up.share
        return {
            "share": share.number,
            "rules_version": share.rules_version,
            "last_batch": share.last_batch,
            "devices": len(share.devices),
            "watermark": None if share.watermark_us == NO_TIME else to_rfc3339(share.watermark_us),
        }

    def metrics(self) -> bytes:
        """Prometheus text."""
        metrics, share = self._up.metrics, self._up.share
        metrics.broker_up.set(self._up.broker_problem is None)
        metrics.database_up.set(share.problem is None)
        metrics.beliefs.set(share.engine.beliefs)
        metrics.rules_version.set(share.rules_version)
        return metrics.text()


class Heartbeat:
    """The retained status message of a share, and its last will."""

    def __init__(self, root: str, share: int) -> None:
        self._share = share
        self._topic = f"{root}/engine/{share}/status"
        self._pings, self._since_s = 0.0, time.monotonic()

    def message(self, state: str, **details: object) -> Outgoing:
        """A status message; ``state`` is running, stopped or lost."""
        payload = msgspec.json.encode({"state": state, "share": self._share, **details})
        return Outgoing(alert_id=0, device_id="", topic=self._topic, payload=payload, retain=True)

    def of(self, share: Share, metrics: Metrics) -> Outgoing:
        """The status of a running share: watermark, lag, and the rate since the last beat."""
        now_s, pings = time.monotonic(), metrics.stored_pings()
        rate = (pings - self._pings) / max(now_s - self._since_s, 1e-3)
        self._pings, self._since_s = pings, now_s
        known = share.watermark_us != NO_TIME
        return self.message(
            "running",
            time=to_rfc3339(share.now_us()),
            watermark=to_rfc3339(share.watermark_us) if known else None,
            lag_s=round((share.now_us() - share.watermark_us) / 1e6, 3) if known else None,
            pings_per_s=round(rate, 1),
            problem=share.problem,
        )


class Trouble:
    """Says, once each, that the engine is not at work for a while and why, and that it is again."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._since_s: float | None = None
        self._told = False

    def look(self, reasons: Sequence[str]) -> None:
        """``reasons``: why the engine is not at work now; empty: it is."""
        now_s = time.monotonic()
        if not reasons:
            if self._told and self._since_s is not None:
                self._say(f"at work again after {now_s - self._since_s:.0f} s")
            self._since_s, self._told = None, False
            return
        if self._since_s is None:
            self._since_s = now_s
        if not self._told and now_s - self._since_s > TELL_S:
            self._say(f"not at work: {'; '.join(reasons)}")
            self._told = True
