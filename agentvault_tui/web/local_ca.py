"""A certificate authority for one machine, for agents whose SDK insists on https."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agentvault_tui.clock import Clock
from agentvault_tui.console_settings import Switch
from agentvault_tui.errors import ConflictError, SettingsError
from agentvault_tui.home import Home, put_private
from agentvault_tui.origins import host_name
from agentvault_tui.settings import BrokerSettings
from agentvault_tui.web.tls import (
    TlsFiles,
    check_key,
    general_name,
    load_certificate,
    read_certificate,
    server_context,
)

_log = logging.getLogger("agentvault.web")

LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
CA_LIFE: Final = timedelta(days=3650)
LEAF_LIFE: Final = timedelta(days=365)
_SHOWN: Final = timedelta(days=30)
"""How long the proxy shows one certificate."""
_SKEW: Final = timedelta(minutes=5)
_LOOPBACK: Final = ipaddress.ip_network("127.0.0.0/8")


@dataclass(frozen=True, slots=True)
class CaFiles:
    """Where a home keeps its authority, and the certificate that made."""

    ca: Path
    ca_key: Path
    leaf: TlsFiles

    @classmethod
    def of(cls, home: Home, *, public: bool = False) -> CaFiles:
        """Name the files of *home*; they need not exist.

        Args:
            home: the home.
            public: whether the certificate is for other listeners than the agents',
                which shows the one there is under its name.
        """
        keys, other = home.keys, home.config / "tls"
        leaf = TlsFiles(keys / "tls-cert.pem", keys / "tls-key.pem")
        if public:
            leaf = TlsFiles(other / "cert.pem", other / "key.pem")
        return cls(keys / "tls-ca.pem", keys / "tls-ca-key.pem", leaf)


def chosen_files(home: Home, settings: BrokerSettings) -> TlsFiles | None:
    """Return the certificate of the agents' listener; None with plain HTTP."""
    if settings.tls is Switch.OFF:
        return None
    if settings.tls_cert and settings.tls_key:
        named = (Path(settings.tls_cert), Path(settings.tls_key))
        return TlsFiles(*(home.config / path.expanduser() for path in named))
    if settings.tls_cert or settings.tls_key:
        raise SettingsError(
            "a certificate and its key are named together",
            "give --tls-cert and --tls-key, or broker.tls_cert and broker.tls_key",
        )
    files = CaFiles.of(home).leaf
    if files.cert.exists():
        return files
    if settings.tls is Switch.ON:
        raise SettingsError(
            "TLS is asked for and there is no certificate",
            "agentvault tls init makes one; --tls-cert and --tls-key name another",
        )
    return None


def renew(
    home: Home,
    names: Iterable[str] = (),
    *,
    now: datetime,
    new_ca: bool = False,
    public: bool = False,
) -> bool:
    """Make the certificate of a listener of this home, and its authority if need be.

    Without *names*, those of the certificate before stay.

    Args:
        home: the home with the ``keys`` folder; private already.
        names: DNS names and addresses next to those of loopback.
        now: from when on it counts, some minutes of a wrong clock aside.
        new_ca: put a new authority in the place of the one there is.
        public: whether it is for other listeners than the agents'.

    Returns:
        whether the authority is a new one, which agents do not know yet.

    Raises:
        UsageError: a name is none.
        ConflictError: the authority may not sign these names, or half of it is missing,
            or it has ended, or the agents' listener uses a certificate of it.
        SettingsError: a file cannot be read or written.
    """
    files = CaFiles.of(home, public=public)
    if public and new_ca and CaFiles.of(home).leaf.cert.exists():
        raise ConflictError(
            "agents trust this authority",
            "replace it with their certificate: agentvault tls init --new-ca --name"
            " NAME; then this one",
        )
    more = [host_name(name) for name in names]
    wanted = tuple(dict.fromkeys((*LOCAL_NAMES, *more)))
    if not more and files.leaf.cert.exists() and not new_ca:
        wanted = read_certificate(files.leaf.cert).names
    present = files.ca.exists(), files.ca_key.exists()
    if any(present) and not all(present) and not new_ca:
        lost = files.ca_key if present[0] else files.ca
        raise ConflictError(
            f"half of the authority is missing: {lost}",
            "put it back, or replace the authority with --new-ca: agents must then "
            "be given the new one",
        )
    made = new_ca or not any(present)
    if made:
        _make_ca(files, wanted, now, replace=new_ca)
    ca, ca_key = _authority(files, now)
    if foreign := _find_foreign(ca, wanted):
        raise ConflictError(
            f"this home directory's authority may not vouch for {foreign}",
            _replacement(CaFiles.of(home).leaf, more, public=public),
        )
    files.leaf.key.parent.mkdir(mode=0o700, exist_ok=True)
    _make_leaf(files.leaf, ca, ca_key, wanted, now)
    return made


def _make_ca(
    files: CaFiles, names: tuple[str, ...], now: datetime, *, replace: bool
) -> None:
    """Make an authority for *names* alone, or without any for every name."""
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own: a verifier finds an issuer by name, and there may be a next.
    kind = "local" if names else "gateway"
    name = _subject(f"AgentVault {kind} CA {secrets.token_hex(4)}")
    builder = (
        _builder(name, name, key.public_key(), now, now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    if names:
        # RFC 5280 section 4.2.1.10: a stolen key vouches for this machine alone, and
        # not for the sites an agent that trusts it talks to.
        limits = x509.NameConstraints(_permitted(names), None)
        builder = builder.add_extension(limits, critical=True)
    ca = builder.sign(key, hashes.SHA256())
    _write(files.ca_key, _pem_key(key), replace=replace)
    _write(files.ca, ca.public_bytes(serialization.Encoding.PEM), replace=replace)


def _authority(
    files: CaFiles, now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    ca, key = load_certificate(files.ca), _load_key(files.ca_key)
    if ca.public_key() != key.public_key():
        raise SettingsError(
            f"{files.ca_key} is not the key of {files.ca}",
            "put the right one back, or replace the authority with --new-ca",
        )
    if ca.not_valid_after_utc <= now:
        raise ConflictError(
            f"this home's authority ended on {ca.not_valid_after_utc:%Y-%m-%d}",
            "add --new-ca to make another: agents must then be given it",
        )
    return ca, key


def _make_leaf(
    files: TlsFiles,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...],
    now: datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    ends = min(now + LEAF_LIFE, ca.not_valid_after_utc)
    subject = _subject("AgentVault agents' listener")
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    alternative = x509.SubjectAlternativeName([general_name(name) for name in names])
    leaf = (
        _builder(subject, ca.subject, key.public_key(), now, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(alternative, critical=False)
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    # The key first: a broker that reads between the two keeps what it had.
    _write(files.key, _pem_key(key), replace=True)
    _write(files.cert, leaf.public_bytes(serialization.Encoding.PEM), replace=True)


class ProxyAuthority:
    """Vouches for services' hosts towards agents that use the forward proxy.

    An agent trusts it for every name, so its key is stored like a root key: 0600 in the
    home's folder of keys, read by the broker alone.
    """

    def __init__(self, home: Home, clock: Clock) -> None:
        """Read the authority of *home*, or make one; publish its certificate.

        Raises:
            SettingsError: a file cannot be written.
        """
        keys = home.keys
        self._clock = clock
        self.published = home.run / "gateway-ca.pem"
        """Where agents find the certificate."""
        self._files = CaFiles(
            keys / "gateway-ca.pem",
            keys / "gateway-ca-key.pem",
            TlsFiles(home.run / "gateway-leaf.pem", keys / "gateway-leaf-key.pem"),
        )
        self._contexts: dict[str, tuple[datetime, ssl.SSLContext]] = {}
        now = clock.now()
        try:
            self._ca, self._key = _authority(self._files, now)
        except (ConflictError, SettingsError) as error:
            if self._files.ca.exists():
                _log.warning("a new authority is made: %s", error.what)
            _make_ca(self._files, (), now, replace=True)
            self._ca, self._key = _authority(self._files, now)
        self.pem = self._ca.public_bytes(serialization.Encoding.PEM)
        _write(self.published, self.pem, replace=True)

    def context(self, host: str) -> ssl.SSLContext:
        """Return the TLS context for a client that asks for *host*.

        Raises:
            SettingsError: no certificate can be written.
        """
        now = self._clock.now()
        made, context = self._contexts.get(host, (now, None))
        if context is None or not timedelta() <= now - made < _SHOWN:
            leaf = self._files.leaf
            _make_leaf(leaf, self._ca, self._key, (host,), now)
            context = server_context(leaf)
            context.sni_callback = _keep_sni
            for path in (leaf.cert, leaf.key):
                path.unlink(missing_ok=True)
            self._contexts[host] = now, context
        return context


def _keep_sni(
    connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext
) -> None:
    connection.asked_name = name  # type: ignore[union-attr]


def asked_name(transport: asyncio.BaseTransport) -> str | None:
    """Return the name that a client asked for in its handshake (RFC 6066 section 3)."""
    name = getattr(transport.get_extra_info("ssl_object"), "asked_name", None)
    return None if name is None else str(name)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _permitted(names: tuple[str, ...]) -> list[x509.GeneralName]:
    subtrees: list[x509.GeneralName] = [x509.IPAddress(_LOOPBACK)]
    for name in names:
        general = general_name(name)
        if isinstance(general, x509.DNSName):
            subtrees.append(general)
        elif (address := ipaddress.ip_address(name)) not in _LOOPBACK:
            subtrees.append(x509.IPAddress(ipaddress.ip_network(address)))
    return subtrees


def _replacement(agents: TlsFiles, names: list[str], *, public: bool) -> str:
    """Word the replacement of the authority; it also replaces the agents' certificate.

    A certificate of the authority for agents has to be made before a public one.
    """
    chosen, again = " --public" if public else "", ""
    if agents.cert.exists():
        before = read_certificate(agents.cert).names
        names = [*(one for one in before if one not in LOCAL_NAMES), *names]
        chosen, again = "", "; then run this again" if public else ""
    line = "".join(f" --name {name}" for name in dict.fromkeys(names))
    return (
        f"replace it with `agentvault tls init --new-ca{chosen}{line}`, and give the "
        f"new one to all that trust the old one{again}"
    )


def _find_foreign(ca: x509.Certificate, names: tuple[str, ...]) -> str | None:
    """Find a name outside the authority's constraints: clients say no reason."""
    try:
        limits = ca.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return None  # not one of ours; it has no limits
    permitted = limits.permitted_subtrees or []
    outside = (n for n in names if not any(_covers(tree, n) for tree in permitted))
    return next(outside, None)


def _covers(tree: x509.GeneralName, name: str) -> bool:
    general = general_name(name)
    if isinstance(tree, x509.DNSName) and isinstance(general, x509.DNSName):
        return name == tree.value or name.endswith("." + tree.value)
    if isinstance(tree, x509.IPAddress) and isinstance(general, x509.IPAddress):
        return ipaddress.ip_address(name) in ipaddress.ip_network(tree.value)
    return False


def _subject(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    check_key(path)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Not chained: what cannot be parsed could still be half a key.
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SettingsError(
            f"{path} is not the key of an authority of ours",
            "put it back, or replace the authority with --new-ca",
        )
    return key


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes, *, replace: bool) -> None:
    """Put a whole file in place, 0600 from its first moment."""
    try:
        put_private(path, content, replace=replace)
    except FileExistsError as error:
        raise ConflictError(
            f"{path} exists already", "it is not overwritten"
        ) from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be written ({error.strerror})") from error
