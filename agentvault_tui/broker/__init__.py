"""The agents' authorization server: use-cases as functions, and HTTP over them."""
