"""Devices in Home Assistant, by its MQTT discovery: a problem sensor for each that has had an alert."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from telemetry.channels.channel import Outcome
from telemetry.columns import Outgoing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telemetry.mqtt.session import Session
    from telemetry.store.deliveries import Delivery, Notice
    from telemetry.store.desk import Desk

__all__ = ["DeviceState", "HomeAssistant"]

PUBLISH_TIMEOUT_S: Final = 10.0


class DeviceState(msgspec.Struct):
    """What the sensor shows: ON while an alert is open or acknowledged; the worst of them."""

    alert: Literal["ON", "OFF"]
    open: int
    severity: str | None
    sentence: str | None


class HomeAssistant:
    """Announces a device at its first message after a start, and keeps its state; both retained."""

    name = "home_assistant"

    def __init__(self, prefix: str, root: str, share: int, session: Session, desk: Desk) -> None:
        self._prefix = prefix
        self._root = root
        self._share = share
        self._session = session
        self._desk = desk
        self._announced: set[str] = set()

    def wants(self, notice: Notice) -> bool:
        """Every step can change what the sensor shows."""
        return notice.device_id != ""

    def deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """Publish the state of each device as it is now."""
        messages: list[Outgoing] = []
        last: list[int] = []
        for delivery in deliveries:
            if delivery.device_id not in self._announced:
                messages.append(self._announcement(delivery.device_id))
            messages.append(self._state(delivery.device_id))
            last.append(len(messages))
        confirmed = self._session.publish(messages, PUBLISH_TIMEOUT_S)
        outcomes, begin = [], 0
        for delivery, end in zip(deliveries, last, strict=True):
            if all(confirmed[begin:end]):
                self._announced.add(delivery.device_id)
                outcomes.append(Outcome())
            else:
                outcomes.append(Outcome("the broker did not confirm it"))
            begin = end
        return outcomes

    def close(self) -> None:
        """Close its desk."""
        self._desk.close()

    def _state_topic(self, device_id: str) -> str:
        return f"{self._root}/home_assistant/{device_id}/state"

    def _state(self, device_id: str) -> Outgoing:
        alerts, severity, sentence = self._desk.live_alerts(device_id)
        state = DeviceState("ON" if alerts else "OFF", alerts, severity, sentence)
        return Outgoing(0, device_id, self._state_topic(device_id), msgspec.json.encode(state), retain=True)

    def _announcement(self, device_id: str) -> Outgoing:
        unique = f"ringfence_{device_id}"
        config: dict[str, Any] = {
            "name": "Alert",
            "unique_id": f"{unique}_alert",
            "device_class": "problem",
            "state_topic": self._state_topic(device_id),
            "value_template": "{{ value_json.alert }}",
            "json_attributes_topic": self._state_topic(device_id),
            "availability_topic": f"{self._root}/engine/{self._share}/status",
            "availability_template": "{{ 'online' if value_json.state == 'running' else 'offline' }}",
            "device": {"identifiers": [unique], "name": device_id, "manufacturer": "Ringfence"},
            "origin": {"name": "ringfence", "sw_version": version("ringfence")},
        }
        topic = f"{self._prefix}/binary_sensor/{unique}/alert/config"
        return Outgoing(0, device_id, topic, msgspec.json.encode(config), retain=True)
