"""Minimisation: the loop around an optimizer, with the interface of SciPy."""
