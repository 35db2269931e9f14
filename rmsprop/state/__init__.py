"""State: what an optimizer remembers between steps."""
