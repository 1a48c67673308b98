"""The tables of the evidence model are those of their formulas, and the formulas behave."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from geofence._kernels.evidence import (
    CLIP,
    FIX_CLIP,
    NETWORK_CLIP,
    after_a_move,
    confidence_ppm,
    moved,
    weight_of,
)
from geofence._kernels.tables import LOG_ODDS, PPM, WEIGHT

errors = st.integers(3_000, 3_000_000)
distances = st.integers(-2_000_000_000, 2_000_000_000)
beliefs = st.integers(-CLIP, CLIP)
weights = st.integers(0, 1024)


def test_tables_hold_their_formulas():
    for step, value in enumerate(LOG_ODDS.tolist()):
        p = 0.5 * (1 + math.erf(1.51 * step / 256 / math.sqrt(2)))
        assert abs(value - 1024 * math.log(p / (1 - p))) <= 0.5
    for second, value in enumerate(WEIGHT.tolist()):
        assert abs(value - 1024 * (1 - math.exp(-second / 60))) <= 0.5
    for step, value in enumerate(PPM.tolist()):
        assert abs(value - 1e6 / (1 + math.exp(-(step * 32 - CLIP) / 1024))) <= 0.5


@settings(deadline=None)  # the first call may compile
@given(beliefs, distances, errors, weights)
def test_both_sides_are_treated_alike(belief, distance, error, weight):
    up, _ = moved(belief, 0, 0, abs(distance) or 1, error, weight, False)
    down, _ = moved(-belief, 0, 0, -(abs(distance) or 1), error, weight, False)
    assert up == -down


@settings(deadline=None)  # the first call may compile
@given(beliefs, distances, distances, errors, weights)
def test_further_past_the_line_never_says_less(belief, a, b, error, weight):
    low, high = sorted((a, b))
    less, _ = moved(belief, 0, 0, low, error, weight, False)
    more, _ = moved(belief, 0, 0, high, error, weight, False)
    assert less <= more


@settings(deadline=None)  # the first call may compile
@given(beliefs, distances)
def test_a_move_takes_only_from_what_a_fix_speaks_against(belief, distance):
    left = after_a_move(belief, distance)
    assert left == -after_a_move(-belief, -distance)
    if belief * distance < 0:
        assert abs(left) == min(abs(belief), FIX_CLIP)
        assert left * belief > 0
    else:
        assert left == belief


@settings(deadline=None)  # the first call may compile
@given(beliefs, st.lists(st.tuples(distances, errors, weights), max_size=40))
def test_network_fixes_never_say_more_than_the_best_of_them(belief, fixes):
    belief = max(min(belief, 1024), -1024)  # away from the ends, where a belief is cut
    said, best, worst, start = 0, 0, 0, belief
    for distance, error, weight in fixes:
        near = max(-5 * error, min(distance, 5 * error))
        alone, _ = moved(0, 0, 0, near, error, 1024, True)
        best, worst = max(best, alone), min(worst, alone)
        belief, said = moved(belief, said, 0, near, error, weight, True)
        assert worst <= said <= best
        assert belief - start == said
        assert abs(said) <= NETWORK_CLIP


@settings(deadline=None)  # the first call may compile
@given(st.lists(st.tuples(st.booleans(), distances, errors, weights), max_size=40))
def test_both_network_sources_together_say_no_more_than_one_may(fixes):
    belief, said = 0, [0, 0]
    for cell, distance, error, weight in fixes:
        near = max(-5 * error, min(distance, 5 * error))
        belief, said[cell] = moved(belief, said[cell], said[not cell], near, error, weight, True)
        assert belief == max(-NETWORK_CLIP, min(sum(said), NETWORK_CLIP))


@settings(deadline=None)  # the first call may compile
@given(st.integers(0, 10**10), st.integers(0, 10**10))
def test_weights_grow_with_time_and_a_repeat_weighs_a_tenth(a, b):
    low, high = sorted((a, b))
    assert 0 <= weight_of(low, False) <= weight_of(high, False) <= 1024
    assert weight_of(high, True) == weight_of(high, False) // 10


@settings(deadline=None)  # the first call may compile
@given(beliefs, beliefs)
def test_confidence_grows_with_belief(a, b):
    low, high = sorted((a, b))
    assert confidence_ppm(low) <= confidence_ppm(high)
    assert abs(confidence_ppm(high) - 1e6 / (1 + math.exp(-high / 1024))) < 20
