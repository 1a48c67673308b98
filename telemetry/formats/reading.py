"""Reading JSON strictly: what msgspec says of a bad document, in our words, and numbers onto the grid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["Latitude", "Longitude", "Moment", "Unreadable", "read", "scaled", "time_us", "times_us", "whole"]

MAX_TIME_MS: Final = 253_402_300_799_999  # the year 9999
MAX_TIME_S: Final = MAX_TIME_MS // 1000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

Latitude = Annotated[float, msgspec.Meta(ge=-90, le=90)]
Longitude = Annotated[float, msgspec.Meta(ge=-180, le=180)]
# RFC 3339 with an offset, or milliseconds since 1970.
Moment = (
    Annotated[datetime, msgspec.Meta(tz=True)]
    | Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)]
    | Annotated[float, msgspec.Meta(ge=0, le=MAX_TIME_MS)]
)


class Unreadable(Exception):  # noqa: N818 - it becomes a Reject, not an error
    """A document can't be taken in: ``reason`` is a word, ``detail`` a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def read(decoder: msgspec.json.Decoder[Any], payload: bytes) -> Any:
    """Decode, or raise Unreadable."""
    if not payload:
        raise Unreadable("empty", "the payload is empty")
    try:
        if not payload.isascii():
            payload.decode()  # msgspec does not look inside fields that it skips
        return decoder.decode(payload)
    except UnicodeDecodeError as error:
        raise Unreadable("not_utf8", f"byte {error.start} is not UTF-8") from error
    except msgspec.ValidationError as error:
        raise _of_validation(str(error)) from error
    except msgspec.DecodeError as error:
        raise Unreadable("not_json", f"not JSON: {error}") from error
    except RecursionError as error:
        raise Unreadable("too_deep", "lists or objects are nested too deeply") from error


def _of_validation(said: str) -> Unreadable:
    """Sort msgspec's sentence into a reason. ``Expected `float` <= 90.0 - at `$.lat` `` is out of range."""
    if "missing required field" in said:
        return Unreadable("missing_field", said)
    if "datetime" in said.lower() and "Expected `int" not in said:
        return Unreadable(
            "bad_time", f"{said}; write a time as RFC 3339 with Z or an offset, or as milliseconds"
        )
    if ">=" in said or "<=" in said or "out of range" in said:
        return Unreadable("out_of_range", said)
    if "Invalid enum value" in said or "Invalid value" in said:
        return Unreadable("unknown_word", said)
    return Unreadable("wrong_type", said)


def time_us(moment: datetime | float) -> int:
    """Microseconds since 1970 of a Moment."""
    if isinstance(moment, datetime):
        return (moment - _EPOCH) // _MICROSECOND
    return moment * 1000 if isinstance(moment, int) else round(moment * 1000)


def times_us(moments: Sequence[datetime | float]) -> NDArray[np.int64]:
    """``time_us`` of many."""
    if set(map(type, moments)) == {datetime}:
        seconds = np.array([moment.timestamp() for moment in moments])  # type: ignore[union-attr]  # just looked
        # Below 2**32 s a double is off by at most 2**-22 s and the product by 2**-3 us: 0.37 us together, so
        # the nearest whole microsecond is the right one.
        if (np.abs(seconds) < 1 << 32).all():
            return np.rint(seconds * 1e6).astype(np.int64)
    return np.array([time_us(moment) for moment in moments], np.int64)


def scaled(values: Iterable[float | None], scale: float, unknown: int, dtype: str) -> NDArray[Any]:
    """Numbers as integers of ``1 / scale``: nearest, ties to even; None becomes ``unknown``."""
    given = np.array(values if isinstance(values, list) else list(values), np.float64)  # None becomes NaN
    with np.errstate(invalid="ignore"):
        return np.where(np.isnan(given), unknown, np.rint(given * scale)).astype(dtype)


def whole(values: Sequence[int | None], unknown: int, dtype: str) -> NDArray[Any]:
    """Whole numbers as they are; None becomes ``unknown``."""
    if None in values:
        values = [unknown if value is None else value for value in values]
    return np.array(values, dtype)
