"""Messages as a session would deliver them."""

from __future__ import annotations

import numpy as np
import pytest

from telemetry.columns import Messages
from telemetry.mqtt.patterns import DEFAULT_FORMATS
from telemetry.mqtt.topics import Topics

RECEIVED_US = 1_795_507_201_000_000
FORMATS = DEFAULT_FORMATS | {
    "traccar/{device}": "traccar",
    "fleet/{imei}/data": "teltonika",
    "lwm2m/{endpoint}/6": "lwm2m",
    "plain/{site}/{unit}": "pings",
}


@pytest.fixture
def messages_of():
    """``messages_of([(topic, payload), …])``; there are bytes between the payloads that belong to none."""

    def build(items: list[tuple[str, bytes]], topics: Topics | None = None) -> Messages:
        topics = Topics(formats=FORMATS) if topics is None else topics
        gap = b"\xa7\x01\x00"
        lengths = np.array([len(payload) for _, payload in items], np.int64)
        start = np.cumsum(lengths + len(gap)) - lengths
        return Messages(
            topics=topics,
            buffer=np.frombuffer(b"".join(gap + payload for _, payload in items), np.uint8),
            start=start,
            stop=start + lengths,
            topic=np.array([topics.slot(topic) for topic, _ in items], np.int32),
            received_time_us=RECEIVED_US + np.arange(len(items), dtype=np.int64),
            acknowledge=lambda: None,
        )

    return build
