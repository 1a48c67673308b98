"""On which line of a TOML text each key stands, so that an error can say so; tomllib does not tell.

The text has been read by tomllib before, so this scan may trust its grammar and only counts brackets.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["key_lines"]

Path = tuple[str | int, ...]

_HEADER: Final = re.compile(r"^\s*(\[\[?)\s*(.*?)\s*\]\]?\s*(#.*)?$")
_KEY: Final = re.compile(
    r"""^\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*="""
)
_PART: Final = re.compile(r""""([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+)""")
# strings (whole or left open for the next line), comments, brackets: all that can hide or hold a line
_TOKEN: Final = re.compile(r'"""|\'\'\'|"(?:\\.|[^"\\])*"|\'[^\']*\'|#.*|[\[\]{}]')


def key_lines(text: str) -> dict[Path, int]:
    r"""Line (from 1) of each table header and key; path parts are names, and positions in arrays of tables.

    >>> key_lines('a = 1\n[[rules]]\nid = "x"\n')
    {('a',): 1, ('rules',): 2, ('rules', 0): 2, ('rules', 0, 'id'): 3}
    """
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    depth = 0  # of brackets that a value has left open
    quote = ""  # the mark that ends a string over several lines
    for number, line in enumerate(text.splitlines(), 1):
        if not depth and not quote:
            header = _HEADER.match(line)
            key = _KEY.match(line)
            if header and not key:
                table = _parts(header[2])
                if header[1] == "[[":
                    lines.setdefault(table, number)
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, counts[table])
                lines.setdefault(table, number)
                continue
            if key:
                lines.setdefault((*table, *_parts(key[1])), number)
        depth, quote = _carry(line, depth, quote)
    return lines


def _parts(dotted: str) -> Path:
    return tuple(a or b or c for a, b, c in _PART.findall(dotted))


def _carry(line: str, depth: int, quote: str) -> tuple[int, str]:
    """What a line leaves open for the next one: brackets, and a string of several lines."""
    position = 0
    if quote:
        end = line.find(quote)
        if end < 0:
            return depth, quote
        position, quote = end + 3, ""
    while token := _TOKEN.search(line, position):
        position = token.end()
        mark = token[0]
        if mark in ('"""', "'''"):
            end = line.find(mark, position)
            if end < 0:
                return depth, mark
            position = end + 3
        elif mark in "[{":
            depth += 1
        elif mark in "]}":
            depth -= 1
    return depth, quote
