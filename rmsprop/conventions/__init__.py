"""Conventions: the RMSprop of any other framework by name, with its arguments, numbers and saved state."""

from rmsprop.conventions.functions import autograd, jax, julia, optax
from rmsprop.conventions.keras_state import weights_from_keras, weights_to_keras
from rmsprop.conventions.layers import chainer, chainer_graves, mxnet
from rmsprop.conventions.optax_state import weights_from_optax, weights_to_optax
from rmsprop.conventions.pytorch import bitsandbytes, timm, torch
from rmsprop.conventions.tensorflow import keras, keras_legacy, paddle, tensorflow1
from rmsprop.conventions.torch_state import weights_from_torch, weights_to_torch

__all__ = [
    "autograd",
    "bitsandbytes",
    "chainer",
    "chainer_graves",
    "jax",
    "julia",
    "keras",
    "keras_legacy",
    "mxnet",
    "optax",
    "paddle",
    "tensorflow1",
    "timm",
    "torch",
    "weights_from_keras",
    "weights_from_optax",
    "weights_from_torch",
    "weights_to_keras",
    "weights_to_optax",
    "weights_to_torch",
]


def __dir__() -> list[str]:
    return __all__
