"""A tenant brought to what AgentVault needs: compared, changed, read back.

`desired` says what should stand, `reading` what does, `plan` the difference;
`applying` makes it so; `checks` names what is wrong, and the remedy.
"""

from agentvault_tui.vault.device import sign_in
from agentvault_tui.vault.provision import checks
from agentvault_tui.vault.provision.applying import Provisioner
from agentvault_tui.vault.provision.needs import AgentNeed, Needs, Pin, TenantSurvey
from agentvault_tui.vault.provision.plan import PlanItem, PlanStep, ProvisioningPlan

__all__ = [
    "AgentNeed",
    "Needs",
    "Pin",
    "PlanItem",
    "PlanStep",
    "Provisioner",
    "ProvisioningPlan",
    "TenantSurvey",
    "checks",
    "sign_in",
]
