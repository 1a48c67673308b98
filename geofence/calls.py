"""Drawn call times: within each window of a check_in rule, moments that the wearer can't foresee.

They follow from a secret of the rule set, so that they are the same in every run and on every machine: the
engine stays without randomness. BLAKE2b, keyed, is a pseudorandom function (RFC 7693, section 2.9); who does
not have the key learns nothing of the next time from all those before.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from geofence.units import SECOND_US

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geofence.ruleset import Ruleset

__all__ = ["Draw", "call_times"]

_SEED_BYTES: Final = 16
_DRAW_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Draw:
    """How the calls of one rule to one device are drawn.

    seed : hex; answer_us: how long each may be answered; calls: in each window

    >>> draw = Draw.of(b"sixteen bytes or", "evening", "a17", 600_000_000, 1)
    >>> list(draw.times(0, 3_600_000_000)) == list(draw.times(0, 3_600_000_000))
    True
    """

    seed: str
    answer_us: int
    calls: int

    @classmethod
    def of(cls, key: bytes, rule_id: str, device_id: str, answer_us: int, calls: int) -> Draw:
        """The draw of this rule and device."""
        text = f"{rule_id}\0{device_id}".encode()
        return cls(hashlib.blake2b(text, key=key, digest_size=_SEED_BYTES).hexdigest(), answer_us, calls)

    def times(self, begin_us: int, end_us: int) -> Iterator[tuple[int, int]]:
        """The times to answer, (from, until), in one window.

        The window is cut into ``calls`` parts of equal length; in each, a whole second after its beginning is
        drawn so that the answer still fits in. A part too short for that is itself the time to answer.
        """
        part_us = (end_us - begin_us) // self.calls
        for k in range(self.calls):
            start_us = begin_us + k * part_us
            room_s = (part_us - self.answer_us) // SECOND_US
            if room_s < 0:
                yield start_us, start_us + part_us
                continue
            text = start_us.to_bytes(8, "little", signed=True)
            drawn = hashlib.blake2b(text, key=bytes.fromhex(self.seed), digest_size=_DRAW_BYTES).digest()
            call_us = start_us + int.from_bytes(drawn, "big") % (room_s + 1) * SECOND_US
            yield call_us, call_us + self.answer_us


def call_times(ruleset: Ruleset, device_id: str, from_us: int, until_us: int) -> list[tuple[str, int, int]]:
    """When check-ins are expected of a device: (rule id, from, until) of each that begins in this time.

    For who places the calls: of a rule without ``answer_within`` these are its windows.
    """
    from geofence.plan import Calendars, Plan, year_of  # noqa: PLC0415 - the plan needs this module

    plan = Plan(ruleset, {}, Calendars())
    found = []
    for i in plan.rules_of(device_id)[0]:
        rule = ruleset.rules[i]
        if rule.require != "check_in":
            continue
        calendar = plan.calendar_of(i, device_id)
        edges = calendar.windows(year_of(from_us) - 1, year_of(until_us) + 1).tolist()
        found += [
            (rule.id, begin_us, end_us)
            for begin_us, end_us in zip(edges[::2], edges[1::2], strict=True)
            if from_us <= begin_us < until_us
        ]
    return sorted(found, key=lambda call: (call[1], call[0]))
