"""Topic patterns: under which topics devices of other makers publish, and which level names the device.

``owntracks/{user}/{device}`` is three levels, of which the last two make up the device id: ``user-device``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

__all__ = ["DEFAULT_FORMATS", "Pattern"]

DEFAULT_FORMATS: Final = {"owntracks/{user}/{device}": "owntracks"}

_NAMED: Final = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern, level by level; None: any text, which is part of the device id.

    >>> Pattern.of("fleet/{imei}/data").device_id("fleet/350424/data")
    '350424'
    """

    levels: tuple[str | None, ...]

    @classmethod
    def of(cls, text: str) -> Self:
        """Read a pattern; ValueError says what is wrong with it."""
        levels: list[str | None] = []
        names: list[str] = []
        for level in text.split("/"):
            named = _NAMED.fullmatch(level)
            if named:
                names.append(named[1])
            elif not level or set(level) & set("+#{}\0"):
                raise ValueError(
                    f"topic pattern {text!r}: the level {level!r} is neither plain text nor a name "
                    "in braces; write for example fleet/{device}/data"
                )
            levels.append(None if named else level)
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"topic pattern {text!r} must name the device: one or more different names in braces, "
                "for example fleet/{device}/data"
            )
        return cls(tuple(levels))

    @property
    def filter(self) -> str:
        """The MQTT topic filter that subscribes to it."""
        return "/".join("+" if level is None else level for level in self.levels)

    def device_id(self, topic: str) -> str | None:
        """What a topic has in the named levels, joined with ``-``; None where the pattern does not fit."""
        levels = topic.split("/")
        if len(levels) != len(self.levels):
            return None
        named = []
        for level, wanted in zip(levels, self.levels, strict=True):
            if wanted is None and level:
                named.append(level)
            elif level != wanted:
                return None
        return "-".join(named)
