"""docs/auth0.md names what the commands need, and the code what the docs name."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from agentvault_tui.model.claims import MFA_AT, ROLES
from agentvault_tui.settings import TenantSettings
from agentvault_tui.vault.provision import AgentNeed, Needs, Pin, actions, names
from agentvault_tui.vault.provision.needs import READING_SCOPES, writing_scopes

DOCS = Path(__file__).parents[3] / "docs"
TEXT = (DOCS / "auth0.md").read_text()
ALL = Needs(
    agents=(AgentNeed("agt_1", "a", (Pin("c", ("s",)),)),), change_mfa_policy=True
)


def test_the_docs_name_every_scope() -> None:
    """No more and no fewer than the commands ask for."""
    said = set(re.findall(r"\b(?:create|read|update|delete):[a-z_]+", TEXT))
    assert said == {*READING_SCOPES, *writing_scopes(ALL)}


def test_the_docs_name_every_tenant_setting() -> None:
    """Each key has its row, but for those of the embedded tenant alone."""
    names = {one.name for one in fields(TenantSettings)}
    embedded = {"listen", "url", "tls_cert", "tls_key"}
    assert {name for name in names if f"`{name}`" not in TEXT} == embedded


def test_the_actions_use_the_codes_claims_and_roles() -> None:
    """Claims, roles and mark are written in two languages: here they meet."""
    proof, challenge = actions.PROOF.code, actions.CHALLENGE.code
    for word in (MFA_AT, ROLES, names.ROLE_PREFIX, *names.ROLES):
        assert f'"{word}"' in proof, word
    for code in (proof, challenge):
        asked = rf'metadata\?\.{names.MARK} [!=]== "{names.CONSOLE}"'
        assert re.search(asked, code)
        listed = re.search(r"const FACTORS = \[(.*?)\]", code)
        assert listed is not None
        assert set(re.findall(r'"([^"]+)"', listed[1])) == set(names.FACTORS)
