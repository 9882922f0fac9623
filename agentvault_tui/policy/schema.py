"""The Cedar schema that a policy is checked against, written from the catalogue."""

from __future__ import annotations

from typing import Final

from agentvault_tui.model import Risk
from agentvault_tui.policy.catalogue import Catalogue, Effect

EFFECT_GROUPS: Final = {
    Effect.READ: "reads",
    Effect.WRITE: "writes",
    Effect.SEND: "sends",
    Effect.DELETE: "deletions",
    Effect.PAY: "payments",
}
RISK_GROUPS: Final = {risk: f"{risk}-risk" for risk in Risk}
BULK_GROUP: Final = "bulk"

_HEAD: Final = """\
// An agent as registered; its name is its own claim.
entity Agent { name: String, owner: String, scopes: Set<String> };
// Whatever the request names; also in context.resource, for `like`.
entity Resource;
type Request = {
  // Every scope of the request, and the one the action is performed under.
  scopes: Set<String>,
  performs: String,
  resource?: String,
  // Present only when the agent sent them and they are well-formed.
  recipients?: Long,
  amount?: Long,      // in the unit the agent's resource server uses
  currency?: String,
  count?: Long,
  // Names of those that were sent and cannot be relied on.
  unclear: Set<String>,
};
"""


def schema_text(catalogue: Catalogue) -> str:
    """Write the schema: each scope is an action, in groups by risk, effect and reach.

    A rule that names a scope the catalogue lacks then fails when it is loaded, and
    not by never matching.
    """
    groups = action_groups(catalogue)
    every = ", ".join(f'"{group}"' for group in groups)
    applies = "appliesTo { principal: Agent, resource: Resource, context: Request };"
    lines = [_HEAD, f"action {every};"]
    # Cedar refuses a rule on a group without members; this one is in all of them and,
    # having no colon, is never asked for.
    lines.append(f'action "nothing" in [{every}] {applies}')
    for scope in catalogue:
        member = ", ".join(
            f'"{g}"' for g, names in groups.items() if scope.name in names
        )
        lines.append(f'action "{scope.name}" in [{member}] {applies}')
    return "\n".join(lines) + "\n"


def action_groups(catalogue: Catalogue) -> dict[str, list[str]]:
    """Return the groups of actions a rule may name, with the scopes in each."""
    groups: dict[str, list[str]] = {
        group: []
        for group in (*EFFECT_GROUPS.values(), *RISK_GROUPS.values(), BULK_GROUP)
    }
    for scope in catalogue:
        groups[EFFECT_GROUPS[catalogue.effect(scope.name)]].append(scope.name)
        groups[RISK_GROUPS[scope.risk]].append(scope.name)
        if catalogue.is_bulk(scope.name):
            groups[BULK_GROUP].append(scope.name)
    return groups
