"""Checks where a team's store is: a PostgreSQL URL without secrets, over verified TLS.

The URL is in config.toml, is shown by doctor and sent to every broker, so nothing
secret may be in it. Its parameters are libpq's (PostgreSQL 15, chapter 34.1).
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from agentvault_tui.errors import SettingsError

_EXAMPLE: Final = (
    "write postgresql://USER@HOST1,HOST2:5432/NAME?sslmode=verify-full, or"
    " postgresql://USER@/NAME?host=/run/postgresql for a Unix socket"
)
_ALLOWED: Final = frozenset(
    {
        *("host", "hostaddr", "port", "target_session_attrs", "sslmode", "passfile"),
        *("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslnegotiation"),
        *("channel_binding", "require_auth", "load_balance_hosts"),
    }
)
"""Not ``service``, which can hold a password and another host, nor ``options``."""
_SECRET: Final = frozenset({"password", "sslpassword", "oauth_client_secret"})
_REDIRECTING: Final = {"PGHOSTADDR", "PGSERVICE", "PGOPTIONS"}
"""Variables that libpq reads although the URL has the store's address."""
_REMEDY: Final = (
    "name a file that holds it, mode 0600, in PGPASSFILE or PGPASSWORD_FILE"
)


def store_parameters(url: str) -> dict[str, str]:
    """Return libpq's parameters of a store's URL, as its reader checked it.

    Args:
        url: ``postgresql://USER@HOST:PORT/NAME?…``.

    Returns:
        parameter to value: at least ``user``, ``host`` and ``dbname``.

    Raises:
        SettingsError: it is malformed, names a secret, or would reach another machine
            without verified TLS. The URL's values are not quoted.
    """
    try:
        parts = urlsplit(url)
        words = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        raise SettingsError("store.url is no URL", _EXAMPLE) from None
    if parts.scheme not in {"postgresql", "postgres"} or parts.fragment:
        raise SettingsError("store.url is no PostgreSQL URL", _EXAMPLE)
    user, at, places = parts.netloc.rpartition("@")
    if ":" in user or not _SECRET.isdisjoint(words):
        raise SettingsError("store.url holds a password", _REMEDY)
    if unknown := sorted(words.keys() - _ALLOWED):
        raise SettingsError(
            f"store.url has the parameter {unknown[0]:.40}",
            f"it may have {', '.join(sorted(_ALLOWED))}",
        )
    hosts, ports = _split(places)
    words = {"host": hosts, "port": ports} | words
    parameters = {name: value for name, value in words.items() if value}
    parameters |= {
        "user": unquote(user),
        "dbname": unquote(parts.path.removeprefix("/")),
    }
    if not (
        at and parameters["user"] and parameters["dbname"] and "host" in parameters
    ):
        raise SettingsError("store.url names no user, host or database", _EXAMPLE)
    if parameters.get("sslmode") != "verify-full" and not _stays_here(parameters):
        raise SettingsError(
            "store.url reaches another machine without sslmode=verify-full",
            "add it, and sslrootcert=FILE where the authority is your own",
        )
    return parameters


def require_library() -> None:
    """Refuse to go on without the library that speaks to PostgreSQL.

    Raises:
        SettingsError: it is not installed: it comes with an extra.
    """
    if find_spec("psycopg") is None:
        raise SettingsError(
            "store.url is set, and the library for PostgreSQL is not installed",
            "pip install 'agentvault-tui[postgres]'",
        )


def password_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the file with the store's password, if ``PGPASSWORD_FILE`` names one.

    Raises:
        SettingsError: the password itself is in the environment, which child processes
            and readers of /proc see; or another server is.
    """
    if "PGPASSWORD" in environ:
        raise SettingsError("PGPASSWORD holds a password", _REMEDY)
    if redirected := sorted(_REDIRECTING & environ.keys()):
        raise SettingsError(
            f"{redirected[0]} is set and would reach another store than store.url",
            "unset it",
        )
    named = environ.get("PGPASSWORD_FILE")
    return Path(named) if named else None


def _split(places: str) -> tuple[str, str]:
    """Return hosts and ports of ``HOST1:PORT,HOST2``, each list with commas."""
    hosts, ports = [], []
    for place in places.split(","):
        host, colon, port = place.rpartition(":")
        if not colon or port.endswith("]"):
            host, port = place, ""
        hosts.append(unquote(host).removeprefix("[").removesuffix("]"))
        ports.append(port)
    # libpq takes one port for all hosts, or one for each; an empty one is the default.
    return ",".join(hosts), ",".join(ports) if any(ports) else ""


def _stays_here(parameters: Mapping[str, str]) -> bool:
    """Check whether every host is a Unix socket or a loopback address."""
    named = parameters["host"].split(",") + parameters.get("hostaddr", "").split(",")
    return all(map(_is_local, filter(None, named))) and "" not in parameters[
        "host"
    ].split(",")


def _is_local(host: str) -> bool:
    if host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
