"""Profiles of Hypothesis: few examples by default, many with ``--hypothesis-profile=thorough``."""

from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=400)
settings.register_profile("thorough", deadline=None, max_examples=20_000)
settings.load_profile("default")
