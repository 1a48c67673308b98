"""What the API asks of the store to work on alerts, as a protocol; a part of ``telemetry.api.reader``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telemetry.api.reader import AlertRow, Page

__all__ = ["AlertWork", "ChannelRow", "DeliveryRow", "SuppressionRow"]


@dataclass(frozen=True, slots=True)
class SuppressionRow:
    """Who keeps which alerts quiet until when; device, rule and zone are None where any fits."""

    suppression_id: int
    device_id: str | None
    rule_id: str | None
    zone_id: str | None
    reason: str
    created_by: str
    created_us: int
    until_us: int
    lifted_by: str | None
    lifted_us: int | None
    in_force: bool


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """One message through one channel. due_us: of the next try, while it waits."""

    delivery_id: int
    channel: str
    alert_id: int
    device_id: str
    state: str  # waiting, delivered, dead
    attempts: int
    error: str | None
    created_us: int
    due_us: int
    settled_us: int | None


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """What a channel has before it. oldest_us: of the oldest message that waits; None: none does."""

    channel: str
    waiting: int
    dead: int
    oldest_us: int | None


class AlertWork(Protocol):
    """Steps of alerts, suppressions and deliveries."""

    async def act_on_alert(
        self,
        alert_id: int,
        action: str,
        *,
        who: str,
        note: str | None,
        outcome: str | None,
        assignee: str | None = None,
    ) -> AlertRow:
        """Acknowledge, assign, resolve or reopen: alert, log and outbox in one transaction."""
        ...

    async def suppress(
        self,
        *,
        device_id: str | None,
        rule_id: str | None,
        zone_id: str | None,
        until_us: int,
        reason: str,
        who: str,
    ) -> SuppressionRow:
        """Keep what fits quiet until then, from now on."""
        ...

    async def lift(self, suppression_id: int, *, who: str) -> SuppressionRow | None:
        """End one now; None: nobody knows it."""
        ...

    async def suppression(self, suppression_id: int) -> SuppressionRow | None:
        """One of them."""
        ...

    async def suppressions(
        self, *, in_force: bool | None, cursor: str | None, limit: int
    ) -> Page[SuppressionRow]:
        """Newest first."""
        ...

    async def deliveries(
        self,
        *,
        state: str | None,
        channel: str | None,
        alert_id: int | None,
        cursor: str | None,
        limit: int,
    ) -> Page[DeliveryRow]:
        """Newest first."""
        ...

    async def retry_delivery(self, delivery_id: int) -> DeliveryRow | None:
        """Have one tried at once; None: nobody knows it."""
        ...

    async def channels(self) -> Sequence[ChannelRow]:
        """What each channel has before it."""
        ...
