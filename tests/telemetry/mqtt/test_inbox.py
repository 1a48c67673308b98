"""What is owed to the broker: a model of a broker against the bookkeeping, and the queue of chunks."""

from __future__ import annotations

import threading

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.mqtt.inbox import Chunk, Inbox, Owed, Receipt
from telemetry.mqtt.topics import Topics


class ModelBroker:
    """A broker with few packet ids: it uses one again as soon as it was acknowledged."""

    def __init__(self) -> None:
        self.ids = list(range(1, 5))
        self.waiting: dict[int, int] = {}  # packet id -> message
        self.next_message = 0

    def deliver(self) -> tuple[int, int, bool] | None:
        if not self.ids:
            return None
        packet_id, message = self.ids.pop(0), self.next_message
        self.next_message += 1
        self.waiting[packet_id] = message
        return packet_id, message, False

    def deliver_again(self, choice: int) -> tuple[int, int, bool] | None:
        if not self.waiting:
            return None
        packet_id = sorted(self.waiting)[choice % len(self.waiting)]
        return packet_id, self.waiting[packet_id], True

    def acknowledged(self, packet_id: int) -> int | None:
        message = self.waiting.pop(packet_id, None)
        if message is not None:
            self.ids.append(packet_id)
        return message


steps = st.lists(
    st.tuples(st.sampled_from(["deliver", "deliver", "again", "commit", "late commit"]), st.integers(0, 9)),
    max_size=80,
)


@given(steps=steps)
@settings(max_examples=300, deadline=None)
def test_no_message_is_acknowledged_before_it_was_committed_and_each_is_in_the_end(steps):
    broker, owed = ModelBroker(), Owed()
    receipts: list[tuple[Receipt, int]] = []
    committed: set[int] = set()
    acknowledged: set[int] = set()

    def commit(receipt: Receipt, message: int) -> None:
        committed.add(message)
        for packet_id in owed.settle(receipt).tolist():
            done = broker.acknowledged(packet_id)
            assert done is not None
            assert done in committed
            acknowledged.add(done)

    for what, choice in steps:
        if what in {"deliver", "again"}:
            sent = broker.deliver() if what == "deliver" else broker.deliver_again(choice)
            if sent is None:
                continue
            packet_id, message, again = sent
            ids = np.array([packet_id], np.uint16)
            keep, serial = owed.receive(ids, np.array([again]))
            if keep.all():
                receipts.append((Receipt(1, ids, serial), message))
        elif receipts:  # commits come in any order here, and some receipts are used twice
            receipt, message = receipts[choice % len(receipts)]
            commit(receipt, message)
            if what == "commit":
                receipts.remove((receipt, message))
        assert owed.count == len(broker.waiting)
    for receipt, message in receipts:
        commit(receipt, message)
    assert acknowledged == set(range(broker.next_message))
    assert owed.count == 0


def test_a_new_message_under_an_owed_id_makes_the_old_receipt_void():
    owed, ids = Owed(), np.array([7], np.uint16)
    _, first = owed.receive(ids, np.array([False]))
    keep, second = owed.receive(ids, np.array([False]))
    assert keep.all()
    assert owed.settle(Receipt(1, ids, first)).tolist() == []
    assert owed.settle(Receipt(1, ids, second)).tolist() == [7]


def test_copies_within_one_chunk_and_qos_0():
    owed = Owed()
    ids = np.array([0, 5, 5, 0, 6], np.uint16)
    keep, serial = owed.receive(ids, np.array([False, False, True, True, True]))
    assert keep.tolist() == [True, True, False, True, True]
    assert owed.count == 2
    assert owed.settle(Receipt(1, ids[keep], serial[keep])).tolist() == [5, 6]


@given(
    sizes=st.lists(st.integers(1, 6), max_size=12), takes=st.lists(st.integers(1, 9), min_size=1, max_size=30)
)
def test_chunks_come_out_as_they_went_in_however_they_are_cut(sizes, takes):
    acknowledged: list[int] = []
    inbox = Inbox(Topics(), lambda receipts: acknowledged.extend(i for r in receipts for i in r.ids.tolist()))
    payloads, number = [], 0
    for size in sizes:
        lengths = np.arange(number, number + size) % 5
        stop = np.cumsum(lengths + 1) - 1  # a byte of gap after each
        data = b"".join(b"%c" % (65 + (number + k) % 26) * int(n) + b"." for k, n in enumerate(lengths))
        ids = np.arange(number + 1, number + size + 1).astype(np.uint16)
        inbox.put(
            Chunk(
                buffer=np.frombuffer(data, np.uint8),
                start=stop - lengths,
                stop=stop,
                topic=np.full(size, number, np.int32),
                received_time_us=np.arange(number, number + size),
                receipt=Receipt(1, ids, ids.astype(np.int64)),
            )
        )
        payloads += [b"%c" % (65 + (number + k) % 26) * int(n) for k, n in enumerate(lengths)]
        number += size
    found, times = [], []
    for most in [*takes, *[9] * number]:
        messages = inbox.take(0.0, 0.0, most)
        if messages is None:
            break
        assert 0 < len(messages) <= most
        found += [messages.payload(i) for i in range(len(messages))]
        times += messages.received_time_us.tolist()
        messages.acknowledge()
        messages.acknowledge()
    assert found == payloads
    assert times == acknowledged_times(acknowledged) == list(range(number))
    assert (len(inbox), inbox._bytes, inbox.is_full) == (0, 0, False)


def acknowledged_times(ids: list[int]) -> list[int]:
    """The packet ids were given from 1, one for each microsecond."""
    return [packet_id - 1 for packet_id in ids]


def one_message(number: int) -> Chunk:
    receipt = Receipt(1, np.array([number], np.uint16), np.array([number], np.int64))
    column = np.zeros(1, np.int64)
    return Chunk(
        np.frombuffer(b"x", np.uint8), column, column + 1, np.zeros(1, np.int32), column + number, receipt
    )


def test_a_taker_waits_until_there_are_enough_and_no_longer():
    inbox = Inbox(Topics(), lambda _: None)
    taken = []
    taker = threading.Thread(target=lambda: taken.append(inbox.take(3600.0, 3600.0, 10, 3)))
    taker.start()
    for number in (1, 2, 3):
        assert taker.is_alive()
        inbox.put(one_message(number))
    taker.join(60)
    assert [message.received_time_us.tolist() for message in taken] == [[1, 2, 3]]


def test_a_full_inbox_or_a_closed_one_keeps_no_taker_waiting(monkeypatch):
    inbox = Inbox(Topics(), lambda _: None)
    inbox.put(one_message(1))
    monkeypatch.setattr("telemetry.mqtt.inbox.MAX_BYTES", 1)
    assert len(inbox.take(3600.0, 3600.0, 10, 3) or []) == 1
    monkeypatch.undo()
    inbox.put(one_message(2))
    inbox.close()
    assert len(inbox.take(3600.0, 3600.0, 10, 3) or []) == 1
    assert inbox.take(3600.0, 3600.0, 10) is None


def test_that_it_was_full_is_told_once_even_when_it_filled_while_the_taker_waited(monkeypatch):
    inbox = Inbox(Topics(), lambda _: None)
    assert not inbox.was_full()
    monkeypatch.setattr("telemetry.mqtt.inbox.MAX_BYTES", 1)
    inbox.put(one_message(1))
    assert len(inbox.take(3600.0, 3600.0, 10) or []) == 1
    assert not inbox.is_full
    assert [inbox.was_full(), inbox.was_full()] == [True, False]
