"""Which of the formats on offer a request's Accept header asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemetry.api.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["negotiate"]


def negotiate(accept: str | None, offers: Mapping[str, str]) -> str:
    """The key in ``offers`` (media type to name, best first) that ``accept`` likes most, as its name.

    Quality first, then how exactly the range names the type, then our order; no header: the first.
    Raises Problem 406 when nothing fits.
    """
    ranges = [_range(part) for part in (accept or "*/*").split(",") if part.strip()]
    best: tuple[float, int] = (0.0, 0)
    chosen: str | None = None
    for media_type, name in offers.items():
        fitting = [(exact, q) for pattern, q in ranges if (exact := _fits(pattern, media_type))]
        if not fitting:
            continue
        exact, quality = max(fitting)  # the most exact range decides about this type
        if (quality, exact) > best:
            best, chosen = (quality, exact), name
    if chosen is None:
        raise Problem(
            406,
            "no-such-format",
            f"nothing here can be written as {accept!r}",
            f"accept one of {', '.join(offers)}",
        )
    return chosen


def _range(part: str) -> tuple[str, float]:
    pattern, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return pattern, min(max(float(value), 0.0), 1.0)
            except ValueError:
                return pattern, 0.0
    return pattern, 1.0


def _fits(pattern: str, media_type: str) -> int:
    """How exactly a range names a type: 3 the type itself, 2 its group, 1 anything, 0 not at all."""
    if pattern == media_type:
        return 3
    if pattern == f"{media_type.partition('/')[0]}/*":
        return 2
    return int(pattern == "*/*")
