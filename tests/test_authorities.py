"""A ``ca_file`` is read with the file that names it, and has part in its digest."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.needs import as_root

from agentvault_tui.authorities import (
    named_files,
    read_source,
    render_source,
    source_of,
    split_source,
)
from agentvault_tui.errors import ServiceError
from agentvault_tui.home import Home
from agentvault_tui.model import sha256_hex
from agentvault_tui.web.local_ca import CaFiles, renew

TEXT = 'ca_file = "ca.pem"\n[sinks.a]\nca_file = "~/b.pem"\n'


@pytest.fixture
def pem(short: Path, tmp_path: Path) -> Path:
    """The certificate of an authority, in a folder of ours."""
    home = Home.locate(short / "tls")
    home.prepare()
    renew(home, now=datetime.now(UTC))
    (tmp_path / "home").mkdir()
    path = tmp_path / "ca.pem"
    path.write_bytes(CaFiles.of(home).ca.read_bytes())
    path.chmod(0o644)
    return path


def test_each_named_file_is_found_at_any_depth() -> None:
    """Relative to the base, and to the user's own folder; a broken file names none."""
    assert named_files(TEXT, Path("/base")) == {
        "ca.pem": Path("/base/ca.pem"),
        "~/b.pem": Path("~/b.pem").expanduser(),
    }
    assert named_files("ca_file = [", Path("/base")) == {}
    assert named_files('ca_file = ""\n', Path("/base")) == {}


def test_a_source_has_its_text_and_certificates(pem: Path) -> None:
    """They are joined, split again as they were, and shown by the digest."""
    text = 'ca_file = "ca.pem"\n'
    source = read_source(text, pem.parent)
    assert split_source(source) == (text, {"ca.pem": pem.read_text()})
    assert source_of(source, Path("/nowhere")) == source
    sha256 = sha256_hex(pem.read_text())
    assert render_source(source) == f"{text}# ca.pem has SHA-256 {sha256}\n"
    assert render_source("a = 1\n") == "a = 1\n"


def test_a_file_cannot_bring_authorities_of_its_own(pem: Path) -> None:
    """The character that begins them in a source is refused in a text."""
    forged = f'ca_file = "x.pem"\n\x1ex.pem\n{pem.read_text()}'
    with pytest.raises(ServiceError, match="control character"):
        read_source(forged, pem.parent)


@pytest.mark.parametrize("mode", [0o666, 0o662, 0o660])
def test_a_file_that_others_could_write_vouches_for_nothing(
    pem: Path, mode: int
) -> None:
    """The error names the file and the remedy."""
    pem.chmod(mode)
    with pytest.raises(ServiceError, match="others can write to") as refused:
        read_source('ca_file = "../ca.pem"', pem.parent / "home")
    assert "chmod 600 " in refused.value.diagnosis()


@as_root
def test_a_file_of_another_user_vouches_for_nothing(pem: Path) -> None:
    """Its owner may change it at any time."""
    os.chown(pem, 54_321, 54_321)
    with pytest.raises(ServiceError, match="who can change it"):
        read_source('ca_file = "ca.pem"', pem.parent)


def test_a_file_without_certificates_is_refused(pem: Path) -> None:
    """So is one that is not there, or larger than any list of authorities."""
    for content, why in (
        (b"nothing", "holds no certificates"),
        (b"x" * (512 * 1024 + 1), "is larger than"),
    ):
        pem.write_bytes(content)
        with pytest.raises(ServiceError, match=why):
            read_source('ca_file = "ca.pem"', pem.parent)
    pem.unlink()
    with pytest.raises(ServiceError, match="does not exist"):
        read_source('ca_file = "ca.pem"', pem.parent)
