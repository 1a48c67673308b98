"""The kernels' own randomness: what it should look like, and that streams are their own."""

from statistics import NormalDist

import numpy as np
import pytest

from firmware_sim._random import draws, exponential, normal, seed_streams, uniform

# more than the stream alone: Numba would take every longer record for a subtype of it, and warn
MACHINE = np.dtype([("rng", "u8"), ("of_test", "u8")])
COUNT = 200_000


def take(draw, seed: int = 1, count: int = COUNT) -> np.ndarray:
    machine = np.zeros(1, MACHINE)
    machine["rng"] = seed_streams(seed, "test", 1)
    return np.array([draw(machine[0]) for _ in range(count)])


@pytest.mark.parametrize(
    ("draw", "quantile"),
    [
        (uniform, lambda p: p),
        (normal, NormalDist().inv_cdf),
        (exponential, lambda p: -np.log(1 - p)),
    ],
)
def test_numbers_follow_their_law(draw, quantile) -> None:
    drawn = np.sort(take(draw))
    for p in (0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999):
        # the share below the p-quantile, within five standard errors
        share = np.searchsorted(drawn, quantile(p)) / COUNT
        assert share == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / COUNT))


def test_successive_numbers_and_neighbouring_streams_are_not_correlated() -> None:
    drawn = take(uniform)
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.01
    table = draws(3, "people", COUNT, 3)
    for a, b in ((table[:-1, 0], table[1:, 0]), (table[:, 0], table[:, 1]), (table[:, 1], table[:, 2])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.01
    assert abs(np.corrcoef(table[:, 0], draws(4, "people", COUNT, 1)[:, 0])[0, 1]) < 0.01
    assert abs(np.corrcoef(table[:, 0], draws(3, "places", COUNT, 1)[:, 0])[0, 1]) < 0.01


def test_a_stream_does_not_depend_on_how_many_there_are() -> None:
    assert np.array_equal(seed_streams(9, "gnss", 10), seed_streams(9, "gnss", 1000)[:10])
    assert np.array_equal(draws(9, "gnss", 10, 4), draws(9, "gnss", 1000, 4)[:10])
    assert len(np.unique(seed_streams(9, "gnss", 100_000))) == 100_000


def test_the_numbers_are_pinned() -> None:
    """A change here changes every simulated fleet: then say so in the changelog."""
    assert [int(word) for word in seed_streams(1, "gnss", 2)] == [18313906378733174627, 3220962560919223657]
    assert take(uniform, count=2).tolist() == [0.1475322185496225, 0.9283571424692459]
