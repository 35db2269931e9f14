"""Checks of gradients that were written by hand, against differences of the loss."""

from rmsprop.gradient_checks.check import check_gradients
from rmsprop.gradient_checks.report import ArrayCheck, GradientCheck

__all__ = ["ArrayCheck", "GradientCheck", "check_gradients"]
