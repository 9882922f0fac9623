"""CIBA at the tenant: a client asks, and a person answers on a page of the tenant's."""
