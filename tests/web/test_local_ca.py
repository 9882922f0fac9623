"""The home's own authority: what it makes, and what it never overwrites."""

from __future__ import annotations

import contextlib
import os
import ssl
import stat
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from support.manual_clock import ManualClock

from agentvault_tui.console_settings import Switch
from agentvault_tui.errors import ConflictError, SettingsError, UsageError
from agentvault_tui.home import Home
from agentvault_tui.origins import host_name
from agentvault_tui.settings import BrokerSettings
from agentvault_tui.web import local_ca
from agentvault_tui.web.local_ca import (
    CA_LIFE,
    LEAF_LIFE,
    CaFiles,
    ProxyAuthority,
    chosen_files,
)
from agentvault_tui.web.tls import pem_of, read_certificate, server_context

NOW = datetime.now(UTC)
renew = partial(local_ca.renew, now=NOW)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.locate(tmp_path / "home")
    home.prepare()
    return home


def test_the_authority_and_the_certificate_have_the_right_extensions(
    home: Home,
) -> None:
    """A P-256 authority for this machine alone, and a certificate for loopback."""
    assert renew(home) is True
    files = CaFiles.of(home)
    found = read_certificate(files.leaf.cert)
    assert found.names == ("localhost", "127.0.0.1", "::1")
    assert (found.starts, found.ends) == (
        NOW.replace(microsecond=0) - timedelta(minutes=5),
        NOW.replace(microsecond=0) + LEAF_LIFE,
    )
    ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
    key = ca.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    basic = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 0)
    limits = ca.extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    assert [str(tree.value) for tree in limits.value.permitted_subtrees or []] == [
        "127.0.0.0/8",
        "localhost",
        "::1/128",
    ]


def test_a_stolen_authority_vouches_for_no_other_site(home: Home) -> None:
    """A leaf for another name, signed by its key, is refused by who trusts it."""
    renew(home)
    files = CaFiles.of(home)
    ca, ca_key = local_ca._authority(files, NOW)
    trust = ssl.create_default_context(cafile=str(files.ca))
    shake_hands(trust, files, "127.0.0.1")
    for forged in ("api.example.com", "93.184.216.34", "notlocalhost"):
        local_ca._make_leaf(files.leaf, ca, ca_key, (forged,), NOW)
        with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree"):
            shake_hands(trust, files, forged)


def shake_hands(trust: ssl.SSLContext, files: CaFiles, name: str) -> None:
    """Let a client that trusts the authority meet a server with the leaf."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(down, up, server_hostname=name)
    context = server_context(files.leaf)
    server = context.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for end in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert client.version() == "TLSv1.3"


def test_modes_hold_under_any_umask(home: Home) -> None:
    """Every file is 0600 with a umask of 000, and no draft is left behind."""
    before = os.umask(0)
    try:
        renew(home)
        renew(home, new_ca=True)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in _all(home)}
    assert modes == dict.fromkeys(
        ("tls-ca.pem", "tls-ca-key.pem", "tls-cert.pem", "tls-key.pem"), 0o600
    )


def test_renewing_keeps_the_authority_and_the_names(home: Home) -> None:
    """A second run makes another certificate, trusted by who trusted the first."""
    renew(home, ["127.0.0.2"])
    files = CaFiles.of(home)
    ca, first = files.ca.read_bytes(), read_certificate(files.leaf.cert)
    assert renew(home) is False
    second = read_certificate(files.leaf.cert)
    assert files.ca.read_bytes() == ca
    assert second.names == first.names == ("localhost", "127.0.0.1", "::1", "127.0.0.2")
    assert second.fingerprint != first.fingerprint


def test_an_authority_that_has_ended_is_not_replaced_silently(home: Home) -> None:
    """Agents must be given the next one, so someone decides; nothing is made."""
    renew(home)
    before = {path.name: path.read_bytes() for path in _all(home)}
    with pytest.raises(ConflictError, match="authority ended on") as error:
        renew(home, now=NOW + CA_LIFE)
    assert "--new-ca" in error.value.remedy
    assert {path.name: path.read_bytes() for path in _all(home)} == before
    assert renew(home, now=NOW + CA_LIFE, new_ca=True)


def test_a_certificate_ends_no_later_than_its_authority(home: Home) -> None:
    """Made in the authority's last year, it is the shorter-lived of the two."""
    renew(home)
    files = CaFiles.of(home)
    renew(home, now=NOW + CA_LIFE - timedelta(days=1))
    ends = read_certificate(files.ca).ends
    assert read_certificate(files.leaf.cert).ends == ends


def test_an_authority_is_replaced_only_by_name(home: Home) -> None:
    """A name it may not vouch for is refused with the remedy; --new-ca then does."""
    renew(home)
    files = CaFiles.of(home)
    before = {path.name: path.read_bytes() for path in _all(home)}
    with pytest.raises(ConflictError, match="may not vouch") as error:
        renew(home, ["broker.test"])
    assert "--new-ca" in error.value.remedy
    assert {path.name: path.read_bytes() for path in _all(home)} == before
    assert renew(home, ["broker.test"], new_ca=True) is True
    assert files.ca.read_bytes() != before["tls-ca.pem"]
    assert "broker.test" in read_certificate(files.leaf.cert).names


def test_the_command_that_replaces_an_authority_works(home: Home) -> None:
    """The error of a public name has the command, with the agents' names."""
    renew(home, ["broker.test"])
    with pytest.raises(ConflictError, match="may not vouch for ops") as error:
        renew(home, ["ops.test"], public=True)
    line = "agentvault tls init --new-ca --name broker.test --name ops.test"
    assert f"`{line}`" in error.value.remedy
    assert error.value.remedy.endswith("then run this again")
    renew(home, ["broker.test", "ops.test"], new_ca=True)
    renew(home, ["ops.test"], public=True)
    assert "ops.test" in read_certificate(CaFiles.of(home, public=True).leaf.cert).names


def test_an_authority_without_agents_is_replaced_with_the_public_one(
    home: Home,
) -> None:
    """If agents have no certificate, the command makes none for them."""
    renew(home, ["ops.test"], public=True)
    with pytest.raises(ConflictError) as error:
        renew(home, ["other.test"], public=True)
    assert "--new-ca --public --name other.test`" in error.value.remedy
    renew(home, ["other.test"], public=True, new_ca=True)
    assert not CaFiles.of(home).leaf.cert.exists()


@pytest.mark.parametrize("lost", ["tls-ca.pem", "tls-ca-key.pem"])
def test_half_an_authority_is_not_made_whole_silently(home: Home, lost: str) -> None:
    """With one of the two gone, nothing is made until someone decides."""
    renew(home)
    (home.keys / lost).unlink()
    with pytest.raises(ConflictError, match="half of the authority is missing"):
        renew(home)
    assert not (home.keys / lost).exists()


def test_a_damaged_or_open_key_is_named(home: Home) -> None:
    """Another's key, rubbish and a mode others can read are errors, not tracebacks."""
    renew(home)
    files = CaFiles.of(home)
    good = files.ca_key.read_bytes()
    files.ca_key.write_bytes(files.leaf.key.read_bytes())
    with pytest.raises(SettingsError, match="is not the key of"):
        renew(home)
    files.ca_key.write_bytes(good[: len(good) // 2])
    with pytest.raises(SettingsError, match="not the key of an authority") as error:
        renew(home)
    assert error.value.__cause__ is None
    files.ca_key.write_bytes(good)
    files.ca_key.chmod(0o644)
    with pytest.raises(SettingsError, match="open to others"):
        renew(home)


def test_only_the_certificate_is_printed(home: Home) -> None:
    """A key in the same file never comes out with it."""
    renew(home)
    files = CaFiles.of(home)
    both = files.ca_key.read_bytes() + files.ca.read_bytes()
    files.ca.write_bytes(both)
    assert "PRIVATE" not in pem_of(files.ca)
    assert ssl.PEM_cert_to_DER_cert(pem_of(files.ca))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("LocalHost.", "localhost"),
        ("[::1]", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        (" 127.0.0.2 ", "127.0.0.2"),
        ("vault.ops.example", "vault.ops.example"),
    ],
)
def test_names_have_one_spelling(text: str, name: str) -> None:
    """However it is typed, a name stands in the certificate once."""
    assert host_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "*", "*.test", "a..b", "-a", "a-", "a:7717", "https://a", "a b"),
        *(
            "1.2.3",
            "256.1.1.1",
            "::ffff:127.0.0.1",
            "fe80::1%eth0",
            "ä.test",
            "a\x00b",
            "a\n.b",
        ),
        *("a" * 64, "a." * 130),
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    """Wildcards, ports, URLs, scopes and what no resolver takes are usage errors."""
    with pytest.raises(UsageError):
        host_name(text)


@given(st.text(max_size=40))
def test_a_name_is_stable_or_refused(text: str) -> None:
    """Whatever is typed: a name, which is then its own spelling, or a usage error."""
    try:
        name = host_name(text)
    except UsageError:
        return
    assert host_name(name) == name
    assert name.isascii()


def test_serve_chooses_the_certificate_by_the_settings(home: Home) -> None:
    """Off is off; named files win over the home's; half a pair is refused."""
    assert chosen_files(home, BrokerSettings()) is None
    with pytest.raises(SettingsError, match="there is no certificate"):
        chosen_files(home, BrokerSettings(tls=Switch.ON))
    renew(home)
    own = CaFiles.of(home).leaf
    assert chosen_files(home, BrokerSettings()) == own
    assert chosen_files(home, BrokerSettings(tls=Switch.OFF)) is None
    named = chosen_files(home, BrokerSettings(tls_cert="c.pem", tls_key="/k.pem"))
    assert named is not None
    assert (named.cert, named.key) == (home.config / "c.pem", Path("/k.pem"))
    with pytest.raises(SettingsError, match="together"):
        chosen_files(home, BrokerSettings(tls_cert="c.pem"))


def _all(home: Home) -> list[Path]:
    return sorted(home.keys.iterdir())


def test_the_proxys_authority_is_kept_until_it_ends_or_is_broken(home: Home) -> None:
    """Programs that trust it go on; what cannot be used any more is replaced."""
    clock = ManualClock(NOW)
    first = ProxyAuthority(home, clock).pem
    assert ProxyAuthority(home, clock).pem == first
    (home.run / "gateway-ca.pem").unlink()
    assert ProxyAuthority(home, clock).published.read_bytes() == first
    key = home.keys / "gateway-ca-key.pem"
    key.chmod(0o644)
    second = ProxyAuthority(home, clock).pem
    assert second != first, "a key that others could read is used on"
    key.unlink()
    third = ProxyAuthority(home, clock).pem
    assert third != second
    clock.advance(CA_LIFE.total_seconds() + 60)
    assert ProxyAuthority(home, clock).pem != third


def test_the_proxy_shows_a_host_one_certificate_for_a_month(home: Home) -> None:
    """It is made anew long before it ends, and its key is nowhere on disk."""
    clock = ManualClock(NOW)
    authority = ProxyAuthority(home, clock)
    first = authority.context("api.test")
    assert authority.context("api.test") is first
    assert authority.context("other.test") is not first
    clock.advance(timedelta(days=31).total_seconds())
    assert authority.context("api.test") is not first
    left = [path.name for path in (*home.keys.iterdir(), *home.run.iterdir())]
    assert [name for name in left if "leaf" in name] == []
