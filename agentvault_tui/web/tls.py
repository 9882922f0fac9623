"""Certificates as they are read, and those that a TLS listener shows, read again."""

from __future__ import annotations

import ipaddress
import logging
import os
import ssl
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from agentvault_tui.clock import Clock
from agentvault_tui.errors import SettingsError
from agentvault_tui.home import file_stamp
from agentvault_tui.trusted_files import check_named_file

_log = logging.getLogger("agentvault.web")


@dataclass(frozen=True, slots=True)
class Certificate:
    """The content of a certificate."""

    names: tuple[str, ...]
    issuer: str
    starts: datetime
    ends: datetime
    fingerprint: str
    """SHA-256 of the whole, in hexadecimal."""


def read_certificate(path: Path) -> Certificate:
    """Read the first certificate of a PEM file; SettingsError: there is none."""
    return _described(load_certificate(path))


def pem_of(path: Path) -> str:
    """Return the first certificate of a PEM file, and nothing else of it."""
    encoded = load_certificate(path).public_bytes(serialization.Encoding.PEM)
    return encoded.decode("ascii")


def general_name(name: str) -> x509.GeneralName:
    """Return a `host_name` as a certificate holds it (RFC 5280 section 4.2.1.6)."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _described(certificate: x509.Certificate) -> Certificate:
    try:
        alternative = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
        names = tuple(
            str(each.value)
            for each in alternative
            if isinstance(each, x509.DNSName | x509.IPAddress)
        )
    except (x509.ExtensionNotFound, ValueError):
        names = ()
    return Certificate(
        names,
        certificate.issuer.rfc4514_string(),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        certificate.fingerprint(hashes.SHA256()).hex(),
    )


def load_certificate(path: Path) -> x509.Certificate:
    """Read the first certificate of a PEM file; SettingsError: there is none."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise SettingsError(
            f"{path} is no certificate in PEM", "agentvault tls init makes one"
        ) from error


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of the certificate (with its chain) and its key."""

    cert: Path
    key: Path

    def stamps(self) -> tuple[object, object]:
        """Return a value that differs once one of them was changed or replaced."""
        return file_stamp(self.cert), file_stamp(self.key)


@dataclass(frozen=True, slots=True)
class ServerName:
    """The host a certificate must be for, and the clock that says until when."""

    host: str
    clock: Clock

    def check(self, path: Path) -> None:
        """Insist that browsers will take the certificate in *path* for this host.

        Raises:
            SettingsError: it is for other names (RFC 9525 section 6.3), or lapsed.
        """
        certificate, now = read_certificate(path), self.clock.now()
        wild = f"*.{self.host.partition('.')[2]}"
        if self.host not in certificate.names and wild not in certificate.names:
            raise SettingsError(
                f"the certificate {path} is not for {self.host} but for "
                f"{', '.join(certificate.names) or 'no name'}",
                "name one that holds the host of the url beside it",
            )
        if not certificate.starts <= now < certificate.ends:
            raise SettingsError(
                f"the certificate {path} is good"
                f" from {certificate.starts:%Y-%m-%d %H:%M}"
                f" to {certificate.ends:%Y-%m-%d %H:%M}, not now",
                "renew it, or set this machine's clock",
            )


class ServerTls:
    """The context of one listener.

    A renewed certificate is shown from the next connection on; while the two files do
    not fit each other, as in the middle of a renewal, the one before stays.
    """

    def __init__(self, files: TlsFiles, name: ServerName | None = None) -> None:
        """Read *files*, for a listener on a network where there is a *name*.

        SettingsError: one cannot be used, is open to others, or is not for *name*.
        """
        self.files = files
        self._name = name
        self._stamp = files.stamps()
        self._context = server_context(files, name)

    def context(self) -> ssl.SSLContext:
        """Return the TLS context of the next connection."""
        stamp = self.files.stamps()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = server_context(self.files, self._name)
            except SettingsError as error:
                _log.warning("the certificate before stays: %s", error.diagnosis())
            else:
                _log.info("the certificate was read anew")
        return self._context


def server_context(files: TlsFiles, name: ServerName | None = None) -> ssl.SSLContext:
    """Return a context that speaks TLS 1.2 or later, and HTTP/1.1 inside.

    With a *name*, TLS 1.3 alone: phones speak it, and it needs no choice.
    """
    check_key(files.key)
    check_named_file(files.cert)
    check_named_file(files.key)
    # Not create_default_context: that one logs session keys where SSLKEYLOGFILE says.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # RFC 9325 section 3.1.1: TLS 1.0 and 1.1 must not be negotiated.
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if name else ssl.TLSVersion.TLSv1_2
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
    if name is not None:
        name.check(files.cert)
    return context


def check_key(path: Path) -> None:
    """Insist on a key that is no other party's to read or to change."""
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
