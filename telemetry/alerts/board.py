"""The table of ``ringfence alerts tail``: the alerts that are to do, and which of them is chosen."""

from __future__ import annotations

import time
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from geofence import from_rfc3339
from telemetry.alerts.stream import LIVE_STATES

__all__ = ["SHOWN_DIGITS", "Board", "age", "percent", "printable"]

SHOWN_DIGITS: Final = 6  # of an id, its end: enough to tell the alerts of a day apart
MIN_SHOWN: Final = 3
FRAME_LINES: Final = 4  # title, head, and what a long sentence or the prompt may take
SEVERITIES: Final = ("critical", "high", "low", "info")
STYLES: Final = {"critical": "bold white on red", "high": "bold yellow", "low": "cyan", "info": "dim"}
COLUMNS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("severity", {"no_wrap": True}),
    ("state", {"no_wrap": True}),
    ("age", {"justify": "right", "no_wrap": True}),
    ("id", {"no_wrap": True}),
    ("device", {"no_wrap": True}),
    ("what happened", {"ratio": 1}),
    ("sure", {"justify": "right", "no_wrap": True}),
)


class Board:
    """The alerts that are shown: those to do, most severe first, then newest.

    keys : whether the chosen one, and what the keys do, are shown
    The choice is an alert and not a line of the table: it stays with its alert when the order changes.
    """

    def __init__(self, *, keys: bool = False) -> None:
        self.state = "connecting"
        self.said = ""  # what came of the last key
        self._keys = keys
        self._alerts: dict[str, dict[str, Any]] = {}
        self._chosen: str | None = None
        self._typed = ""  # the beginning of an id as it is shown

    @property
    def chosen(self) -> dict[str, Any] | None:
        """The alert that a key would act on."""
        return None if self._chosen is None else self._alerts.get(self._chosen)

    def replace(self, alerts: list[dict[str, Any]]) -> None:
        """Show these."""
        self._alerts = {alert["alert_id"]: alert for alert in alerts}

    def put(self, alert: dict[str, Any]) -> None:
        """Show this one as it is now; one that is done goes away."""
        if alert["state"] in LIVE_STATES:
            self._alerts[alert["alert_id"]] = alert
        else:
            self._alerts.pop(alert["alert_id"], None)

    def move(self, by: int) -> None:
        """Choose the next alert, or with -1 the one before."""
        order = [alert["alert_id"] for alert in self._ranked()]
        self._typed, self.said = "", ""
        if not order:
            return
        if self._chosen not in order:
            self._chosen = order[0 if by > 0 else -1]
        else:
            self._chosen = order[min(max(order.index(self._chosen) + by, 0), len(order) - 1)]

    def type(self, digit: str) -> None:
        """Choose by id: one more digit of the id as the table shows it."""
        typed = (self._typed + digit)[-SHOWN_DIGITS:]
        fitting = [key for key in self._alerts if key[-SHOWN_DIGITS:].startswith(typed)]
        self._typed, self.said = typed, ""
        if len(fitting) == 1:
            self._chosen, self._typed = fitting[0], ""
        elif not fitting:
            self._typed, self.said = "", f"no alert to do has an id that begins with {typed}"

    def forget(self) -> None:
        """Choose none."""
        self._chosen, self._typed, self.said = None, "", ""

    def render(self, height: int) -> Table:
        """The table as it is now, for a terminal of ``height`` lines."""
        alerts = self._ranked()
        most = max(MIN_SHOWN, (height - FRAME_LINES - self._keys) // 2)  # a sentence takes up to two lines
        at = next((i for i, alert in enumerate(alerts) if alert["alert_id"] == self._chosen), 0)
        first = max(0, at - most + 1)
        shown = alerts[first : first + most]
        table = Table(
            title=self._title(len(alerts), first, len(shown)), expand=True, box=None, pad_edge=False
        )
        if self._keys:
            table.caption = self._caption()
            table.caption_justify = "left"
        for name, options in COLUMNS:
            table.add_column(name, **options)
        now_us = time.time_ns() // 1000
        for alert in shown:
            chosen = self._keys and alert["alert_id"] == self._chosen
            table.add_row(
                Text(("> " if chosen else "") + alert["severity"], style=STYLES[alert["severity"]]),
                alert["state"],
                age(now_us - from_rfc3339(alert["opened_at"])),
                Text(alert["alert_id"][-SHOWN_DIGITS:], style="bold" if self._keys else "dim"),
                Text(printable(alert["device_id"]), style="bold"),
                Text(printable(alert["sentence"])),
                "" if alert["confidence"] is None else percent(alert["confidence"]),
                style="reverse" if chosen else None,
            )
        return table

    def _ranked(self) -> list[dict[str, Any]]:
        alerts = sorted(self._alerts.values(), key=lambda alert: str(alert["opened_at"]), reverse=True)
        alerts.sort(key=lambda alert: (alert["state"] != "open", SEVERITIES.index(alert["severity"])))
        return alerts

    def _title(self, alerts: int, first: int, shown: int) -> Text:
        title = Text(f"Ringfence: {alerts} alert{'' if alerts == 1 else 's'} to do", style="bold")
        if first:
            title.append(f", {first + 1} to {first + shown} shown", style="not bold")
        elif shown < alerts:
            title.append(f", the first {shown} shown", style="not bold")
        title.append(f"  {printable(self.state)}", style="green" if self.state == "live" else "bold red")
        return title

    def _caption(self) -> Text:
        caption = Text("↑ ↓ or digits of an id choose, a acknowledges, q ends", style="dim not italic")
        said = f"id {self._typed}…" if self._typed else printable(self.said)
        if said:
            caption.append(f"  {said}", style="not dim bold")
        return caption


def percent(share: float) -> str:
    """A probability, never rounded up to certainty."""
    return "100 %" if share == 1 else f"{min(share * 100, 99.9):.1f} %"


def age(elapsed_us: int) -> str:
    """A length of time in its two greatest units: ``40 s``, ``4 min``, ``3 h 10 min``, ``2 d 4 h``."""
    seconds = max(elapsed_us // 1_000_000, 0)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3_600:
        return f"{seconds // 60} min"
    if seconds < 86_400:
        return f"{seconds // 3_600} h {seconds % 3_600 // 60} min"
    return f"{seconds // 86_400} d {seconds % 86_400 // 3_600} h"


def printable(text: str) -> str:
    """The text without control characters: names of zones must not steer the terminal."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
