"""PUBLISH frames of MQTT 3.1.1 and 5, found in a buffer of received bytes (OASIS MQTT 3.1.1 and 5.0,
sections 2.2 and 3.3).

Numba checks no bounds, so every length is compared with what is there before it is used.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = [
    "ALIAS",
    "CONTROL",
    "MALFORMED",
    "MAX_PROPERTIES",
    "MORE",
    "MQTT_5",
    "OVERSIZE",
    "QOS_2",
    "hash_topic",
    "insert_topic",
    "note_deliveries",
    "scan",
    "warm",
]

# Why a scan stopped.
MORE = 0  # the frame at the new position is not complete, or the columns are full
CONTROL = 1  # a complete frame that is no PUBLISH stands there
OVERSIZE = 2  # a PUBLISH stands there whose payload is too long; all before its payload has come
MALFORMED = 3
QOS_2 = 4  # a PUBLISH at QoS 2, which no subscription asked for
ALIAS = 5  # a PUBLISH with a topic alias, which we never announced

MQTT_5 = 5
MAX_PROPERTIES = 1 << 16  # bytes; honest ones are some tens

_PUBLISH = 3
_PRIME = np.uint64(0x100000001B3)  # FNV-1a, 64 bits (Fowler, Noll, Vo)
_BASIS = np.uint64(0xCBF29CE484222325)


@njit(cache=True, nogil=True)
def hash_topic(buffer, first, last):
    """FNV-1a of buffer[first:last], its high bits folded into the low ones."""
    h = _BASIS
    for at in range(first, last):
        h = (h ^ np.uint64(buffer[at])) * _PRIME
    return h ^ h >> np.uint64(29)


@njit(cache=True, nogil=True)
def _find(buffer, first, last, table, arena, bounds):
    mask = np.uint64(len(table) - 1)
    at = hash_topic(buffer, first, last) & mask
    while table[at] >= 0:
        slot = table[at]
        begin = bounds[slot, 0]
        if bounds[slot, 1] - begin == last - first:
            same = True
            for k in range(last - first):
                if arena[begin + k] != buffer[first + k]:
                    same = False
                    break
            if same:
                return slot
        at = (at + np.uint64(1)) & mask
    return np.int32(-1)


@njit(cache=True, nogil=True)
def insert_topic(slot, table, arena, bounds):
    """Put a topic into the table; it must not be there yet.

    slot   : its slot
    table  : int32 (2**k,)     open addressing; -1: free; written
    arena  : uint8 (bytes,)    topics, back to back
    bounds : int64 (slots, 2)  begin and end of each in the arena
    """
    mask = np.uint64(len(table) - 1)
    at = hash_topic(arena, bounds[slot, 0], bounds[slot, 1]) & mask
    while table[at] >= 0:
        at = (at + np.uint64(1)) & mask
    table[at] = slot


@njit(cache=True, nogil=True)
def _check_properties(buffer, at, last):
    """MORE where the properties in buffer[at:last] are well formed, else MALFORMED or ALIAS.

    Section 2.2.2.2 of MQTT 5.0: an identifier, then a value whose type follows from it. Those of a PUBLISH.
    """
    while at < last:
        identifier = buffer[at]
        at += 1
        texts = 0
        if identifier == 0x01:  # payload format: a byte
            at += 1
        elif identifier == 0x02:  # message expiry: four bytes
            at += 4
        elif identifier == 0x03 or identifier == 0x08 or identifier == 0x09:  # content type, response topic,
            texts = 1  # correlation data
        elif identifier == 0x26:  # user property: two texts
            texts = 2
        elif identifier == 0x0B:  # subscription identifier: up to four bytes of seven bits
            digits = 1
            while at < last and digits < 4 and buffer[at] >= 128:
                at += 1
                digits += 1
            if at < last and buffer[at] >= 128:
                return MALFORMED
            at += 1
        elif identifier == 0x23:
            return ALIAS
        else:
            return MALFORMED
        for _ in range(texts):
            if at + 2 > last:
                return MALFORMED
            at += 2 + (np.int64(buffer[at]) << 8 | np.int64(buffer[at + 1]))
    return MORE if at == last else MALFORMED


@njit(cache=True, nogil=True)
def scan(
    buffer,
    begin,
    end,
    version,
    max_payload,
    table,
    arena,
    bounds,
    n,
    topic_bounds,
    topic,
    start,
    stop,
    packet_id,
    again,
):
    """Walk the frames in buffer[begin:end] up to the first that is not a complete, good PUBLISH.

    buffer       : uint8 (b,)
    version      : of MQTT, 4 (3.1.1) or 5; in 5 properties stand before the payload
    max_payload  : bytes; a longer payload is OVERSIZE, a control packet longer than this is MALFORMED
    table, arena, bounds : as for insert_topic
    n            : columns filled so far; those up to n stay
    topic_bounds : int64 (m, 2)   where the topic stands in the buffer; written
    topic        : int32 (m,)     its slot; -1: not seen yet; written
    start, stop  : int64 (m,)     payload; written
    packet_id    : uint16 (m,)    0 at QoS 0; written
    again        : bool (m,)      DUP flag; written

    Gives the position after the last frame taken, the new n, why it stopped, and the length of the frame
    there (for CONTROL and OVERSIZE; for MORE how long it will be, 0: not known yet).
    """
    at = begin
    while True:
        if at >= end:
            return at, n, MORE, 0
        # Fixed header: a byte, then the remaining length in one to four bytes of seven bits.
        remaining, shift, body = 0, 0, at + 1
        while True:
            if body >= end:
                return at, n, MORE, 0
            digit = np.int64(buffer[body])
            body += 1
            remaining |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                break
            if shift == 28:
                return at, n, MALFORMED, 0
        length = body - at + remaining
        kind = buffer[at] >> 4
        if kind != _PUBLISH:
            if length > max_payload:
                return at, n, MALFORMED, 0
            if at + length > end:
                return at, n, MORE, length
            return at, n, CONTROL, length
        qos = (buffer[at] >> 1) & 3
        if qos == 3 or remaining < 2:
            return at, n, MALFORMED, 0
        if qos == 2:
            return at, n, QOS_2, 0
        if body + 2 > end:
            return at, n, MORE, 0
        first = body + 2
        last = first + (np.int64(buffer[body]) << 8 | np.int64(buffer[body + 1]))
        payload = last + 2 * np.int64(qos)
        if last == first and version == MQTT_5:
            return at, n, ALIAS, 0  # the topic of an alias is empty
        if last == first or payload > at + length:
            return at, n, MALFORMED, 0
        properties = payload
        if version == MQTT_5:
            size, shift = 0, 0
            while True:
                if payload >= at + length:
                    return at, n, MALFORMED, 0
                if payload >= end:
                    return at, n, MORE, 0
                digit = np.int64(buffer[payload])
                payload += 1
                size |= (digit & 127) << shift
                shift += 7
                if digit < 128:
                    break
                if shift == 28:
                    return at, n, MALFORMED, 0
            properties = payload
            payload += size
            if size > MAX_PROPERTIES or payload > at + length:
                return at, n, MALFORMED, 0
            if payload > end:
                return at, n, MORE, 0
            why = _check_properties(buffer, properties, payload)
            if why != MORE:
                return at, n, why, 0
        if at + length - payload > max_payload:
            if payload > end:
                return at, n, MORE, 0
            return at, n, OVERSIZE, length
        if at + length > end:
            return at, n, MORE, length
        identifier = np.int64(buffer[last]) << 8 | np.int64(buffer[last + 1]) if qos else np.int64(0)
        if n == len(topic):
            return at, n, MORE, 0
        topic_bounds[n, 0] = first
        topic_bounds[n, 1] = last
        topic[n] = _find(buffer, first, last, table, arena, bounds)
        start[n] = payload
        stop[n] = at + length
        packet_id[n] = identifier
        again[n] = (buffer[at] & 8) != 0
        n += 1
        at += length


@njit(cache=True, nogil=True)
def note_deliveries(ids, again, newest, serial, keep):
    """Note deliveries under their packet ids, in order.

    ids    : uint16 (n,)      0: QoS 0, nothing to acknowledge
    again  : bool (n,)        DUP flags
    newest : int64 (65536,)   serial of what is owed under an id, 0: nothing; written
    serial : of the first of them
    keep   : bool (n,)        written; false where the same message is owed already

    Gives how many ids are owed that were not.
    """
    more = 0
    for i in range(len(ids)):
        owed = ids[i] != 0 and newest[ids[i]] != 0
        keep[i] = not (again[i] and owed)
        if keep[i] and ids[i] != 0:
            newest[ids[i]] = serial + i
            more += not owed
    return more


def warm() -> None:
    """Compile the kernels."""
    note_deliveries(
        np.ones(1, np.uint16), np.ones(1, np.bool_), np.zeros(1 << 16, np.int64), 1, np.ones(1, np.bool_)
    )
    frame = np.array([0x30, 4, 0, 1, 97, 98], np.uint8)
    table, arena, bounds = np.full(4, -1, np.int32), np.array([97], np.uint8), np.array([[0, 1]], np.int64)
    insert_topic(0, table, arena, bounds)
    two, one, slot = np.zeros((1, 2), np.int64), np.zeros(1, np.int64), np.zeros(1, np.int32)
    packet_id, again = np.zeros(1, np.uint16), np.zeros(1, np.bool_)
    scan(frame, 0, 6, 4, 100, table, arena, bounds, 0, two, slot, one, one.copy(), packet_id, again)
