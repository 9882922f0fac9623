"""What service files of several rooms' tests say."""

from __future__ import annotations

TRANSFERS = """
[[routes]]
method = "POST"
path = "/v1/transfers/{destination}"
scope = "send:payment"
resource = "stripe:{destination}"
[routes.parameters]
amount = "body:/amount"
currency = "body:/currency"
"""
"""A route for payments, whose table of parameters comes last."""
