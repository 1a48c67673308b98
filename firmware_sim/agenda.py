"""What a wearer means to do: a week of stops, and now and then one that breaks a rule.

At each local midnight `plan_day` adds a day's stops to everyone's agenda. Who is not home yet (a night out
after curfew) keeps what is left of the old plan first. Lawful days end at home before 21:00, when the
earliest curfew begins.
"""

# ruff: noqa: PLR0917 (kernels take columns)

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numba import njit

from firmware_sim._random import exponential, seed_streams, uniform
from firmware_sim.city import PERSON
from firmware_sim.codec import KIND_PHONE, KIND_WRIST

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from firmware_sim.scenario import Behaviour

__all__ = [
    "AGENDA",
    "FOREVER_S",
    "REASONS",
    "ROAD",
    "STOPS",
    "WHY_BRIEF",
    "WHY_CURFEW",
    "WHY_DEEP",
    "WHY_PASSING",
    "WHY_ROUTINE",
    "WHY_TAILGATING",
    "WHY_VICTIM",
    "new_agendas",
    "new_roads",
    "plan_day",
    "rates_of",
    "warm",
]

STOPS: Final = 14  # a day has at most four outings; the rest is what is left of the night before
FOREVER_S: Final = 1 << 62
_SCHOOL_RUN_S: Final = 1200  # from leaving home to leaving the school

WHY_ROUTINE: Final = 0
WHY_CURFEW: Final = 1
WHY_BRIEF: Final = 2
WHY_DEEP: Final = 3
WHY_PASSING: Final = 4
WHY_VICTIM: Final = 5
WHY_TAILGATING: Final = 6
REASONS: Final = ("routine", "curfew", "brief", "deep", "passing", "victim", "tailgating")

# Stop k is left at leave_s[k] (UTC seconds) for stop k + 1; the last is left never. ``at`` is the stop
# where the wearer is, or is going to.
AGENDA: Final = np.dtype(
    [
        ("rng", "u8"),
        ("count", "i4"),
        ("at", "i4"),
        ("stop", "i4", (STOPS,)),  # index into City.places
        ("leave_s", "i8", (STOPS,)),
        ("stay_s", "i4", (STOPS,)),  # at least so long after arrival, whatever leave_s says
        ("why", "u1", (STOPS,)),
        ("foil_from_s", "i8"),  # the device is wrapped in foil
        ("foil_until_s", "i8"),
        ("handed_from_s", "i8"),  # the wristband is on another arm, at home
        ("handed_until_s", "i8"),
    ]
)

# Tailgating draws from a stream of its own. ``rng`` does not come first: a record that is the beginning of
# another counts as its base class for Numba, and that feature is experimental.
ROAD: Final = np.dtype([("planned", "u8"), ("rng", "u8")])

# order of the rates handed to plan_day
_CURFEW, _BRIEF, _DEEP, _PASSING, _VICTIM, _SHIELDING, _HANDOVER, _TAILGATING = range(8)


def rates_of(behaviour: Behaviour) -> NDArray[np.float64]:
    """The rates that `plan_day` reads, events per day: float64 (8,)."""
    return np.array(
        [
            behaviour.curfew,
            behaviour.brief,
            behaviour.deep,
            behaviour.passing,
            behaviour.victim,
            behaviour.shielding,
            behaviour.handover,
            behaviour.tailgating,
        ]
    )


def new_agendas(people: NDArray[Any], seed: int) -> NDArray[Any]:
    """Everyone at home, for ever: AGENDA (n,)."""
    agendas = np.zeros(len(people), AGENDA)
    agendas["rng"] = seed_streams(seed, "agenda", len(people))
    agendas["count"] = 1
    agendas["stop"][:, 0] = people["home"]
    agendas["leave_s"][:, 0] = FOREVER_S
    return agendas


def new_roads(count: int, seed: int) -> NDArray[Any]:
    """The streams that tailgating draws from: ROAD (count,)."""
    roads = np.zeros(count, ROAD)
    roads["rng"] = seed_streams(seed, "road", count)
    return roads


@njit(nogil=True, cache=True)
def _go(agenda: Any, place: int, leave_s: int, why: int) -> None:
    """Append a stop, reached by leaving the one before at ``leave_s``."""
    k = agenda.count
    agenda.leave_s[k - 1] = leave_s
    agenda.stop[k] = place
    agenda.why[k] = why
    agenda.stay_s[k] = 0
    agenda.leave_s[k] = FOREVER_S
    agenda.count = k + 1


@njit(nogil=True, cache=True)
def _outing(agenda: Any, home: int, place: int, leave_s: int, stay_s: int, why: int) -> None:
    """There and back; ``stay_s`` counts from leaving, of what is no routine from arriving.

    Left out when the agenda is full.
    """
    if agenda.count + 2 <= STOPS:
        _go(agenda, place, leave_s, why)
        if why != WHY_ROUTINE:
            agenda.stay_s[agenda.count - 1] = stay_s
        _go(agenda, home, leave_s + stay_s, WHY_ROUTINE)


@njit(nogil=True, cache=True)
def _pass_by(agenda: Any, person: Any, leave_s: int, eastward: bool) -> None:
    """To one end of the lane that passes the school's zone, along it, and home."""
    if agenda.count + 3 <= STOPS:
        near, far = person.verge_west, person.verge_east
        if not eastward:
            near, far = far, near
        _go(agenda, near, leave_s, WHY_ROUTINE)
        _go(agenda, far, leave_s, WHY_TAILGATING)
        _go(agenda, person.home, leave_s, WHY_ROUTINE)


@njit(nogil=True, cache=True)
def plan_day(
    midnight_s: int,
    weekday: int,
    rates: NDArray[np.float64],
    kinds: NDArray[np.uint8],
    people: NDArray[Any],
    agendas: NDArray[Any],
    roads: NDArray[Any],
) -> None:
    """Add one day to everyone's agenda.

    midnight_s : UTC seconds of the local midnight at which the day begins; hours count from it
    weekday    : 0 Monday .. 6 Sunday
    rates      : float64 (8,) as by rates_of, events per day
    kinds      : uint8 (n,)
    people     : PERSON (n,)
    agendas    : AGENDA (n,)  written
    roads      : ROAD (n,)    written
    """
    for i in range(len(people)):
        person = people[i]
        agenda = agendas[i]
        done = agenda.at
        for k in range(done, agenda.count):
            agenda.stop[k - done] = agenda.stop[k]
            agenda.leave_s[k - done] = agenda.leave_s[k]
            agenda.stay_s[k - done] = agenda.stay_s[k]
            agenda.why[k - done] = agenda.why[k]
        agenda.count -= done
        agenda.at = 0
        home = person.home
        worn = kinds[i] != KIND_PHONE

        # Every decision draws, taken or not, so that changing one rate leaves the other decisions
        # as they were.
        curfew = uniform(agenda) < rates[_CURFEW]
        brief = uniform(agenda) < rates[_BRIEF] and person.school_exclusion == 1
        deep = uniform(agenda) < rates[_DEEP] and person.school_exclusion == 1
        passing = uniform(agenda) < rates[_PASSING]
        victim = uniform(agenda) < rates[_VICTIM] and person.victim >= 0
        shielding = uniform(agenda) < rates[_SHIELDING] and worn
        handover = uniform(agenda) < rates[_HANDOVER] and kinds[i] == KIND_WRIST
        early = uniform(agenda)
        late = uniform(agenda)
        long = uniform(agenda)
        mood = uniform(agenda)
        whim = uniform(agenda)
        length = exponential(agenda)
        tailgating = uniform(roads[i]) < rates[_TAILGATING] and person.school_exclusion == 1
        eastward = uniform(roads[i]) < 0.5

        if shielding:
            agenda.foil_from_s = midnight_s + int(3600 * (10 + 9 * early))
            agenda.foil_until_s = agenda.foil_from_s + int(60 * (35 + 60 * long))
        if handover:
            agenda.handed_from_s = midnight_s + 9 * 3600
            agenda.handed_until_s = midnight_s + int(3600 * (12 + 7 * late))
            continue

        # the school run: to the gate on the way to work; and who is home early fetches the child
        school_run = weekday < 5 and person.school_run == 1
        if weekday < 5 and person.routine == 0:
            leave = midnight_s + int(3600 * (7 + 1.5 * early))
            if school_run:
                _go(agenda, person.gate, leave - _SCHOOL_RUN_S, WHY_ROUTINE)
                agenda.stay_s[agenda.count - 1] = int(120 + 300 * long)
            _go(agenda, person.work, leave, WHY_ROUTINE)
            off = midnight_s + int(3600 * (15.75 + 1.0 * late))
            if mood < 0.4:
                _go(agenda, person.shop, off, WHY_ROUTINE)
                off += int(60 * (25 + 20 * long))
            _go(agenda, home, off, WHY_ROUTINE)
        elif weekday < 5 and person.routine == 1:
            _outing(
                agenda,
                home,
                person.work,
                midnight_s + int(3600 * (6.08 + 0.4 * early)),
                int(3600 * (7.7 + 0.5 * late)),
                WHY_ROUTINE,
            )
            if mood < 0.3:
                _outing(
                    agenda,
                    home,
                    person.shop,
                    midnight_s + int(3600 * (15.2 + late)),
                    int(60 * (20 + 40 * long)),
                    0,
                )
        elif weekday < 5 and person.routine == 2:
            if school_run:
                _outing(agenda, home, person.gate, midnight_s + int(3600 * 7.6), _SCHOOL_RUN_S, 0)
            _outing(
                agenda, home, person.work, midnight_s + int(3600 * (9 + early)), int(3600 * (3 + late)), 0
            )
            if school_run:
                _outing(agenda, home, person.gate, midnight_s + int(3600 * 14.8), _SCHOOL_RUN_S, 0)
            elif mood < 0.5:
                place = person.park if whim < 0.5 else person.friend
                _outing(
                    agenda, home, place, midnight_s + int(3600 * (15 + early)), int(60 * (30 + 50 * long)), 0
                )
        else:
            if mood < 0.7:
                _outing(
                    agenda,
                    home,
                    person.shop,
                    midnight_s + int(3600 * (9.5 + 1.5 * early)),
                    int(60 * (20 + 50 * long)),
                    0,
                )
            if whim < 0.6:
                place = person.park if whim < 0.25 else person.friend
                _outing(
                    agenda,
                    home,
                    place,
                    midnight_s + int(3600 * (13 + 1.5 * late)),
                    int(60 * (40 + 80 * long)),
                    0,
                )

        # the hours around dinner: at most one of these
        dinner_s = midnight_s + int(3600 * (18.2 + 0.5 * early))
        if victim:
            _outing(agenda, home, person.victim, dinner_s, int(60 * (2 + 28 * long * long)), WHY_VICTIM)
        elif deep:
            _outing(agenda, home, person.school, dinner_s, int(60 * (2 + 38 * long * long)), WHY_DEEP)
        elif brief:
            _outing(agenda, home, person.gate, dinner_s, int(60 * (1 + 2 * long)), WHY_BRIEF)
        elif passing:
            _outing(agenda, home, person.kerb, dinner_s, int(60 * (1 + 9 * long)), WHY_PASSING)
        elif tailgating:
            roads[i].planned += np.uint64(1)
            _pass_by(agenda, person, dinner_s, eastward)
        if curfew:
            place = person.friend if whim < 0.6 else person.shop
            _outing(
                agenda,
                home,
                place,
                midnight_s + int(3600 * (22.3 + 2.5 * mood)),
                int(60 * (3 + 55 * min(length, 3.0))),
                WHY_CURFEW,
            )


def warm() -> None:
    """Compile this module's kernel."""
    none = np.zeros(0, np.uint8), np.zeros(0, PERSON), np.zeros(0, AGENDA), np.zeros(0, ROAD)
    plan_day(0, 0, np.zeros(8), *none)
