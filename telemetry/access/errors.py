"""The base of what access refuses."""

from __future__ import annotations

__all__ = ["AccessError"]


class AccessError(Exception):
    """A user's error; the message says what is wrong, the value and the remedy."""
