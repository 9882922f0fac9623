"""A tenant brought to AgentVault's needs: compared, changed, read back.

`desired` has the objects that should exist, `reading` the present ones, `plan` the
difference; `applying` makes it so; `checks` names the faults, and the remedy.
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
