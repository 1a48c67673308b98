"""Who asks, and what a role may do.

The table is the policy, and the whole of it: a route names the permission that it needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["LOCAL_USER", "PERMISSIONS", "Permission", "Role", "Who"]


class Permission(StrEnum):
    """What a route can need."""

    SEE = "see"  # devices, where they are now, zones, rules, decisions, alerts, the live stream
    TRACK = "track"  # where a person was; each look is logged
    WORK_ALERTS = "work_alerts"  # acknowledge, resolve, reopen, assign, suppress
    COMMAND = "command"  # send commands to a device
    GRANT_LEAVE = "grant_leave"  # and revoke it
    RECORD = "record"  # all that was recorded about a person; logged like a look at a track
    SEE_LOOKS = "see_looks"  # who looked at whom
    EDIT = "edit"  # make, change and retire zones and rules
    MEASURE = "measure"  # metrics, quarantine, the state of the engine


class Role(StrEnum):
    """What an account or a token is for."""

    READ_ONLY = "read_only"
    OPERATOR = "operator"
    SUPERVISOR = "supervisor"
    ENGINEER = "engineer"
    LOCAL = "local"  # whoever sits at this machine, while there is neither account nor token; never stored


_P = Permission
PERMISSIONS: Final[dict[Role, frozenset[Permission]]] = {
    Role.READ_ONLY: frozenset({_P.SEE}),
    Role.OPERATOR: frozenset({_P.SEE, _P.TRACK, _P.WORK_ALERTS, _P.COMMAND}),
    Role.SUPERVISOR: frozenset(
        {_P.SEE, _P.TRACK, _P.WORK_ALERTS, _P.COMMAND, _P.GRANT_LEAVE, _P.EDIT, _P.RECORD, _P.SEE_LOOKS}
    ),
    # an engineer mends what decides about people; what they did, and whom they watched, is no part of that
    Role.ENGINEER: frozenset({_P.SEE, _P.EDIT, _P.MEASURE, _P.COMMAND}),
    Role.LOCAL: frozenset(Permission),
}


@dataclass(frozen=True, slots=True)
class Who:
    """Whoever sent a request.

    groups : the caseload, names of groups; only their participants and devices exist for this person.
             None: everyone
    how    : how it is known: ``loopback``, ``session`` or ``token``
    """

    name: str
    role: Role
    groups: frozenset[str] | None
    how: str

    def may(self, permission: Permission) -> bool:
        """Whether the role includes this. Zones and rules are one document for all, so who has a caseload
        edits none of it.

        >>> Who("m.ito", Role.OPERATOR, frozenset({"north"}), "session").may(Permission.EDIT)
        False
        """
        if permission is Permission.EDIT and self.groups is not None:
            return False
        return permission in PERMISSIONS[self.role]

    def may_for_everyone(self, permission: Permission) -> bool:
        """Whether the role would include it without a caseload."""
        return permission in PERMISSIONS[self.role]

    @property
    def sees_everyone(self) -> bool:
        """Whether there is no caseload."""
        return self.groups is None


LOCAL_USER: Final = Who("local operator", Role.LOCAL, None, "loopback")
