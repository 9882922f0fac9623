"""What a seal's associated data binds."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from secrets import token_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.errors import SealedError, UsageError
from agentvault_tui.gateway.secrets import SecretsSeal
from agentvault_tui.home import Home, put_private
from agentvault_tui.sealing import decode_keys, encode_keys
from agentvault_tui.tenant.store import TenantSeal


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home."""
    made = Home(tmp_path, tmp_path)
    made.prepare()
    return made


def test_owner_and_version_do_not_run_together() -> None:
    """Version 1 of ``a1`` is not version 11 of ``a``, though they spell the same."""
    seal = TenantSeal(bytes(32))
    box = seal.close("seed", "a1", 1, b"JBSWY3DP")
    assert seal.open("seed", "a1", 1, box) == b"JBSWY3DP"
    with pytest.raises(SealedError, match="does not open"):
        seal.open("seed", "a", 11, box)


def test_uses_of_the_team_key_do_not_open_each_other(home: Home) -> None:
    """What one use sealed with the team's key no other use opens, nor the home's."""
    put_private(home.team_key, token_bytes(32), replace=False)
    seal = TenantSeal.of(home, shared=True)
    box = seal.close("seed", "ann", 1, b"JBSWY3DP")
    assert TenantSeal.of(home, shared=True).open("seed", "ann", 1, box) == b"JBSWY3DP"
    for other in (SecretsSeal.of(home, shared=True), TenantSeal.of(home)):
        assert other.key_id != seal.key_id
        with pytest.raises(SealedError, match="does not open"):
            other.open("seed", "ann", 1, box)


def test_the_key_before_opens_and_never_seals(home: Home) -> None:
    """With two keys both open, the new one seals, and what it sealed stays as it is."""
    old, new = token_bytes(32), token_bytes(32)
    before = TenantSeal(old)
    box = before.close("seed", "ann", 1, b"JBSWY3DP")
    put_private(home.team_key, new + old, replace=False)
    both = TenantSeal.of(home, shared=True)
    assert both.open("seed", "ann", 1, box) == b"JBSWY3DP"
    assert both.key_id == TenantSeal(new).key_id
    assert both.derive("user code") == before.derive("user code")
    renewed = both.renewed("seed", "ann", 1, box)
    assert renewed is not None
    assert TenantSeal(new).open("seed", "ann", 1, renewed) == b"JBSWY3DP"
    assert both.renewed("seed", "ann", 1, renewed) is None
    for foreign in (TenantSeal(token_bytes(32)).close("seed", "ann", 1, b"x"), b""):
        with pytest.raises(SealedError, match="does not open"):
            both.renewed("seed", "ann", 1, foreign)


@pytest.mark.parametrize("content", [b"", b"k" * 31, b"k" * 33, b"k" * 128, None])
def test_a_team_key_that_is_none_is_not_made_anew(
    home: Home, content: bytes | None
) -> None:
    """A team key that is missing, cut short or too long is an error with a remedy."""
    if content is not None:
        put_private(home.team_key, content, replace=False)
    with pytest.raises(SealedError) as error:
        TenantSeal.of(home, shared=True)
    assert "agentvault team key import" in error.value.remedy
    assert home.team_key.exists() == (content is not None)


PASSPHRASE = "a fairly long passphrase: é"


@pytest.mark.slow
def test_exported_keys_open_with_their_passphrase_alone() -> None:
    """Another passphrase, another team and a changed file open nothing."""
    keys = [token_bytes(32), token_bytes(32)]
    content = encode_keys(keys, "payments", PASSPHRASE)
    assert decode_keys(content, "payments", lambda: PASSPHRASE) == keys
    other_form = unicodedata.normalize("NFD", PASSPHRASE)
    assert decode_keys(content, "payments", lambda: other_form) == keys
    assert all(key not in content for key in keys)
    with pytest.raises(SealedError, match="passphrase is not"):
        decode_keys(content, "payments", lambda: f"{PASSPHRASE} ")
    with pytest.raises(UsageError, match="another team"):
        decode_keys(content, "billing", lambda: PASSPHRASE)
    renamed = content.replace(b"payments", b"billing")
    with pytest.raises(SealedError, match="was changed"):
        decode_keys(renamed, "billing", lambda: PASSPHRASE)
    with pytest.raises(UsageError, match="fewer than"):
        encode_keys(keys, "payments", "elevenchars")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "agentvault-team-key/2"},
        {"memory_cost": 2**31},
        {"salt": ""},
        {"salt": "AAAA"},
        {"salt": "A" * 3000},
        {"box": 7},
        {"team": None},
    ],
)
def test_a_file_sets_no_parameter_of_its_own(change: dict[str, object]) -> None:
    """What is not of this version is refused before any key is derived."""
    whole = {"format": "agentvault-team-key/1", "team": "payments"}
    content = {**whole, "salt": "AAAAAAAAAAAAAAAAAAAAAA==", "box": "AAAA"}
    with pytest.raises(UsageError, match="no file of a team's key"):
        decode_keys(
            json.dumps(content | change).encode(), "payments", lambda: PASSPHRASE
        )


@given(st.integers(0, 300), st.binary(max_size=40))
def test_whatever_a_file_holds_is_refused_in_words(cut: int, more: bytes) -> None:
    """A file that is cut, lengthened or rubbish is an error of ours."""
    whole = (
        b'{"format":"agentvault-team-key/1","team":"t",'
        b'"salt":"AAAAAAAAAAAAAAAAAAAAAA==","box":"'
    )
    with pytest.raises(UsageError):
        decode_keys(whole[:cut] + more, "t", lambda: PASSPHRASE)
