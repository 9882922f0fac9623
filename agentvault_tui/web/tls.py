"""The certificate and key that a TLS listener shows, checked, and read anew."""

from __future__ import annotations

import logging
import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from agentvault_tui.errors import SettingsError

_log = logging.getLogger("agentvault.web")

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the certificate (with what leads to its authority) and its key are."""

    cert: Path
    key: Path


class ServerTls:
    """The context of one listener.

    A renewed certificate is shown from the next connection on; while the two files do
    not fit each other, as in the middle of a renewal, the one before stays.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Read *files*; SettingsError: one cannot be used, or is open to others."""
        self.files = files
        self._stamp = _stamp(files)
        self._context = server_context(files)

    def context(self) -> ssl.SSLContext:
        """Return what the next connection is to be shown."""
        stamp = _stamp(self.files)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = server_context(self.files)
            except SettingsError as error:
                _log.warning("the certificate before stays: %s", error.diagnosis())
            else:
                _log.info("the certificate was read anew")
        return self._context


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return a context that speaks TLS 1.2 or later, and HTTP/1.1 inside."""
    check_key(files.key)
    # Not create_default_context: that one logs session keys where SSLKEYLOGFILE says.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # RFC 9325 section 3.1.1: TLS 1.0 and 1.1 must not be negotiated.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])

    def locked() -> str:
        raise SettingsError(
            f"the key {files.key} is encrypted",
            "give one without a passphrase: nobody is there to type it",
        )

    try:
        context.load_cert_chain(files.cert, files.key, password=locked)
    except ssl.SSLError as error:
        raise SettingsError(
            f"{files.cert} and {files.key} are no certificate and its key "
            f"({(error.reason or 'unreadable').lower().replace('_', ' ')})",
            "both are PEM; the certificate comes first, then what signed it",
        ) from error
    except OSError as error:
        raise SettingsError(
            f"the certificate {files.cert} cannot be read ({error.strerror})",
            "name one with --tls-cert, or make one: agentvault tls init",
        ) from error
    return context


def check_key(path: Path) -> None:
    """Insist on a key that is nobody else's to read or to change."""
    try:
        status = path.stat()
    except OSError as error:
        raise SettingsError(
            f"the key {path} cannot be read ({error.strerror})",
            "name it with --tls-key, or make one: agentvault tls init",
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise SettingsError(f"the key {path} is not a file")
    if status.st_uid != os.geteuid():
        raise SettingsError(
            f"the key {path} belongs to uid {status.st_uid}, not to you",
            "chown it, or copy it into the home",
        )
    if status.st_mode & 0o077:
        raise SettingsError(
            f"the key {path} is open to others (mode {status.st_mode & 0o777:04o})",
            f"chmod 0600 {path}",
        )


def _stamp(files: TlsFiles) -> _Stamp:
    """Return what changes when a file is written or another takes its place."""
    found = []
    for path in (files.cert, files.key):
        try:
            status = path.stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)
