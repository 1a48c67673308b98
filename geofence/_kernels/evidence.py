"""One fix, one belief: how far a signed distance and its error move a log-odds (integers in 1/1024)."""

from __future__ import annotations

from numba import njit

from geofence._kernels.options import PLAIN
from geofence._kernels.tables import LOG_ODDS, PPM, WEIGHT

__all__ = ["CLIP", "DEEP", "FIX_CLIP", "NETWORK_CLIP", "after_a_move", "confidence_ppm", "moved", "weight_of"]

ONE = 1024
CLIP = 6 * ONE  # a belief never goes past 99.75 %, so that a few clear fixes can turn it
FIX_CLIP = 4 * ONE  # nor does one fix say more than 98.2 %
NETWORK_CLIP = (
    2 * ONE
)  # a network fix says less than the least confidence a profile may ask for (0.9 is 2.197)
DEEP = 5  # a fix past the line by so many errors settles the matter
# A deep network fix does so only where network fixes before it had come to say the same, and if half of it is
# news (42 s after the last of its source, and not a repeated one).
NETWORK_AGREES = ONE
NETWORK_NEWS = 512
STEPS = 256  # of LOG_ODDS, per error radius
SECOND_US = 1_000_000
REPEATED = 10  # a network fix repeated to the digit weighs a tenth: it is a cache speaking


@njit(**PLAIN)
def weight_of(elapsed_us, repeated):
    """How much of a fix is news, in 1/1024, so long after the last fix of its source."""
    second = elapsed_us // SECOND_US
    if second >= len(WEIGHT) - 1:
        weight = ONE
    else:
        rest = elapsed_us - second * SECOND_US
        low = int(WEIGHT[second])
        weight = low + (int(WEIGHT[second + 1]) - low) * rest // SECOND_US
    return weight // REPEATED if repeated else weight


@njit(**PLAIN)
def _scaled(weight, log_odds):
    """Weight * log_odds / 1024, rounded towards zero, so that both signs are treated alike."""
    return (weight * log_odds) // ONE if log_odds >= 0 else -((weight * -log_odds) // ONE)


@njit(**PLAIN)
def _network(log_odds):
    """The share in a belief of all that both network sources said."""
    return min(max(log_odds, -NETWORK_CLIP), NETWORK_CLIP)


@njit(**PLAIN)
def moved(belief, said, other, wrong_mm, error_mm, weight, network):
    """The belief after one fix, and what its source has said of it in all.

    belief   : int  log-odds of the wrong side
    said     : int  what fixes of this network source said in all (0 for GNSS and beacons)
    other    : int  what those of the other network source said in all
    wrong_mm : int  signed distance past the line, positive on the wrong side
    error_mm : int  68 % radius, floored, at least 1
    weight   : int  0..1024, see weight_of
    network  : bool fixes of one network source share a bias: together they never say more than the best of
                    them; nor do both sources count for more than one fix may say; and a deep one settles the
                    matter only where those before it agree
    """
    sign = 1 if wrong_mm >= 0 else -1
    away = wrong_mm * sign
    if away > DEEP * error_mm and (
        not network or (weight >= NETWORK_NEWS and sign * (said + other) >= NETWORK_AGREES)
    ):
        return sign * CLIP, (sign * NETWORK_CLIP if network else said)
    step = away * STEPS // error_mm
    says = sign * (int(LOG_ODDS[step]) if step < len(LOG_ODDS) else FIX_CLIP)
    if network:
        says = _network(says)
        now = said + _scaled(weight, says)
        if says >= 0:
            now = max(said, min(now, says))
        else:
            now = min(said, max(now, says))
        belief += _network(now + other) - _network(said + other)
        said = now
    else:
        belief += _scaled(weight, says)
    return min(max(belief, -CLIP), CLIP), said


@njit(**PLAIN)
def after_a_move(belief, wrong_mm):
    """What earlier fixes still say when the wearer moved, and the fix there speaks against them.

    They told where the wearer was. All together they count for no more than one fix may: else who drives into
    a zone has to stay until three clear fixes have outweighed that a moment ago the wearer was outside.
    """
    if wrong_mm > 0:
        return max(belief, -FIX_CLIP)
    return min(belief, FIX_CLIP) if wrong_mm < 0 else belief


@njit(**PLAIN)
def confidence_ppm(belief):
    """The probability that a log-odds stands for, in millionths."""
    at = min(max(belief, -CLIP), CLIP) + CLIP
    step = at >> 5
    low = int(PPM[step])
    if step == len(PPM) - 1:
        return low
    return low + (int(PPM[step + 1]) - low) * (at & 31) // 32
