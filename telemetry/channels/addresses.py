"""Which addresses a webhook may be sent to.

The name is resolved once and the connection goes to the very address that was checked: a name server that
answers otherwise the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AddressError", "objection", "resolve"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits


class AddressError(Exception):
    """The receiver's name has no address, or one where nothing may be sent."""


def objection(address: Address, allowed: Sequence[Network]) -> str | None:
    """Why nothing may be sent there; None: it may.

    >>> objection(ipaddress.ip_address("::ffff:10.0.0.7"), [])
    '10.0.0.7 is not a public address'
    >>> objection(ipaddress.ip_address("10.0.0.7"), [ipaddress.ip_network("10.0.0.0/24")]) is None
    True
    """
    address = _inner(address)
    if any(address in network for network in allowed):
        return None
    site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local  # is_global says yes
    if not address.is_global or address.is_multicast or address.is_reserved or site_local:
        return f"{address} is not a public address"
    return None


def _inner(address: Address) -> Address:
    """The IPv4 address that a translating router would send an IPv6 one to."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address


async def resolve(host: str, port: int, allowed: Sequence[Network]) -> str:
    """An address of the host that may be used, as text.

    Raises AddressError when there is none, or when any of them may not: a name that mixes both is a trap.
    """
    try:
        found = await _look_up(host, port)
    except OSError as error:
        raise AddressError(f"{host} has no address ({error.strerror or error})") from error
    addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in found]
    for address in addresses:
        problem = objection(address, allowed)
        if problem is not None:
            raise AddressError(f"{host}: {problem}; name its network in `allow_networks` if it is meant")
    return str(addresses[0])


async def _look_up(host: str, port: int) -> list[str]:
    """Ask in a thread that nobody has to wait for: a name server can take half a minute to fail."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def settle(found: list[str], error: OSError | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(found)

    def ask() -> None:
        found: list[str] = []
        error: OSError | None = None
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = [str(where[0]) for *_, where in answers]
        except OSError as problem:
            error = problem
        except UnicodeError as problem:  # a label that IDNA refuses
            error = OSError(str(problem))
        try:
            loop.call_soon_threadsafe(settle, found, error)
        except RuntimeError:
            return  # the loop has closed: nobody waits any more

    threading.Thread(target=ask, name=f"resolve {host}", daemon=True).start()
    return await answer
