"""Quarantined messages that operators want taken in again, as messages of their share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from telemetry.columns import Messages
from telemetry.mqtt.topics import Topics

if TYPE_CHECKING:
    from telemetry.share import Share

__all__ = ["replays_asked"]


def replays_asked(share: Share) -> Messages | None:
    """The oldest messages that this share is asked to take in again; None: there are none.

    Their acknowledgement, sent after the commit like that of every message, is the note that they were taken.
    A share that dies between the two takes them once more, and then all their pings are copies.
    """
    asked = share.patiently(lambda store: store.quarantine.asked(share.number))
    if not asked:
        return None
    topics, received_us = Topics(share.mqtt_root, share.formats), share.now_us()
    stop = np.cumsum([len(one.payload) for one in asked])
    replay_ids = [one.replay_id for one in asked]

    def acknowledge() -> None:
        share.patiently(lambda store: store.quarantine.taken(replay_ids, received_us, share.last_batch))

    return Messages(
        topics=topics,
        buffer=np.frombuffer(b"".join(one.payload for one in asked), np.uint8),
        start=np.concatenate([[0], stop[:-1]]),
        stop=stop,
        topic=np.array([topics.slot(one.topic) for one in asked], np.int32),
        received_time_us=np.full(len(asked), received_us),
        acknowledge=acknowledge,
    )
