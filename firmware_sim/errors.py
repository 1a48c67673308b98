"""Errors of this package: each says what is wrong, the value, and the remedy."""

from __future__ import annotations

__all__ = ["ScenarioError", "SimulatorError", "UplinkError"]


class SimulatorError(Exception):
    """Base of every error that firmware_sim raises on purpose."""


class ScenarioError(SimulatorError, ValueError):
    """A scenario, or what was asked of it, can't be played."""


class UplinkError(SimulatorError):
    """The broker can't be reached, or refuses the devices."""
