"""Make docs/images/terminal.svg from a real run: ``ringfence up`` above, ``ringfence alerts tail`` below.

Needs tmux. Run it from the repository root: ``.venv/bin/python tools/terminal_picture.py``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

COLUMNS: Final = 118
UP_ROWS: Final = 14
TAIL_ROWS: Final = 24
READY_S: Final = 120.0
WATCH_S: Final = 45.0


def main() -> None:
    """Run both commands in tmux, capture what a person would see, write the picture."""
    ringfence = Path(sys.executable).with_name("ringfence")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)  # as root: the database's user may pass, so it lives in the data directory
        socket = str(Path(folder) / "tmux")
        data_dir = Path(folder) / "data"
        try:
            start(
                socket,
                "up",
                UP_ROWS,
                f"{ringfence} up --simulate 200 --http 127.0.0.1:0 --data-dir {data_dir}",
            )
            wait_for(socket, "up", "ready after", READY_S)
            start(socket, "tail", TAIL_ROWS, f"{ringfence} alerts tail --data-dir {data_dir}")
            time.sleep(WATCH_S)
            up, tail = capture(socket, "up"), capture(socket, "tail")
            tmux(socket, "send-keys", "-t", "up", "C-c")
            wait_for(socket, "up", "stopped", 20.0)
        finally:
            tmux(socket, "kill-server")
    up = up.replace(str(data_dir), "~/.local/state/ringfence")
    console = Console(record=True, width=COLUMNS, force_terminal=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    console.print(Text("$ ringfence up --simulate 200", style="bold"))
    console.print(Text.from_ansi(up.rstrip()))
    console.print(Rule(style="dim"))
    console.print(Text("$ ringfence alerts tail", style="bold"))
    console.print(Text.from_ansi(tail.rstrip()))
    svg = console.export_svg(title="ringfence")
    svg = re.sub(
        r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL
    )  # the reader's own font: nothing is fetched
    Path("docs/images/terminal.svg").write_text(svg)


def tmux(socket: str, *arguments: str) -> str:
    """Run a tmux command on our own server; what it printed."""
    return subprocess.run(
        ["tmux", "-S", socket, *arguments], capture_output=True, text=True, check=False
    ).stdout


def start(socket: str, name: str, rows: int, command: str) -> None:
    """Start a command in a detached session that outlives it, so that its last words can be read."""
    tmux(socket, "new-session", "-d", "-s", name, "-x", str(COLUMNS), "-y", str(rows), f"{command}; sleep 60")


def capture(socket: str, name: str) -> str:
    """What the session's screen shows, with colours."""
    return tmux(socket, "capture-pane", "-e", "-p", "-t", name)


def wait_for(socket: str, name: str, words: str, timeout_s: float) -> None:
    """Wait until the screen shows ``words``."""
    deadline = time.monotonic() + timeout_s
    while words not in capture(socket, name):
        if time.monotonic() > deadline:
            sys.exit(f"{name} did not show {words!r}:\n{capture(socket, name)}")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
