"""Read the certificate authorities that a configuration file names as ``ca_file``.

Replacing such a file redirects every connection that it vouches for. It is therefore
part of the file that names it: text and certificates together are one source, with one
digest. Certificates are used as they were when the source was read.
"""

from __future__ import annotations

import ssl
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agentvault_tui.errors import ServiceError, SettingsError
from agentvault_tui.model import sha256_hex
from agentvault_tui.text import visible
from agentvault_tui.trusted_files import read_trusted

_KEY: Final = "ca_file"
_MOST: Final = 512 * 1024
"""Bytes of a ``ca_file``; all authorities of a Linux distribution have 220 KiB."""
_SEPARATOR: Final = "\x1e"
"""Begins each ``ca_file`` of a source. TOML allows it in no text (TOML 1.0, Comment
and String), so that a file cannot state authorities of its own."""


def named_files(text: str, base: Path) -> dict[str, Path]:
    """List the files that *text* names as ``ca_file``, at any depth.

    Args:
        text: TOML; if it is not, it names none.
        base: the folder that a relative path starts from.

    Returns:
        where each is, by how the text names it.
    """
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}
    return {name: base / Path(name).expanduser() for name in _named(table)}


def _named(value: object) -> Iterator[str]:
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if key == _KEY and isinstance(inner, str) and inner:
            yield inner
        else:
            yield from _named(inner)


def read_source(text: str, base: Path) -> str:
    """Read the files that *text* names, and join them with the text; see `named_files`.

    Raises:
        ServiceError: a file cannot be read, others could have written it, or it holds
            no certificates.
    """
    if _SEPARATOR in text:
        raise ServiceError("the file contains a control character (U+001E)")
    files = named_files(text, base).items()
    return text + "".join(
        f"{_SEPARATOR}{name}\n{_read(path, base)}" for name, path in files
    )


def source_of(text: str, base: Path) -> str:
    """Return *text* if it is a source with certificates already; else `read_source`."""
    return text if _SEPARATOR in text else read_source(text, base)


def file_digest(path: Path, base: Path) -> str:
    """Return the SHA-256 of a ``ca_file``, in hexadecimal.

    Raises:
        ServiceError: it cannot be used; see `read_source`.
    """
    return sha256_hex(_read(path, base))


def split_source(source: str) -> tuple[str, dict[str, str]]:
    """Return the text of a source, and its authorities in PEM by their names in it."""
    text, *parts = source.split(_SEPARATOR)
    pairs = (part.partition("\n") for part in parts)
    return text, {name: pem for name, _, pem in pairs}


def render_source(source: str) -> str:
    """Render a source for a person: its text, and the digest of each ``ca_file``."""
    text, files = split_source(source)
    lines = (f"# {name} has SHA-256 {sha256_hex(pem)}" for name, pem in files.items())
    return "\n".join((text.rstrip("\n"), *lines, "")) if files else text


def _read(path: Path, base: Path) -> str:
    shown = f"ca_file {visible(path, 200)}"
    try:
        content = read_trusted(path, base, _MOST + 1)
    except SettingsError as error:
        raise ServiceError(f"ca_file: {error.what}", error.remedy) from None
    if content is None:
        raise ServiceError(f"{shown} does not exist", "name a PEM file")
    if len(content) > _MOST:
        raise ServiceError(f"{shown} is larger than {_MOST // 1024} KiB")
    # PEM is ASCII (RFC 7468); remarks between certificates need not be.
    pem = content.decode("ascii", "ignore").replace(_SEPARATOR, "")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError) as error:
        raise ServiceError(
            f"{shown} holds no certificates ({visible(error, 100)})", "name a PEM file"
        ) from None
    return pem
