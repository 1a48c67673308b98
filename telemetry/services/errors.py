"""Errors of the embedded services: each says what is wrong, the value, and the remedy."""

from __future__ import annotations

__all__ = ["ClusterVersionError", "DataDirError", "DataDirInUse", "PortTaken", "ServiceError", "StartError"]


class ServiceError(Exception):
    """Base of every error that this package raises on purpose."""


class DataDirError(ServiceError):
    """The data directory can't be used: not writable, not a directory, or not ours."""


class DataDirInUse(DataDirError):  # noqa: N818 - it names a state, and reads well where it is caught
    """Another ``ringfence up`` holds the data directory; ``pid`` is its process, where it is known."""

    def __init__(self, message: str, pid: int | None) -> None:
        self.pid = pid
        super().__init__(message)


class PortTaken(ServiceError):  # noqa: N818 - as above
    """Something else listens on the asked port."""

    def __init__(self, message: str, port: int) -> None:
        self.port = port
        super().__init__(message)


class ClusterVersionError(ServiceError):
    """The database in the data directory was made by another major version of PostgreSQL."""


class StartError(ServiceError):
    """A service did not start; the message ends with the last lines of its log."""
