"""A tenant brought to what AgentVault needs: compared, changed, read back.

`desired` says what should stand, `survey` what does, `plan` the difference;
`applying` makes it so; `checks` names what is wrong, and the remedy.
"""

from agentvault_tui.vault.provision import checks, scopes, show
from agentvault_tui.vault.provision.found import Found
from agentvault_tui.vault.provision.login import sign_in
from agentvault_tui.vault.provision.needs import AgentNeed, Needs, Pin
from agentvault_tui.vault.provision.plan import PlanItem, PlanStep, ProvisioningPlan
from agentvault_tui.vault.provision.provisioner import Provisioner

__all__ = [
    "AgentNeed",
    "Found",
    "Needs",
    "Pin",
    "PlanItem",
    "PlanStep",
    "Provisioner",
    "ProvisioningPlan",
    "checks",
    "scopes",
    "show",
    "sign_in",
]
