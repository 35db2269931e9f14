"""Settings: what an optimizer is told."""
