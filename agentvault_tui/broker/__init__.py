"""Where policy, ledger and tenant meet: request, step up, decide, redeem, revoke.

The use-cases are plain functions; the agents' and the operators' HTTP are thin faces.
"""
