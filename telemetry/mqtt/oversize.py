"""A message that is too large to take in: of it a prefix and a hash are kept, and the rest is let go.

It travels as a message like any other, on a topic slot of kind OVERSIZE, with this in place of its payload:
u64 length of the original, 32 bytes SHA-256 of it, then its first PREFIX_BYTES bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

__all__ = ["MAX_PAYLOAD_BYTES", "PREFIX_BYTES", "Oversize"]

MAX_PAYLOAD_BYTES: Final = 2 << 20  # a message of 1,024 records is 33 KiB; nothing honest comes near
PREFIX_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Oversize:
    """What is kept of an oversize payload."""

    length: int
    sha256: bytes
    prefix: bytes

    def pack(self) -> bytes:
        """As the payload that stands in for the original."""
        return self.length.to_bytes(8, "little") + self.sha256 + self.prefix

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """From the payload that ``pack`` gave."""
        return cls(int.from_bytes(payload[:8], "little"), payload[8:40], payload[40:])
