"""Compile and cache the simulator's kernels."""

from __future__ import annotations

from firmware_sim import agenda, device, flash, gnss, load, power, radio, strap, wearer

__all__ = ["warm"]


def warm() -> None:
    """Call every kernel once, with empty columns of the types used at run time."""
    for module in (agenda, wearer, gnss, power, strap, radio, device, flash, load):
        module.warm()
