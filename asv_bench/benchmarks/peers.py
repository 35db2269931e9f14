"""The peers of rmsprop: RMSprop in NumPy, torch, optax, tf_keras and Keras 3.

All compute the formula of Keras, but for torch: there `epsilon` stands outside of the root with momentum, too,
and the learning rate outside of the momentum buffer. Weight decay of Keras 3 is decoupled, that of all others is
added to the gradient. Gradients come from outside, as those that rmsprop is made
for, so that compiled steps get them as arguments. All use the threads that they choose themselves.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.contenders import EPSILON, LEARNING_RATE, RHO, Contender
from benchmarks.numpy_in_place import NumPyInPlace, rows_step
from benchmarks.scenarios import draw, draw_rows


class Peer(NamedTuple):
    package: str
    build: Callable[[Any], Contender]
    enters: Callable[[Any], bool]
    """Tells whether it takes part in a scenario."""


def is_dense(scenario):
    return not scenario.listed and "state_dtype" not in scenario.settings


def is_of_keras(scenario):
    return is_full(scenario) and "weight_decay" not in scenario.settings


def has_weight_decay(scenario):
    return "weight_decay" in scenario.settings


def is_full(scenario):
    return "state_dtype" not in scenario.settings


def is_quickly_compiled(scenario):
    """Tell whether XLA takes seconds to compile a step, not half a minute."""
    return is_dense(scenario) and is_of_keras(scenario) and len(scenario.shapes) < 200


def numpy_in_place(scenario):
    if scenario.listed:
        values, indices = draw_rows(scenario)
        table, rms = (np.zeros(scenario.shapes[0], np.float32) for _ in range(2))
        return Contender(partial(rows_step, values, indices, table, rms, LEARNING_RATE, RHO, EPSILON))
    optimizer = NumPyInPlace(scenario.shapes, LEARNING_RATE, RHO, EPSILON, **scenario.settings)
    gradients = draw(scenario.shapes)
    current = gradients

    def step():
        optimizer.step(current)

    def renew():
        nonlocal current
        current = [g.copy() for g in gradients]

    return Contender(step, renew)


def torch(scenario, is_foreach):
    import torch

    settings = dict(scenario.settings)
    clipnorm = settings.pop("global_clipnorm", None)
    variables = [torch.zeros(shape) for shape in scenario.shapes]
    gradients = [torch.from_numpy(g) for g in draw(scenario.shapes)]
    optimizer = torch.optim.RMSprop(variables, LEARNING_RATE, RHO, EPSILON, foreach=is_foreach, **settings)

    def renew():
        for v, g in zip(variables, gradients, strict=True):
            v.grad = g.clone()

    def clipped_step():
        torch.nn.utils.clip_grad_norm_(variables, clipnorm, foreach=is_foreach)
        optimizer.step()

    renew()
    return Contender(optimizer.step if clipnorm is None else clipped_step, renew)


def optax(scenario):
    import jax
    import optax

    settings = dict(scenario.settings)
    clipnorm = settings.pop("global_clipnorm", None)
    before = [] if clipnorm is None else [optax.clip_by_global_norm(clipnorm)]
    if "weight_decay" in settings:
        before.append(optax.add_decayed_weights(settings.pop("weight_decay")))
    is_inside = "momentum" in settings
    optimizer = optax.chain(*before, optax.rmsprop(LEARNING_RATE, RHO, EPSILON, eps_in_sqrt=is_inside, **settings))
    variables = [jax.numpy.zeros(shape) for shape in scenario.shapes]
    state = optimizer.init(variables)
    gradients = current = [jax.numpy.array(g) for g in draw(scenario.shapes)]

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(variables, state, gradients):
        updates, state = optimizer.update(gradients, state, variables)
        return optax.apply_updates(variables, updates), state

    def step():
        nonlocal variables, state
        variables, state = update(variables, state, current)
        variables[0].block_until_ready()  # and with it all others, as they come from one program

    def renew():
        nonlocal current
        current = [g.copy() for g in gradients]

    return Contender(step, renew)


def keras(scenario, is_xla):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from tf_keras.optimizers.legacy import RMSprop

    optimizer = RMSprop(LEARNING_RATE, RHO, epsilon=EPSILON, **scenario.settings)
    variables = [tf.Variable(tf.zeros(shape)) for shape in scenario.shapes]
    gradients = draw_rows(scenario) if scenario.listed else draw(scenario.shapes)
    current = [tf.constant(g) for g in gradients]
    optimizer._create_all_weights(variables)

    @tf.function(jit_compile=is_xla)
    def update(*tensors):
        slices = [tf.IndexedSlices(*tensors)] if scenario.listed else tensors
        optimizer.apply_gradients(zip(slices, variables, strict=True))

    program = update.get_concrete_function(*current)  # a third faster to call, for small arrays

    def step():
        program(*current)

    def renew():
        nonlocal current
        current = [tf.constant(g) for g in gradients]

    return Contender(step, renew)


def keras_3(scenario):
    os.environ["KERAS_BACKEND"] = "jax"  # of which it compiles all of a step
    import jax
    import keras

    optimizer = keras.optimizers.RMSprop(LEARNING_RATE, RHO, epsilon=EPSILON, **scenario.settings)
    optimizer.build([keras.Variable(np.zeros(shape, np.float32)) for shape in scenario.shapes])
    variables = [jax.numpy.zeros(shape) for shape in scenario.shapes]
    state = [jax.numpy.array(variable.value) for variable in optimizer.variables]
    gradients = current = [jax.numpy.array(g) for g in draw(scenario.shapes)]
    update = jax.jit(optimizer.stateless_apply, donate_argnums=(0, 2))

    def step():
        nonlocal variables, state
        variables, state = update(state, current, variables)
        variables[0].block_until_ready()

    def renew():
        nonlocal current
        current = [g.copy() for g in gradients]

    return Contender(step, renew)


PEERS = {
    "NumPy in place": Peer("numpy", numpy_in_place, is_full),
    "torch": Peer("torch", partial(torch, is_foreach=False), is_dense),
    "torch foreach": Peer("torch", partial(torch, is_foreach=True), is_dense),
    "optax": Peer("optax", optax, is_dense),
    "tf_keras": Peer("tf_keras", partial(keras, is_xla=False), is_of_keras),
    "tf_keras XLA": Peer("tf_keras", partial(keras, is_xla=True), is_quickly_compiled),
    "Keras 3": Peer("keras", keras_3, has_weight_decay),
}
