"""An oracle of the engine: plain Python, every zone of every rule measured for every fix, nothing sparse.

It follows docs/decisions.md sentence by sentence and shares only constants, tables, rules, schedules and
zones with the engine. A device's pings are all there at once, in order; ``run`` gives its final view.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np

from geofence import NO_FIX, NO_TIME
from geofence._kernels.tables import LOG_ODDS, PPM, WEIGHT

CLIP, FIX_CLIP, NETWORK_CLIP = 6144, 4096, 2048
FLOORS = (5_000, 30_000, 150_000, 3_000)
UNKNOWNS = (15_000, 60_000, 1_000_000, 10_000)
UNKNOWN_AT_REST = 20_000
NEVER = 1 << 62
WIFI, CELL = 1, 2
UNKNOWN, RIGHT, WRONG = "unknown", "right", "wrong"


@dataclass
class Ping:
    time_us: int
    lon_e7: int = NO_FIX
    lat_e7: int = NO_FIX
    accuracy_mm: int = -1
    status: int = 0
    battery: int = 255
    speed: int = 65_535
    received_us: int | None = None

    @property
    def source(self):
        return (self.status >> 8) & 3

    @property
    def place(self):
        return self.lon_e7, self.lat_e7

    @property
    def has_fix(self):
        return self.lon_e7 != NO_FIX and self.lat_e7 != NO_FIX

    @property
    def moves(self):
        return 100 <= self.speed < 65_535

    @property
    def error_mm(self):
        if self.accuracy_mm >= 0:
            return max(self.accuracy_mm, FLOORS[self.source])
        return UNKNOWN_AT_REST if self.source == 0 and self.speed < 100 else UNKNOWNS[self.source]


def confidence(belief):
    at = min(max(belief, -CLIP), CLIP) + CLIP
    step, rest = divmod(at, 32)
    if step == len(PPM) - 1:
        return int(PPM[step])
    return int(PPM[step]) + (int(PPM[step + 1]) - int(PPM[step])) * rest // 32


def weight(elapsed_us, repeated):
    second, rest = divmod(elapsed_us, 1_000_000)
    if second >= len(WEIGHT) - 1:
        w = 1024
    else:
        w = int(WEIGHT[second]) + (int(WEIGHT[second + 1]) - int(WEIGHT[second])) * rest // 1_000_000
    return w // 10 if repeated else w


def reach(error_mm):
    return 100_000 if error_mm <= 20_000 else 500_000 if error_mm <= 100_000 else 2_000_000


def point(lon_e7, lat_e7):
    lon, lat = math.radians(lon_e7 / 1e7), math.radians(lat_e7 / 1e7)
    e2 = (1 / 298.257223563) * (2 - 1 / 298.257223563)
    n = 6_378_137.0 / math.sqrt(1 - e2 * math.sin(lat) ** 2)
    return n * math.cos(lat) * math.cos(lon), n * math.cos(lat) * math.sin(lon), n * (1 - e2) * math.sin(lat)


def apart_mm(a, b):
    return 1000 * math.dist(point(a.lon_e7, a.lat_e7), point(b.lon_e7, b.lat_e7))


def slack_mm(a, b):
    return 2.0 * (a.error_mm + b.error_mm)


def may_be_apart_mm(a, b):
    """By what moves fastest on a road."""
    return slack_mm(a, b) + 70_000.0 * max(1.0, (b.time_us - a.time_us) / 1e6)


def may_be_apart_by_speed_mm(a, b):
    """By the speeds that both fixes carry, where those say something."""
    elapsed_us, speed = b.time_us - a.time_us, max(a.speed, b.speed)
    if speed == 65_535 or elapsed_us > 120_000_000 or speed < 100:
        return may_be_apart_mm(a, b)
    steady = 20_000.0 + slack_mm(a, b) + 15.0 * max(speed, 200) * max(1.0, elapsed_us / 1e6)
    return min(steady, may_be_apart_mm(a, b))


def one_fast_way(a, b, c):
    """Whether three fixes lie on one straight way, gone at a like speed of at most 350 m/s."""
    first_us, second_us = b.time_us - a.time_us, c.time_us - b.time_us
    if first_us <= 0 or second_us <= 0:
        return False
    first, second = apart_mm(a, b), apart_mm(b, c)
    fast, slow = sorted((first / first_us, second / second_us))[::-1]
    return apart_mm(a, c) >= 0.9 * (first + second) and fast <= 0.35 and fast <= 2 * slow


@dataclass
class Fix:
    """What pass one says of a ping: believed or not, its weight, the believed fix before."""

    used: bool = False
    jumped: bool = False
    doubtful: bool = False
    came: bool = False  # the wearer moved between the believed fix before and this one
    weight: int = 0
    before: Ping | None = None


class Motion:
    """Whether the wearer has stood still since the last good fix, by what the device says of it."""

    def __init__(self):
        self.reports, self.moved, self.heard_us, self.good = False, False, None, None

    def hear(self, ping):
        silent = self.heard_us is None or ping.time_us - self.heard_us > 600_000_000
        self.heard_us = ping.time_us
        if ping.status & 8:
            self.reports = True
        self.moved = self.moved or bool(ping.status & 8) or ping.moves or silent

    def stood_still(self, ping):
        if self.good is None:
            return False
        return (self.reports and not self.moved) or bool(self.good.status & ping.status & 16)

    def believe(self, ping):
        if ping.source not in (WIFI, CELL):
            self.good, self.moved = ping, False


def believe(pings):
    said, last, waiting = [], None, None
    last_of, frozen, motion = {}, 0, Motion()
    for ping in pings:
        fix = Fix(before=last)
        said.append(fix)
        motion.hear(ping)
        if not ping.has_fix:
            continue
        network = ping.source in (WIFI, CELL)
        same = last is not None and ping.place == last.place
        frozen = frozen + 1 if ping.source == 0 and ping.status & 8 and same else 0
        too_good = ping.source == 0 and 0 <= ping.accuracy_mm < 1_000 and ping.status & 16
        fix.doubtful = bool(frozen >= 5 or too_good)
        still = False
        if last is not None:
            plausible = apart_mm(last, ping) <= may_be_apart_by_speed_mm(last, ping)
            still = motion.stood_still(ping)
            if still:
                near = 20_000.0 + slack_mm(motion.good, ping)
                plausible = plausible and apart_mm(motion.good, ping) <= near
            if waiting is not None and not (still and network):
                second = apart_mm(waiting, ping)
                agrees = second <= may_be_apart_mm(waiting, ping) and second < apart_mm(last, ping)
                plausible = plausible or agrees or one_fast_way(last, waiting, ping)
            waiting = None
            if not plausible:
                waiting = ping
                fix.jumped = apart_mm(last, ping) > may_be_apart_mm(last, ping)
                continue
        previous = last_of.get(ping.source)
        follows = last is not None and ping.source == last.source == 0
        follows = follows and ping.time_us - last.time_us <= 120_000_000
        fix.came = follows and (ping.moves or last.moves)
        if previous is None:
            fix.weight = 1024
        else:
            elapsed_us = ping.time_us - previous.time_us
            if ping.source == 0 and (fix.came or ping.moves):
                elapsed_us *= 4
            elif ping.source == 0 and still:
                elapsed_us //= 2
            fix.weight = weight(elapsed_us, network and previous.place == ping.place)
        last_of[ping.source] = ping
        fix.used = True
        last = ping
        motion.believe(ping)
    return said


def window(windows, t):
    """The window that holds t, or the next one."""
    k = bisect_right(windows, t)
    if k & 1:
        return windows[k - 1], windows[k]
    return (windows[k], windows[k + 1]) if k < len(windows) else (NEVER, NEVER)


@dataclass
class Zone:
    """One zone under one rule."""

    zone: int
    records: bool
    belief: int = 0
    said: dict = field(default_factory=lambda: {WIFI: 0, CELL: 0})
    mark: int = 0
    peak: int = -CLIP
    state: str = UNKNOWN
    since: int = NO_TIME
    first: int | None = None
    fixes: int = 0
    depth: int = 0
    depth_error: int = -1
    last_mm: int = -1
    told: int = NO_TIME
    open: dict | None = None


def tell(zone, wrong, error, w, source, came=False):
    if came and wrong > 0:
        zone.belief = max(zone.belief, -FIX_CLIP)
    elif came and wrong < 0:
        zone.belief = min(zone.belief, FIX_CLIP)
    sign = 1 if wrong >= 0 else -1
    network = source in (WIFI, CELL)
    agrees = w >= 512 and sign * (zone.said[WIFI] + zone.said[CELL]) >= 1024
    if abs(wrong) > 5 * error and (not network or agrees):
        zone.belief = sign * CLIP
        if network:
            zone.said[source] = sign * NETWORK_CLIP
        return
    step = abs(wrong) * 256 // error
    says = sign * (int(LOG_ODDS[step]) if step < len(LOG_ODDS) else FIX_CLIP)
    if network:
        says = max(-NETWORK_CLIP, min(says, NETWORK_CLIP))
    change = sign_of(says) * (w * abs(says) // 1024)
    if network:
        before = zone.said[source]
        after = before + change
        after = max(before, min(after, says)) if says >= 0 else min(before, max(after, says))
        zone.said[source] = after
        other = zone.said[WIFI + CELL - source]
        change = network_share(after + other) - network_share(before + other)
    zone.belief = max(-CLIP, min(zone.belief + change, CLIP))


def network_share(both):
    return max(-NETWORK_CLIP, min(both, NETWORK_CLIP))


def sign_of(x):
    return 1 if x >= 0 else -1


class NaiveDevice:
    """One device, one rule set. ``run(pings, until_us, watermark_us)``: (violations, transitions)."""

    def __init__(self, ruleset, device_id, first_year=2020, last_year=2035):
        self.ruleset = ruleset
        self.device_id = device_id
        self.violations, self.transitions = [], []
        subjects = ruleset.subjects_of(device_id)
        self.rules = []
        recorded = set()
        for index, rule in enumerate(ruleset.rules):
            if subjects.isdisjoint(rule.subjects):
                continue
            zones = []
            for zone in rule.zones:
                zones.append(Zone(zone, not rule.warns and zone not in recorded))
            if rule.about_zones and not rule.warns:
                recorded.update(rule.zones)
            leaves = tuple(
                (leave.from_us, leave.until_us)
                for leave in ruleset.leaves
                if not subjects.isdisjoint(leave.subjects)
                and (not leave.rules or rule.id.removesuffix(".warning") in leave.rules)
            )
            windows = rule.calendar(leaves).windows(first_year, last_year).tolist()
            self.rules.append(NaiveRule(self, index, rule, zones, windows))

    def run(self, pings, until_us=None, watermark_us=NO_TIME):
        self.watermark_us = watermark_us
        fixes = believe(pings)
        self.position_us = None
        self.last_ping_us = None
        self.last_error = -1
        for ping, fix in zip(pings, fixes, strict=True):
            for rule in self.rules:
                rule.advance(ping.time_us - 1)
            if self.position_us is None:
                self.position_us = ping.time_us
            for rule in self.rules:
                rule.ping(ping, fix)
            if ping.has_fix:
                self.position_us = ping.time_us
            if fix.used:
                self.last_error = ping.error_mm
            self.last_ping_us = ping.time_us
        if until_us is not None and pings:
            for rule in self.rules:
                rule.advance(until_us)
        key = lambda v: (v["opened"], v["rule"], v["zone"], v["held"], v["confirmed"], v["closed"])  # noqa: E731
        return sorted(self.violations, key=key), sorted(self.transitions)


class NaiveRule:
    def __init__(self, device, index, rule, zones, windows):
        self.device, self.index, self.rule, self.zones, self.windows = device, index, rule, zones, windows
        self.sense = -1 if rule.require == "inside" else 1
        self.open_at = rule.profile.open_log_odds
        self.clear_at = -self.open_at if rule.require == "none" else rule.profile.clear_log_odds
        self.now = NO_TIME
        self.wrong, self.since, self.bad, self.score, self.lag = False, NO_TIME, 0, 0, 0
        self.open = None
        self.told = NO_TIME
        self.beacon_us = None

    # --- time alone

    def edges(self, after, until):
        k = bisect_right(self.windows, after)
        while k < len(self.windows) and self.windows[k] <= until:
            yield self.windows[k]
            k += 1

    def advance(self, until):
        if self.device.last_ping_us is None or self.rule.require == "check_in":
            return
        if self.rule.require == "contact" and not self.wrong:
            due = self.device.last_ping_us + self.rule.within_us
            until = min(until, self.device.watermark_us)
            if due <= until:
                self.wrong, self.since, self.bad = True, due, 0
                self.settle_condition(due)
                self.now = due
        elif self.rule.require == "contact":
            until = min(until, self.device.watermark_us)
        for t in self.edges(self.now, until):
            self.now = t
            if self.rule.require == "outside":
                for zone in self.zones:
                    self.settle_zone(zone, t)
            elif self.rule.require == "inside":
                self.settle_inside(t)
            elif self.rule.require != "none":
                self.settle_condition(t)

    # --- one ping

    def ping(self, ping, fix):
        t = ping.time_us
        if self.rule.about_zones:
            self.zone_ping(ping, fix)
        else:
            self.condition_ping(ping, fix)
        self.now = max(self.now, t - 1)  # an edge at this very time comes after the ping

    def wrong_mm(self, distance):
        return self.rule.offset_mm - distance if self.sense > 0 else distance + self.rule.offset_mm

    def zone_ping(self, ping, fix):
        t, rule, zones = ping.time_us, self.rule, self.device.ruleset.zones
        heard = rule.beacon and ping.status & 16
        if heard:
            beacon_weight = 1024 if self.beacon_us is None else weight(t - self.beacon_us, False)
            self.beacon_us = t
        if not (fix.used or heard):
            return
        track = (
            fix.used
            and fix.before is not None
            and 0 < t - fix.before.time_us <= rule.profile.cross_within_us
            and not {ping.source, fix.before.source} & {WIFI, CELL}
        )
        distances = None
        if fix.used and self.zones:
            k = len(self.zones)
            distances = zones.distance_mm(
                np.full(k, ping.lon_e7, np.int32),
                np.full(k, ping.lat_e7, np.int32),
                np.array([z.zone for z in self.zones], np.int32),
            ).tolist()
        undecided = sum(zone.state != WRONG for zone in self.zones)
        for at, zone in enumerate(self.zones):
            state_before = zone.state
            outside_before = zone.last_mm > 0 and (zone.state != WRONG) == (self.sense > 0)
            distance, wrong = zone.last_mm, -2
            if fix.used:
                distance = distances[at]
                wrong = self.wrong_mm(distance)
                if not (heard and wrong > 0):
                    counted = max(wrong, -reach(ping.error_mm)) if self.sense > 0 else wrong
                    if zone.state == WRONG:
                        counted += rule.profile.hysteresis_mm
                    tell(zone, counted, ping.error_mm, fix.weight, ping.source, fix.came)
            if heard:
                tell(zone, -2, 1, beacon_weight, 3)
                wrong = min(wrong, 0)
            self.follow(zone, wrong, ping.error_mm if fix.used else -1, t, distance, undecided, state_before)
            if fix.used:
                outside = distance > 0 and (zone.state != WRONG) == (self.sense > 0)
                if track and outside_before and outside and (zone.records or rule.crossing):
                    self.cross(zone, fix.before, ping)
                zone.last_mm = distance
            if rule.require == "outside":
                self.settle_zone(zone, t, ping.error_mm)
        if rule.require == "inside":
            self.settle_inside(t, ping.error_mm)

    def follow(self, zone, wrong, error, t, distance, undecided, before):
        profile = self.rule.profile
        if wrong > 0:
            if zone.fixes == 0 or wrong > zone.depth:
                zone.depth, zone.depth_error = wrong, error
            zone.fixes += 1
        changed = False
        if zone.state == WRONG:
            if zone.belief >= zone.mark:
                zone.mark, zone.first = zone.belief, None
            else:
                zone.first = t if zone.first is None else zone.first
                if zone.belief <= self.clear_at and t - zone.first >= profile.dwell_us:
                    zone.state, zone.since, zone.mark, zone.first = RIGHT, zone.first, zone.belief, None
                    zone.fixes, zone.peak = 0, -CLIP
                    changed = True
        elif zone.belief <= zone.mark:
            zone.mark = zone.belief
            if zone.first is not None and zone.fixes > 0:
                self.hold_back(zone, t, undecided - (before != WRONG) == 0)
            zone.first, zone.fixes, zone.peak = None, 0, -CLIP
            if zone.state == UNKNOWN and zone.belief <= self.clear_at:
                zone.state, zone.since = RIGHT, t
                changed = True
        else:
            zone.first = t if zone.first is None else zone.first
            zone.peak = max(zone.peak, zone.belief)
            if zone.belief >= self.open_at and t - zone.first >= profile.dwell_us:
                zone.state, zone.since, zone.mark, zone.first = WRONG, zone.first, zone.belief, None
                changed = True
        if changed and zone.records:
            inside = (zone.state == WRONG) == (self.sense > 0)
            if inside:
                self.device.transitions.append((zone.since, zone.zone, "ENTER", t, before == UNKNOWN))
            elif before != UNKNOWN:
                self.device.transitions.append((zone.since, zone.zone, "EXIT", t, False))

    def hold_back(self, zone, t, alone):
        if (
            self.rule.require == "none"
            or (self.rule.require == "inside" and not alone)
            or zone.open is not None
        ):
            return
        begin, _ = window(self.windows, zone.first)
        if begin < t:
            told = self if self.rule.require == "inside" else zone
            told.told = opened = max(zone.first, begin, told.told + 1)
            row = self.say(
                zone.zone, opened, t, zone.peak, zone.depth, zone.depth_error, zone.fixes, held=True
            )
            row["closed"] = max(t, opened)

    def cross(self, zone, before, ping):
        zones = self.device.ruleset.zones.select([zone.zone])
        segment, _ = zones.crossing(
            np.array([before.lon_e7], np.int32),
            np.array([before.lat_e7], np.int32),
            np.array([ping.lon_e7], np.int32),
            np.array([ping.lat_e7], np.int32),
        )
        if not len(segment):
            return
        t = ping.time_us
        if zone.records:
            self.device.transitions.append((t, zone.zone, "CROSS", t, False))
        if self.rule.crossing and window(self.windows, t)[0] <= t:
            row = self.say(zone.zone, t, t, self.open_at, 0, -1, 2)
            row["closed"] = t

    # --- violations

    def say(self, zone, opened, confirmed, belief, depth, depth_error, fixes, held=False):
        row = {
            "rule": self.index,
            "zone": zone,
            "opened": opened,
            "confirmed": max(confirmed, opened),
            "closed": NO_TIME,
            "ppm": 1_000_000 if belief == NEVER else confidence(belief),
            "depth": max(depth, 0),
            "depth_error": depth_error,
            "fixes": fixes,
            "held": held,
        }
        self.device.violations.append(row)
        return row

    def settle(
        self, told, row, wrong, steady, since, zone, t, belief, depth, depth_error, now, now_error, fixes
    ):
        if row is not None:
            _, end = window(self.windows, row["opened"])
            if t >= end or not wrong:
                row["closed"] = max(row["opened"], end if wrong else min(since, end))
                row = None
            else:
                row["ppm"] = max(row["ppm"], 1_000_000 if belief == NEVER else confidence(belief))
                if now > row["depth"]:
                    row["depth"], row["depth_error"] = now, now_error
                row["fixes"] = max(row["fixes"], fixes)
        if row is None and wrong and steady:
            begin, end = window(self.windows, t)
            if begin <= t:
                if begin > since:
                    since, depth, depth_error = begin, now, now_error
                since = max(since, told.told + 1)
                if since < end:
                    told.told = since
                    row = self.say(zone, since, t, belief, depth, depth_error, fixes)
        return row

    def settle_zone(self, zone, t, error=None):
        error = self.device.last_error if error is None else error
        if zone.state == WRONG or zone.open is not None:
            zone.open = self.settle(
                zone,
                zone.open,
                zone.state == WRONG,
                zone.first is None,
                zone.since,
                zone.zone,
                t,
                zone.belief,
                zone.depth,
                zone.depth_error,
                self.wrong_mm(zone.last_mm),
                error,
                zone.fixes,
            )

    def settle_inside(self, t, error=None):
        error = self.device.last_error if error is None else error
        if not self.zones:
            return
        wrong = all(zone.state == WRONG for zone in self.zones)
        if not wrong and self.open is None:
            return
        nearest = min(self.zones, key=lambda zone: zone.last_mm)
        now = self.wrong_mm(nearest.last_mm)
        if wrong:
            since = max(zone.since for zone in self.zones)
        else:
            since = min((zone.since for zone in self.zones if zone.state == RIGHT), default=t)
        alone = len(self.zones) == 1
        self.open = self.settle(
            self,
            self.open,
            wrong,
            all(zone.first is None for zone in self.zones if zone.state == WRONG),
            since,
            nearest.zone,
            t,
            min([CLIP] + [zone.belief for zone in self.zones if zone.state == WRONG]),
            nearest.depth if alone else now,
            nearest.depth_error if alone else error,
            now,
            error,
            nearest.fixes,
        )

    def settle_condition(self, t):
        self.open = self.settle(
            self, self.open, self.wrong, True, self.since, -1, t, NEVER, 0, -1, 0, -1, self.bad
        )

    def condition_ping(self, ping, fix):
        t, rule, was = ping.time_us, self.rule, self.wrong
        bad, since, early = was, t, False
        match rule.require:
            case "strap_closed":
                bad = bool(ping.status & 1)
            case "case_closed":
                bad = bool(ping.status & 2)
            case "no_jamming":
                bad = bool(ping.status & 32)
            case "battery":
                if ping.battery <= 100:
                    bad = ping.battery < (min(rule.above_pct + 5, 100) if was else rule.above_pct)
            case "contact":
                bad = False
            case "fix":
                if ping.has_fix:
                    bad = False
                elif t - self.device.position_us >= rule.within_us:
                    bad, since = True, self.device.position_us + rule.within_us
            case "plausible_movement":
                if fix.jumped:
                    self.score = min(self.score + 2, 4)
                elif fix.doubtful:
                    self.score = min(self.score + 1, 4)
                elif fix.used and self.score:
                    self.score -= 1
                bad = self.score == 4 or (was and self.score > 0)
            case "clock":
                delay_us = (t if ping.received_us is None else ping.received_us) - t
                if delay_us <= rule.within_us:
                    bad = delay_us < -rule.within_us
                elif ping.status & 128:
                    return
                else:
                    bad = True
                    if self.bad == 0:
                        self.lag = delay_us // 10_000_000
                    since_us = self.since if self.bad else t
                    early = t - since_us + delay_us - self.lag * 10_000_000 < 1_800_000_000 or not self.bad
            case _:
                return
        if bad:
            self.bad += 1
            if not was and self.bad == 1:
                self.since = since
            if not was and (early or t - self.since < rule.profile.dwell_us):
                return
            self.wrong = True
            self.settle_condition(t)
        else:
            if was:
                self.wrong, self.since = False, t
                self.settle_condition(t)
            self.bad = 0
