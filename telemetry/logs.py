"""How the log is written: for people on a terminal or in a file, or as a JSON object a line.

No message above debug level holds a coordinate; tests/end_to_end/test_logs.py reads the log of a run for it.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from rich.logging import RichHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

__all__ = ["LEVELS", "JsonFormatter", "set_up", "teller"]

LEVELS: Final = ("debug", "info", "warning", "error")


class JsonFormatter(logging.Formatter):
    """time (RFC 3339, UTC), level, logger, thread, message; with an exception its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields).decode()


def set_up(level: str, layout: str, console: Console) -> None:
    """Send the log to standard error.

    level   : one of LEVELS
    layout  : ``console`` or ``json``
    console : where people are spoken to
    """
    handler: logging.Handler = logging.StreamHandler()
    if layout == "json":
        handler.setFormatter(JsonFormatter())
    elif console.is_terminal:
        handler = RichHandler(console=console, show_path=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def teller(layout: str, say: Callable[[str], None]) -> Callable[[str], None]:
    """How ``up`` tells its progress: lines for people, or lines of the JSON log whatever its level."""
    if layout != "json":
        return say
    formatter = JsonFormatter()

    def tell(line: str) -> None:
        record = logging.LogRecord("ringfence", logging.INFO, "", 0, "%s", (line,), None)
        say(formatter.format(record))

    return tell
