"""Services and MCP servers of the gateway as audiences of tokens (RFC 8707)."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from agentvault_tui.web.guard import loopback_hosts

PREFIX: Final = "/mcp/"
_PATH: Final = re.compile(r"/(?:mcp|gw)/[a-z0-9][a-z0-9_-]{0,62}")


def mcp_server_of(resource: str | None, issuer: str) -> str | None:
    """Return the name of the MCP server of this broker that *resource* is the URL of.

    Also of a server that is not there; None for any other resource.
    """
    path = audience_of(resource, issuer)
    return path[len(PREFIX) :] if path and path.startswith(PREFIX) else None


def audiences_of(resource: str | None, issuer: str) -> frozenset[str]:
    """Return the gateway's paths of the URLs in *resource*.

    A token may be bound to several URLs (RFC 8707 section 2), separated by blanks.

    Returns:
        each ``/mcp/NAME`` or ``/gw/NAME``; empty if one of them is no such URL.
    """
    paths = [audience_of(one, issuer) for one in (resource or "").split(" ")]
    return frozenset() if None in paths else frozenset(filter(None, paths))


def audience_claim(resource: str) -> str | list[str]:
    """Return a token's ``aud``; for several URLs a list (RFC 7519 section 4.1.3)."""
    urls = resource.split(" ")
    listed = len(urls) > 1 and all(_PATH.fullmatch(urlsplit(one).path) for one in urls)
    return urls if listed else resource


def hosts_of(issuer: str) -> frozenset[bytes]:
    """Return the values of ``Host`` by which the listener of an issuer is reached."""
    ours = urlsplit(issuer)
    return loopback_hosts(ours.port or 0, (ours.hostname or "").strip("[]"))


def audience_of(resource: str | None, issuer: str) -> str | None:
    """Return the path of the gateway that *resource* is the URL of.

    Such a URL names the token's audience, and not the resource of the action.

    Returns:
        ``/mcp/NAME`` or ``/gw/NAME``, also of unknown names; None for any other
        resource.
    """
    if not resource or not issuer:
        return None
    ours = urlsplit(issuer)
    try:
        url = urlsplit(resource)
        same = (url.scheme, url.port) == (ours.scheme, ours.port)
        hosts = hosts_of(issuer)
    except ValueError:
        return None
    if (
        not _PATH.fullmatch(url.path)
        or not same
        or url.netloc.encode() not in hosts
        or resource != f"{url.scheme}://{url.netloc}{url.path}"
    ):
        return None
    return url.path
