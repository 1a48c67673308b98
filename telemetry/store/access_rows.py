"""Statements about accounts, tokens, sessions and the access log, shared by both sides of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from telemetry.access.looks import Look, LookRow
from telemetry.store.rows import bound, moment

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LOOK", "LOOKS", "PARTICIPANT_OF", "look_row", "look_values"]

LOOK: Final = """
INSERT INTO access_log (time, who, role, how, what, device_id, participant, from_time, to_time, reason,
                        detail, erasure)
VALUES (%(time)s, %(who)s, %(role)s, %(how)s, %(what)s, %(device_id)s, %(participant)s, %(from)s, %(to)s,
        %(reason)s, %(detail)s, %(erasure)s)
"""

# Who wore a device at some time of a range; NULL: nobody whose name the roster tells.
PARTICIPANT_OF: Final = """
SELECT participant FROM enrollments
WHERE device_id = %(device_id)s AND participant IS NOT NULL
  AND coalesce(from_time, '-infinity') < %(to)s AND coalesce(until_time, 'infinity') > %(from)s
ORDER BY until_version IS NOT NULL, from_version DESC LIMIT 1
"""

LOOKS: Final = """
SELECT link, time, who, role, how, what, device_id, participant, from_time, to_time, reason, detail,
       erased_by IS NOT NULL
FROM access_log a
WHERE {where}
ORDER BY time DESC, link DESC LIMIT %(limit)s
"""


def look_values(look: Look, now_us: int) -> dict[str, Any]:
    """The parameters of LOOK."""
    return {
        "time": moment(now_us),
        "who": look.who,
        "role": look.role,
        "how": look.how,
        "what": look.what,
        "device_id": look.device_id,
        "participant": look.participant,
        "from": None if look.from_us is None else bound(look.from_us),
        "to": None if look.to_us is None else bound(look.to_us),
        "reason": look.reason,
        "detail": look.detail,
        "erasure": look.erasure,
    }


def look_row(row: Sequence[Any]) -> LookRow:
    """A row of LOOKS."""
    return LookRow(*row)
