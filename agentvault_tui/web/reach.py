"""Connect out of this process: addresses checked and pinned, TLS verified.

Nothing is taken from the environment, and a name is resolved once a connection.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
from contextlib import suppress
from functools import lru_cache
from typing import Final

import certifi

from agentvault_tui.web.service_connection import (
    Bounds,
    ServiceConnection,
    UpstreamError,
    late,
)

_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""All that IANA has allocated as global; others (site-local, IPv4-compatible) may still
be routed to inner networks."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_CONNECT_SECONDS: Final = 10.0
_BROADCAST: Final = ipaddress.IPv4Address("255.255.255.255")


@lru_cache(maxsize=1024)
def may_reach(address: str, *, private: bool) -> bool:
    """Check whether a service may be at *address*, which was resolved.

    It is unicast, and public unless *private*, which allows loopback, link-local and
    private ones. An address embedded in an IPv6 one (mapped, NAT64, 6to4, Teredo) is
    judged instead of it.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            ip = inner
    if ip.is_multicast or ip.is_unspecified or ip == _BROADCAST:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip not in _UNICAST:
        return private
    return private or ip.is_global


class _RefusedAddressError(OSError):
    """A name represents an address that its service may not have."""


async def resolved(
    host: str, *, private: bool
) -> list[tuple[socket.AddressFamily, str]]:
    """Return families and addresses of *host*, to connect to without resolving again.

    Raises:
        OSError: it has none, or one that is not allowed: see `may_reach`.
    """
    addresses: list[tuple[socket.AddressFamily, str]] = []
    with suppress(ValueError):  # an address needs no thread that looks it up
        ip = ipaddress.ip_address(host)
        addresses = [(socket.AF_INET if ip.version == 4 else socket.AF_INET6, str(ip))]
    if not addresses:
        infos = await asyncio.get_running_loop().getaddrinfo(
            host, None, type=socket.SOCK_STREAM
        )
        addresses = list(dict.fromkeys((kind, str(at[0])) for kind, *_, at in infos))
    for _, address in addresses:
        if not may_reach(address, private=private):
            raise _RefusedAddressError(errno.EACCES, "address not allowed")
    return addresses


async def connected_to(host: str, port: int, *, private: bool) -> socket.socket:
    """Connect to a host, resolved once, at an address checked by `may_reach`.

    Raises:
        UpstreamError: it cannot be reached, or may not.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            for family, address in await resolved(host, private=private):
                connected = socket.socket(family, socket.SOCK_STREAM)
                connected.setblocking(False)
                try:
                    await loop.sock_connect(connected, (address, port))
                except BaseException as error:
                    connected.close()
                    if not isinstance(error, OSError):
                        raise
                else:
                    return connected
    except TimeoutError:
        raise late() from None
    except _RefusedAddressError:
        raise UpstreamError(
            502, "upstream_refused", "the service's address is not one it may have"
        ) from None
    except OSError:
        raise unreachable() from None
    raise unreachable()


def unreachable() -> UpstreamError:
    """Return the error of a host that does not take the connection."""
    return UpstreamError(502, "upstream_unreachable", "the service cannot be reached")


def trust(authorities: str) -> ssl.SSLContext:
    """Return the verifier of a service's certificate, by *authorities* in PEM.

    If it is empty, by the system's authorities, wherever the environment would have
    them.

    Raises:
        OSError: they cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    if authorities:
        context.load_verify_locations(cadata=authorities)
        return context
    # Not set_default_verify_paths(), which would read SSL_CERT_FILE.
    paths = ssl.get_default_verify_paths()
    if os.path.isfile(paths.openssl_cafile):  # noqa: PTH113
        context.load_verify_locations(paths.openssl_cafile)
    elif os.path.isdir(paths.openssl_capath) and os.listdir(paths.openssl_capath):  # noqa: PTH112, PTH208
        context.load_verify_locations(capath=paths.openssl_capath)
    else:
        context.load_verify_locations(certifi.where())
    return context


async def service_connection(
    host: str, port: int, *, private: bool, tls: ssl.SSLContext | None, bounds: Bounds
) -> ServiceConnection:
    """Return a new connection for requests, over TLS where *tls* verifies the host.

    Raises:
        UpstreamError: the host cannot be reached, or may not.
        OSError: it does not speak TLS, or is not who it should be.
    """
    connected = await connected_to(host, port, private=private)
    try:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: ServiceConnection(bounds),
            sock=connected,
            ssl=tls,
            server_hostname=host if tls else None,
        )
    except BaseException:
        connected.close()
        raise
    return connection
