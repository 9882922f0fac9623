"""Where an operator decides: each dialog one class, all over `base.Dialog`."""
