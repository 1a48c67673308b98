"""``ringfence audit verify``: follow the chains of a database, and keep an anchor beside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from telemetry.access.chain import LOGS, Anchor, verify
from telemetry.access.errors import AccessError
from telemetry.services.datadir import write_private
from telemetry.store.audit import stored_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from telemetry.access.chain import Verdict

    Progress = Callable[[str, int, int], None]

__all__ = ["report", "verify_database"]

TELL_ROWS: Final = 1_000


def verify_database(url: str, anchor_file: Path | None, progress: Progress) -> list[Verdict]:
    """A verdict for each log, all as of one moment.

    anchor_file : what earlier runs noted, as JSON; brought up to date when everything holds
    progress    : told the log, the rows that were followed, and how many there are
    """
    anchors = _read_anchors(anchor_file) if anchor_file is not None else {}
    with stored_logs(url) as logs:
        erasures = logs.erasures()
        verdicts = [
            verify(
                log,
                _telling(log, logs.rows(log), logs.count(log), progress),
                erasures=erasures,
                anchor=anchors.get(log),
            )
            for log in LOGS
        ]
    if anchor_file is not None and all(verdict.broken is None for verdict in verdicts):
        heads = {verdict.log: verdict.head for verdict in verdicts if verdict.head is not None}
        try:
            write_private(anchor_file, msgspec.json.format(msgspec.json.encode(heads)).decode() + "\n")
        except OSError as error:
            raise AccessError(
                f"the anchor {anchor_file} can't be written ({error.strerror}); give another with --anchor"
            ) from error
    return verdicts


def report(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """The verdicts as JSON."""
    verdicts = list(verdicts)
    return {
        "ok": all(verdict.broken is None for verdict in verdicts),
        "logs": [
            {
                "log": verdict.log,
                "rows": verdict.rows,
                "erased": verdict.erased,
                "head": None
                if verdict.head is None
                else {"link": verdict.head.link, "hash": verdict.head.hash},
                "broken": None
                if verdict.broken is None
                else {"link": verdict.broken[0], "why": verdict.broken[1]},
            }
            for verdict in verdicts
        ],
    }


def _read_anchors(path: Path) -> dict[str, Anchor]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Anchor])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        raise AccessError(
            f"the anchor {path} can't be read ({error}); give the file that an earlier run wrote"
        ) from error


def _telling(
    log: str, rows: Iterator[dict[str, Any]], total: int, progress: Progress
) -> Iterator[Mapping[str, Any]]:
    progress(log, 0, total)
    number = 0
    for number, row in enumerate(rows, 1):
        yield row
        if number % TELL_ROWS == 0:
            progress(log, number, total)
    progress(log, number, total)
