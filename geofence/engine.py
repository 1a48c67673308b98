"""The engine: pings, the hour and check-ins in; transitions and violations out. Its state moves on.

Nothing here decides: it sorts, asks the zones for distances, lays out columns, and lets the kernels judge.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from geofence._kernels import fixes
from geofence._kernels.deadlines import advance_due, begin_check_ins
from geofence._kernels.evidence import confidence_ppm
from geofence._kernels.judge import judge
from geofence._kernels.world import Batch, Said, World
from geofence.eras import Eras
from geofence.ledger import Ledger
from geofence.pings import Devices, Pings
from geofence.plan import Calendars, Plan
from geofence.questions import Questions
from geofence.records import CLOSED, CROSS, OPENED, TRANSITION, VIOLATION, Decided
from geofence.state import CROSSING, FAR_FUTURE, State, blank_device
from geofence.units import NO_TIME

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from geofence.ruleset import Ruleset

__all__ = ["Engine"]

_FIRST_ROOM: Final = 4096  # rows said in one go before the kernels stop and ask for more room
_NO_ROWS: Final = np.zeros(0, np.int64)


class Engine:
    """Judges the pings of many devices against one rule set.

    What ``adopt``, ``rejudge``, ``check_in`` and ``snapshot`` do lives in modules of those names. They use
    the engine's tables (``state``, ``plan``, ``said``, ``ledger``, ``deaf``); other packages do not.

    >>> engine = Engine(Ruleset.load("rules"))          # doctest: +SKIP
    >>> decided = engine.check(pings)                   # doctest: +SKIP
    >>> decided.violations["opened_us"]                 # doctest: +SKIP
    """

    def __init__(
        self,
        ruleset: Ruleset,
        devices: Devices | None = None,
        *,
        version: int = 0,
        beside: Engine | None = None,
    ) -> None:
        """``version``: by which others know these rules; every decision carries it.

        ``beside``: an engine of this very ``ruleset`` whose plan and index of zones it shares; else both
        are built, which takes a part of a second for thousands of zones.
        """
        if beside is not None and beside.ruleset is not ruleset:
            raise ValueError("the engine to share with judges by another rule set; give the one it has")
        self.ruleset: Ruleset = ruleset
        self.version: int = version if beside is None else beside.version
        self.devices = Devices() if devices is None else devices
        self.watermark_us = NO_TIME
        self.effective_us = NO_TIME  # when these rules took effect, if others held before
        self.eras = Eras()  # those others
        self.state = State.empty()
        self.deaf = np.zeros((0, 2), np.int64)
        self.ledger = Ledger()
        self.plan: Plan = Plan(ruleset, {}, Calendars()) if beside is None else beside.plan
        self.questions: Questions = (
            Questions(ruleset.zones, self.plan) if beside is None else beside.questions
        )
        self.said = _room(_FIRST_ROOM)

    def use(self, plan: Plan) -> None:
        """Judge by this plan of ``ruleset``. Two plans of one rule set ask the same of the zones."""
        if plan.ruleset is not self.plan.ruleset:
            self.questions = Questions(plan.ruleset.zones, plan)
        self.plan = plan

    # --- what it is asked -----------------------------------------------------------------------

    def check(self, pings: Pings) -> Decided:
        """Judge a batch. Its order does not matter, nor where a stream is cut into batches.

        Pings older than what their device's state has judged are reported in ``late``, not judged.
        """
        if pings.devices is not self.devices:
            raise ValueError("these pings count devices in another table; decode them with engine.devices")
        late = np.zeros(len(pings), np.bool_)
        if len(pings):
            self.enlist(pings.device)
            order = self._order(pings)
            sorted_late = np.empty(len(order), np.bool_)
            pings = pings.take(order)
            n_late = fixes.find_late(
                pings.device, pings.fix_time_us, pings.boot, pings.seq, self.state.devices, sorted_late
            )
            late[order] = sorted_late
            if n_late:
                pings = pings.take(~sorted_late)
        if not len(pings):
            return self.decided(late)
        newest_us = int(pings.fix_time_us.max())
        self.ledger.newest_us = max(self.ledger.newest_us, newest_us)
        self.plan.calendars.cover(int(pings.fix_time_us.min()), newest_us)
        batch = self.questions.lay_out(pings, self.state)
        start = 0
        while (start := judge(self.world(), self.said, batch, start)) < len(pings):
            self._make_room()
        return self.decided(late, batch)

    def tick(self, now_us: int, listening_since_us: int = NO_TIME) -> Decided:
        """Let time act up to now_us: schedule edges, missed check-ins, silence.

        ``now_us`` is the watermark: everything up to it has been received. ``listening_since_us`` says from
        when on that is so without a gap; silence between the last tick and then accuses nobody.
        """
        heard_before = NO_TIME not in {listening_since_us, self.watermark_us}
        if heard_before and listening_since_us > self.watermark_us:
            gap = np.array([[self.watermark_us, listening_since_us]], np.int64)
            self.deaf = np.concatenate((self.deaf, gap))
        self.watermark_us = max(now_us, self.watermark_us)
        self.ledger.newest_us = max(self.ledger.newest_us, now_us)
        self._enroll(now_us)
        due = np.flatnonzero(self.state.due_us[: int(self.state.used[0])] <= now_us).astype(np.int32)
        self.let_time_act(due, now_us)
        return self.decided(np.zeros(0, np.bool_))

    def check_in(self, check_ins: Iterable[Any]) -> Decided:
        """Take results of telephone, app or button check-ins (``telemetry.columns.CheckIn`` or its like)."""
        from geofence.check_ins import take_check_ins  # noqa: PLC0415 - it needs this module

        take_check_ins(self, check_ins)
        return self.decided(np.zeros(0, np.bool_))

    def rejudge(self, history: Pings) -> Decided:
        """Judge devices again from their history, late pings included, and amend what was said by adding.

        ``history`` holds for each of its devices every stored ping from some time before the late ones on.
        Each stretch is judged by the rules that held then; ``Decided.parts`` has earlier ones apart.
        """
        from geofence.rejudge import rejudge  # noqa: PLC0415 - it needs this module

        return rejudge(self, history)

    def adopt(self, ruleset: Ruleset, effective_us: int, version: int = 0) -> Decided:
        """Change to other rules at a time. What was decided stays; the rows tell of the rules before.

        ``version``: by which others know the new rules.
        """
        from geofence.adopt import adopt  # noqa: PLC0415 - it needs this module

        return adopt(self, ruleset, effective_us, version)

    @property
    def beliefs(self) -> int:
        """How many beliefs it holds: a device and a zone that is near it, or its own."""
        known = self.state.devices[: int(self.state.used[0])]
        return int(known["chained"].sum() + (known["pair_stop"] - known["pair"]).sum())

    def snapshot(self) -> bytes:
        """The whole state as bytes."""
        from geofence.snapshot import snapshot  # noqa: PLC0415 - it needs this module

        return snapshot(self)

    @classmethod
    def restore(cls, ruleset: Ruleset, blob: bytes) -> Self:
        """An engine in the state that ``snapshot`` gave; SnapshotError when it is of other rules."""
        from geofence.snapshot import restore  # noqa: PLC0415 - it needs this module

        engine = cls(ruleset)
        restore(engine, blob)
        return engine

    def open_violations(self) -> NDArray[Any]:
        """VIOLATION (k,): the current row of each open one, by device and opening."""
        rows = self.state.opens[: int(self.state.used[3])]
        rows = rows[rows["device"] >= 0].copy()
        rows["supersedes"] = 0
        self._name(rows)
        return rows[np.lexsort((rows["violation_id"], rows["opened_us"], rows["device"]))]

    def belief(self, device_id: str) -> list[dict[str, Any]]:
        """What the engine holds to be true of a device and each zone in question, for explanation pages.

        Each: rule_id, zone_id, log_odds of being on the wrong side, confidence of it, state, distance_mm.
        """
        from geofence.explain import beliefs  # noqa: PLC0415 - it needs this module

        return beliefs(self, device_id)

    def battery_left_s(self, device_id: str) -> float | None:
        """Seconds until the device's charge is used up, by its slope since it last rose; None: not known."""
        from geofence.explain import battery_left_s  # noqa: PLC0415 - it needs this module

        return battery_left_s(self, device_id)

    @property
    def state_nbytes(self) -> int:
        """Bytes of state in use."""
        return self.state.nbytes

    # --- laying out -----------------------------------------------------------------------------

    def enlist(self, device: NDArray[np.int32]) -> None:
        """Rows for the devices that speak for the first time."""
        state = self.state
        highest = int(device.max()) + 1
        if highest > state.used[0]:
            state.reserve(devices=highest - int(state.used[0]))
            fresh = slice(int(state.used[0]), highest)
            state.devices[fresh] = blank_device()
            # who is not known yet may have spoken before these rules: that is judged by those before
            state.devices["acted_us"][fresh] = self.effective_us
            state.due_us[fresh] = FAR_FUTURE
            state.used[0] = highest
        new = np.unique(device[state.devices["known"][device] == 0])
        if len(new):
            slots = new.tolist()
            self.plan.enlist(state, slots, [self.devices.ids[slot] for slot in slots])

    def _enroll(self, now_us: int) -> None:
        """Devices of the roster that check-ins are expected of need not speak first."""
        roster = self.ruleset.roster
        if roster is None or "check_in" not in {rule.require for rule in self.ruleset.rules}:
            return
        for entry in roster.values():
            if not entry.covers(now_us):
                continue
            slot = self.devices.slot(entry.device_id)
            if slot < self.state.used[0] and self.state.devices["known"][slot]:
                continue
            self.enlist(np.array([slot], np.int32))
            self.plan.calendars.cover(now_us, now_us)
            begin_check_ins(self.world(), slot, now_us)

    def _order(self, pings: Pings) -> NDArray[np.int64]:
        """The order by device, fix time, boot and seq; equal ones by all that they say."""
        n, slots = len(pings), int(self.state.used[0])
        if slots > 16 * n + 4096:  # a table of counts would cost more than sorting
            return np.lexsort((pings.seq, pings.boot, pings.fix_time_us, pings.device))
        order, scratch = np.empty(n, np.int64), np.empty(n, np.int64)
        ties = fixes.sort_order(
            pings.device,
            pings.fix_time_us,
            pings.boot,
            pings.seq,
            np.zeros(slots + 1, np.int64),
            order,
            scratch,
        )
        if ties:
            keys = (pings.battery_pct, pings.status, pings.accuracy_mm, pings.lon_e7, pings.lat_e7)
            return np.lexsort((*keys, pings.seq, pings.boot, pings.fix_time_us, pings.device))
        return order

    def world(self) -> World:
        """The tables that the kernels work on, as they are now: they are replaced when they grow."""
        state, plan = self.state, self.plan
        return World(
            state.devices,
            state.due_us,
            state.duties,
            state.pairs,
            state.opens,
            state.used,
            state.free,
            plan.rules,
            plan.calendars.start,
            plan.calendars.edges,
            plan.zone_start,
            plan.zone_rules,
            self.deaf,
            np.array([self.watermark_us, plan.calendars.horizon_us], np.int64),
        )

    def make_room_for(self, rows: int) -> None:
        """Room for so many more rows of violations, besides what is there."""
        while int(self.said.count[0]) + rows > len(self.said.out):
            self._make_room()
        self.state.reserve(opens=rows)

    def _make_room(self) -> None:
        """The kernels stopped for want of room: twice as much of everything that they write."""
        said, state = self.said, self.state
        bigger = _room(2 * len(said.out))
        for old, new in zip(said[:4], bigger[:4], strict=True):
            new[: len(old)] = old
        bigger.count[:] = said.count
        self.said = bigger
        state.reserve(pairs=len(said.out), opens=len(said.out))

    def let_time_act(self, which: NDArray[np.int32], limit_us: int) -> None:
        """Deadlines of these devices up to limit_us."""
        if not len(which):
            return
        self.plan.calendars.cover(int(self.state.due_us[which].min()), limit_us)
        start = 0
        while (start := advance_due(self.world(), self.said, which, start, limit_us)) < len(which):
            self._make_room()

    # --- saying ---------------------------------------------------------------------------------

    def decided(self, late: NDArray[np.bool_], batch: Batch | None = None) -> Decided:
        """Take what the kernels said, give violations their ids, and start afresh."""
        said = self.said
        rows, moves, crosses = (int(k) for k in said.count)
        violations = said.out[:rows].copy()
        when = said.when[:rows].copy()
        transitions = said.moves[:moves].copy()
        self._name(violations)
        if crosses and batch is not None:
            violations, when, transitions = self._add_crossings(
                violations, when, transitions, said.crosses[:crosses], batch
            )
        said.count[:] = 0
        self._count_on(violations)
        self.ledger.note(violations, when, transitions)
        return Decided(self.devices, self.ruleset, transitions, violations, late, self.version)

    def _name(self, rows: NDArray[Any], kind: str = "") -> None:
        """Give rows of violations their ids."""
        if len(rows):
            columns = (rows[name].tolist() for name in ("device", "rule", "zone", "opened_us"))
            rows["violation_id"] = [
                self.violation_id(*values, kind=kind) for values in zip(*columns, strict=True)
            ]

    def _count_on(self, rows: NDArray[Any]) -> None:
        """What late pings took back may be said again by the next ones: its revisions go on."""
        withdrawn = self.ledger.withdrawn
        if not withdrawn or not len(rows):
            return
        opens = self.state.opens[: int(self.state.used[3])]
        again: dict[int, int] = {}  # violation -> revisions that it had
        for k, violation_id in enumerate(rows["violation_id"].tolist()):
            if violation_id not in withdrawn:
                continue
            if violation_id not in again:
                again[violation_id] = withdrawn[violation_id] + 1
                same = [opens[name] == rows[name][k] for name in ("device", "rule", "zone", "opened_us")]
                opens["revision"][np.logical_and.reduce(same)] += again[violation_id]
            rows["revision"][k] += again[violation_id]

    def violation_id(self, device: int, rule: int, zone: int, opened_us: int, *, kind: str = "") -> int:
        """A positive number that follows from the ids of device, rule and zone, and the opening, alone.

        A crossing has a kind of its own: the stretch of another violation may begin at its time.
        """
        zone_id = self.ruleset.zones.ids[zone] if zone >= 0 else ""
        text = f"{self.devices.ids[device]}\0{self.ruleset.rules[rule].id}\0{zone_id}\0{opened_us}{kind}"
        number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
        return number or 1

    def _add_crossings(
        self,
        violations: NDArray[Any],
        when: NDArray[np.int64],
        transitions: NDArray[Any],
        crosses: NDArray[Any],
        batch: Batch,
    ) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[Any]]:
        """Ask whether the tracks that may have passed through a private zone did, and say those that did."""
        open_question = np.flatnonzero(crosses["sure"] == 0)
        keep = crosses["sure"] != 0
        if len(open_question):
            asked = crosses[open_question]
            keep[open_question] = self.questions.touched(batch, asked["ping"], asked["zone"])
        crosses = crosses[keep]
        time_us = batch.time_us[crosses["ping"]]
        recorded = crosses["records"] != 0
        more = np.zeros(int(recorded.sum()), TRANSITION)
        for name, value in (
            ("device", crosses["device"]),
            ("zone", crosses["zone"]),
            ("time_us", time_us),
            ("confirmed_us", time_us),
            ("distance_mm", crosses["distance_mm"]),
        ):
            more[name] = value[recorded]
        more["kind"] = CROSS
        asked = self.plan.rules["open_log_odds"][crosses["rule"]]
        lines, of = np.unique(asked, return_inverse=True)
        enough = np.array([confidence_ppm(log_odds) for log_odds in lines.tolist()], np.int32)[of]
        more["confidence_ppm"] = enough[recorded]
        transitions = np.concatenate((transitions, more))
        transitions = transitions[np.lexsort((transitions["confirmed_us"], transitions["device"]))]
        broken = crosses["breaks"] != 0
        if broken.any():
            rows = np.zeros(int(broken.sum()), VIOLATION)
            rows["severity"] = self.plan.rules["severity"][crosses["rule"][broken]]
            for name in ("device", "rule", "zone"):
                rows[name] = crosses[name][broken]
            for name in ("opened_us", "confirmed_us"):
                rows[name] = time_us[broken]
            rows["closed_us"] = NO_TIME
            rows["confidence_ppm"] = enough[broken]
            rows["depth_error_mm"] = -1
            rows["fixes"] = 2
            rows["change"] = OPENED
            self._name(rows, "\0cross")
            ends = rows.copy()
            ends["change"], ends["revision"], ends["closed_us"] = CLOSED, 1, rows["opened_us"]
            violations = np.concatenate((violations, rows, ends))
            when = np.concatenate((when, rows["opened_us"], rows["opened_us"]))
            order = np.lexsort((violations["revision"], when, violations["device"]))
            violations, when = violations[order], when[order]
        return violations, when, transitions


def _room(rows: int) -> Said:
    return Said(
        np.zeros(rows, VIOLATION),
        np.zeros(rows, np.int64),
        np.zeros(rows, TRANSITION),
        np.zeros(rows, CROSSING),
        np.zeros(3, np.int64),
    )
