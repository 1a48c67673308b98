"""Keyset cursors: where a list was left, as opaque text."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import msgspec

from telemetry.store.errors import BadCursor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["read_cursor", "write_cursor"]

_BIGINT = range(-(2**63), 2**63)


def write_cursor(of_list: str, *key: str | int) -> str:
    """The key of the last row given.

    >>> write_cursor("devices", "a17")
    'WyJkZXZpY2VzIiwiYTE3Il0'
    """
    return base64.urlsafe_b64encode(msgspec.json.encode([of_list, *key])).rstrip(b"=").decode()


def read_cursor(text: str, of_list: str, *kinds: type[str | int]) -> Sequence[Any]:
    """The key in a cursor, its values of these kinds.

    Raises BadCursor when it is of another list, or no cursor.
    """
    try:
        name, *key = msgspec.json.decode(
            base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        )
    except (binascii.Error, msgspec.DecodeError, UnicodeError, ValueError, TypeError) as error:
        raise BadCursor from error
    if name != of_list or len(key) != len(kinds):
        raise BadCursor
    for value, kind in zip(key, kinds, strict=True):
        if type(value) is not kind:
            raise BadCursor
        if (isinstance(value, int) and value not in _BIGINT) or (isinstance(value, str) and "\0" in value):
            raise BadCursor
    return list(key)
