"""Read certificates, and check the names that one may hold."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from agentvault_tui.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says."""

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
        found = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
        names = tuple(
            str(each.value)
            for each in found
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
