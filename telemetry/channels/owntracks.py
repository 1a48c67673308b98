"""Entering and leaving as OwnTracks tells it: ``transition`` messages, for apps and recorders that know them.

They go through the outbox in the transaction that stores the transition, so each is published once it is
stored, in order, and again if the broker did not confirm it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import numpy as np

from geofence import E7, FLAG_WITHDRAWN, NO_ACCURACY, NO_FIX, NO_TIME, TRANSITION_KINDS
from telemetry.columns import Outgoing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geofence import Decided, Pings

__all__ = ["Transition", "transition_messages"]

USER: Final = "ringfence"  # in the topic: owntracks/ringfence/{device}/event
EVENTS: Final = {"ENTER": "enter", "EXIT": "leave"}
SECOND_US: Final = 1_000_000


class Transition(msgspec.Struct, kw_only=True, omit_defaults=True):
    """OwnTracks' own words: seconds since 1970, metres, degrees."""

    type: Literal["transition"] = msgspec.field(name="_type")
    event: Literal["enter", "leave"]
    desc: str  # the zone
    tst: int
    wtst: int  # when the zone was made; here: when the rules took effect
    tid: str  # two characters for the map
    lat: float | None = None
    lon: float | None = None
    acc: int | None = None


def transition_messages(decided: Decided, pings: Pings, effective_us: int) -> Iterator[Outgoing]:
    """A message for each that entered or left; the place is that of its ping, if it is among these."""
    devices, zones = decided.devices.ids, decided.ruleset.zones.ids
    for row in decided.transitions:
        event = EVENTS.get(TRANSITION_KINDS[row["kind"]])
        if event is None or int(row["flags"]) & FLAG_WITHDRAWN:
            continue
        device_id = devices[row["device"]]
        message = Transition(
            type="transition",
            event=event,  # type: ignore[arg-type]
            desc=zones[row["zone"]],
            tst=int(row["time_us"]) // SECOND_US,
            wtst=0 if effective_us == NO_TIME else effective_us // SECOND_US,
            tid=device_id[-2:],
            **_place(pings, int(row["device"]), int(row["time_us"])),
        )
        yield Outgoing(
            alert_id=0,
            device_id=device_id,
            topic=f"owntracks/{USER}/{device_id}/event",
            payload=msgspec.json.encode(message),
            retain=False,
        )


def _place(pings: Pings, device: int, time_us: int) -> dict[str, Any]:
    found = np.flatnonzero(
        (pings.device == device) & (pings.fix_time_us == time_us) & (pings.lat_e7 != NO_FIX)
    )
    if not len(found):
        return {}
    i = found[0]
    accuracy_mm = int(pings.accuracy_mm[i])
    return {
        "lat": int(pings.lat_e7[i]) / E7,
        "lon": int(pings.lon_e7[i]) / E7,
        "acc": None if accuracy_mm == NO_ACCURACY else max(round(accuracy_mm / 1000), 1),
    }
