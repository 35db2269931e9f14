"""Steps as pure functions of trees of arrays, for `jax.jit`, `jax.lax.scan`, `vmap` and differentiation.

They compute what `rmsprop.RMSprop` does, by the formula for arrays of any library. Nothing is changed in place,
and no optimizer remembers anything: `init` makes the state, and `update` returns the next one.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from rmsprop import norms
from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import Array, Namespace, is_array, is_traced, namespace
from rmsprop.formula import AVERAGE, SLOTS, Hyperparameters, Numbers, VariableState
from rmsprop.optimizer import RMSprop
from rmsprop.pure import averaged, limited, squared_norm, updated
from rmsprop.schedules import LearningRateSchedule
from rmsprop.settings.settings import READ
from rmsprop.variables.nested import Tree, flatten, mapped, matched, outline, rebuilt

REFUSED = {
    "gradient_aggregator": None,
    "gradient_transformers": (),
    "state_dtype": None,
    "loss_scale": None,
    "accumulate": 1,
}
"""Settings that only an optimizer with a state of its own can have, with the values that change nothing."""


class FunctionalState(NamedTuple):
    """What steps remember: trees in the structure of the parameters, or None for slots that are not used."""

    count: Array
    """The number of steps taken, an integer without axes."""
    rms: Tree
    momentum: Tree
    mg: Tree
    average: Tree


def init(opt: RMSprop, params: Tree) -> FunctionalState:
    """Return the state before the first step.

    Parameters
    ----------
    opt : RMSprop
        Of which only the settings are read, those of any function of `rmsprop.conventions`.
    params : array, or nested list, tuple or dict of arrays of one library

    Returns
    -------
    FunctionalState

    Raises
    ------
    TypeError, ValueError
        If a parameter is no array of floating point numbers, or `opt` has a setting that needs an optimizer with a
        state of its own: transformers, an aggregator, ``state_dtype``, ``loss_scale``, ``accumulate`` or
        ``nonfinite="raise"``.

    Examples
    --------
    >>> import numpy as np
    >>> from rmsprop import RMSprop, functional
    >>> state = functional.init(RMSprop(momentum=0.9), {"w": np.ones(2)})
    >>> state.momentum, state.mg
    ({'w': array([0., 0.])}, None)
    """
    _check_settings(opt)
    leaves = _leaves(params)
    xp = _namespace(leaves)
    slots = dict.fromkeys(FunctionalState._fields[1:])
    slots |= {name: mapped(partial(_start, opt, name), params) for name in opt._settings.slots}
    return FunctionalState(xp.zeros((), dtype=xp.int32), **slots)


@np.errstate(all="ignore")  # as in steps in place, NumPy warns of nothing
def update(
    opt: RMSprop, grads: Tree, state: FunctionalState, params: Tree, learning_rate: Any = None
) -> tuple[Tree, FunctionalState]:
    """Return the parameters and the state after one step.

    Parameters
    ----------
    opt : RMSprop
        Of which only the settings are read. While a function is traced, they must be numbers.
    grads : tree in the structure of `params`
        That of a complex parameter is ``dL/dRe + i dL/dIm``, the conjugate of what `jax.grad` returns. None leaves
        a parameter as it is.
    state : FunctionalState
    params : tree of arrays of one library
        They are not changed.
    learning_rate : float or array without axes, optional
        In the place of that of `opt`, with its schedule and decay; it may be traced.

    Returns
    -------
    params, state
        New ones.

    Raises
    ------
    TypeError
        If dtypes don't fit, or while a function is traced a setting would have to be read in each step.
    ValueError
        If shapes or structures differ.

    Notes
    -----
    On NumPy, the results have the bits of those of the class, but for `clipvalue` of complex numbers. They can be
    differentiated where no gradient is 0 or epsilon is inside of the root. With ``nonfinite="skip"``, nothing
    changes if a gradient is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from rmsprop import RMSprop, functional
    >>> opt, params = RMSprop(learning_rate=0.1), {"w": np.array([3.0, -2.0])}
    >>> state = functional.init(opt, params)
    >>> for _ in range(100):
    ...     params, state = functional.update(opt, {"w": 2 * params["w"]}, state, params)
    >>> bool(np.all(np.abs(params["w"]) < 0.1)), int(state.count)
    (True, 100)
    """
    _check_settings(opt)
    hyper, leaves = _read(opt, state.count, learning_rate), _leaves(params)
    xp, gradients = _namespace(leaves), _matched(grads, params, "grads")
    slots = [_matched(tree, params, name) for name, tree in state._asdict().items() if name != "count"]
    for position, (gradient, leaf) in enumerate(zip(gradients, leaves, strict=True)):
        _check(gradient, leaf, position)
    given = [k for k, gradient in enumerate(gradients) if gradient is not None]
    clipping = _clipping(xp, [gradients[k] for k in given], hyper) if given else None
    states = [VariableState(leaf, *each) for leaf, *each in zip(leaves, *slots, strict=True)]
    new = list(states)
    for row, k in enumerate(given):
        factor = None if clipping is None else clipping.factors[row, ...]
        new[k] = _step(xp, states[k], gradients[k], factor, hyper)
    count = state.count + 1
    if hyper.nonfinite == "skip" and given:
        is_finite = _is_finite(xp, [gradients[k] for k in given], clipping)
        new = [_chosen(xp, is_finite, a, b) for a, b in zip(new, states, strict=True)]
        count = state.count + xp.astype(is_finite, state.count.dtype)
    rebuilt = [_rebuilt(params, [each[i] for each in new]) for i in range(len(VariableState._fields))]
    kept = [None if tree is None else after for tree, after in zip(state[1:], rebuilt[1:], strict=True)]
    return rebuilt[0], FunctionalState(count, *kept)


def _check_settings(opt: RMSprop) -> None:
    values = opt._settings.values
    for name, neutral in REFUSED.items():
        if values[name] != neutral:
            raise ValueError(
                f"{name}={values[name]!r} needs an optimizer with a state of its own, RMSprop itself."
            )
    if values["nonfinite"] == "raise":
        raise ValueError("nonfinite='raise' needs an optimizer that waits for the numbers; expected 'skip'.")


def _read(opt: RMSprop, count: Array, learning_rate: Any) -> Hyperparameters:
    """Return the hyperparameters of the step, some of which are arrays if they or the count are traced."""
    settings = opt._settings
    if not is_traced(count):
        return settings.read(int(count), learning_rate)
    if learning_rate is None and not settings.values["decay"]:
        learning_rate = _scheduled(settings.values["learning_rate"], count)
    is_replaced = learning_rate is not None
    for name in READ:
        if type(settings.values[name]) is not float and not (is_replaced and name == "learning_rate"):
            raise TypeError(
                f"{name} is {settings.values[name]!r}, which would be read while the function is traced, and not "
                f"in each step; expected a number, or for a learning rate the argument learning_rate of update."
            )
    if settings.values["decay"] and not is_replaced:
        raise TypeError("decay depends on the count, which is traced; expected the argument learning_rate.")
    hyper, xp = settings.read(0, learning_rate)._replace(step=count), namespace(count)
    if hyper.ema_momentum is not None:
        hyper = hyper._replace(ema_momentum=xp.where(count == 0, 0.0, settings.values["ema_momentum"]))
    return hyper


def _scheduled(rate: Any, count: Array) -> Any:
    """Return the learning rate of a schedule at a count that is traced, if it is a function of such ones, or None.

    Those of optax are, which `rmsprop.conventions` takes; those of `rmsprop.schedules` compute with numbers.
    """
    try:
        return rate(count) if isinstance(rate, LearningRateSchedule) else None
    except TypeError:
        return None


def _numbers(xp: Namespace, hyper: Hyperparameters, like: Array) -> Numbers:
    """Return the numbers of the formula for an array, in the precision of its computation if they are arrays."""
    real = getattr(xp, dtypes.real(dtypes.COMPUTE[dtypes.name_of(like.dtype)]))

    def cast(number: Any) -> Any:
        return xp.astype(number, real) if is_array(number) else number

    rate = hyper.learning_rate if is_traced(hyper.learning_rate) else float(hyper.learning_rate)
    hyper = hyper._replace(learning_rate=cast(rate), ema_momentum=cast(hyper.ema_momentum))
    if not (is_array(hyper.step) and hyper.bias_correction):
        return hyper.numbers_of()
    unbias = 1.0 - hyper.rho ** cast(hyper.step + 1)
    return hyper.numbers_of(unbias=xp.where(unbias == 0, xp.ones_like(unbias), unbias))


def _step(
    xp: Namespace, state: VariableState, gradient: Array, factor: Array | None, hyper: Hyperparameters
) -> VariableState:
    """Return one parameter and its slots after the step."""
    numbers = _numbers(xp, hyper, state.variable)
    new = updated(state, limited(xp.astype(gradient, state.variable.dtype), factor, hyper), numbers, hyper)
    if state.average is None:
        return new
    average = averaged(state.average, new.variable, numbers)
    variable = new.variable
    if hyper.ema_overwrite_frequency is not None:
        variable = xp.where(xp.asarray(hyper.overwrites), xp.astype(average, variable.dtype), variable)
    return new._replace(variable=variable, average=average)


def _clipping(xp: Namespace, gradients: list[Array], hyper: Hyperparameters) -> norms.Clipping | None:
    if not hyper.clips_by_norm:
        return None

    def squared(scale: float) -> Array:
        return xp.stack([squared_norm(gradient, hyper, scale) for gradient in gradients])

    if any([is_traced(gradient) for gradient in gradients]):
        return norms.traced_clipping(squared(1.0), hyper)
    return norms.clippings([norms.Measure(squared)], hyper)[0]


def _is_finite(xp: Namespace, gradients: list[Array], clipping: norms.Clipping | None) -> Array:
    """Tell whether all gradients are, and the norms that they are clipped by, as an array without axes."""
    each = [xp.all(xp.isfinite(gradient)) for gradient in gradients]
    if clipping is not None:
        each.append(xp.all(xp.isfinite(clipping.magnitudes)))
    return xp.all(xp.stack(each))


def _chosen(xp: Namespace, is_finite: Array, new: VariableState, old: VariableState) -> VariableState:
    return VariableState(*(x if x is None else xp.where(is_finite, x, y) for x, y in zip(new, old, strict=True)))


def _start(opt: RMSprop, name: str, leaf: Array) -> Array:
    """Return what a slot of a parameter begins at."""
    xp, values = namespace(leaf), opt._settings.values
    dtype = SLOTS[name].dtype(dtypes.name_of(leaf.dtype), values["complex_as_real"])
    if name == AVERAGE:
        return xp.astype(leaf, getattr(xp, dtype))
    start = SLOTS[name].start(values["initial_accumulator"], dtype)
    return xp.full_like(leaf, start, dtype=getattr(xp, dtype))


def _leaves(params: Tree) -> list[Array]:
    """Return the arrays of a tree, after checking that they can be optimised."""
    leaves = [_array(leaf) for leaf in flatten(params)]
    for position, leaf in enumerate(leaves):
        if not is_array(leaf) or dtypes.name_of(leaf.dtype) not in dtypes.COMPUTE:
            kind = getattr(leaf, "dtype", type(leaf).__name__)
            raise TypeError(
                f"Parameter {position} must be an array of {', '.join(dtypes.COMPUTE)}; given one of {kind}."
            )
    if not leaves:
        raise ValueError("params must have at least one array; given none.")
    return leaves


def _array(x: Any) -> Any:
    """Return a number that NumPy has made of an array without axes as such an array again."""
    return np.asarray(x) if isinstance(x, np.generic) else x


def _namespace(leaves: list[Array]) -> Namespace:
    found = {namespace(leaf) for leaf in leaves}
    if len(found) > 1:
        raise TypeError(f"params must be arrays of one library; given {sorted(xp.__name__ for xp in found)}.")
    return found.pop()


def _check(gradient: Any, leaf: Array, position: int) -> None:
    if gradient is None:
        return
    if not is_array(gradient) or namespace(gradient) is not namespace(leaf):
        raise TypeError(f"Gradient {position} must be an array of its parameter's library; given {gradient!r}.")
    given, wanted = dtypes.name_of(gradient.dtype), dtypes.name_of(leaf.dtype)
    if not dtypes.castable(given, wanted):
        raise TypeError(f"Gradient {position} has dtype {given}, which can't be cast to {wanted}.")
    if tuple(gradient.shape) != tuple(leaf.shape):
        raise ValueError(f"Gradient {position} has shape {tuple(gradient.shape)}; expected {tuple(leaf.shape)}.")


def _matched(tree: Tree, like: Tree, what: str) -> list[Any]:
    """Return the leaves of a tree in the order of another one's, which has the same structure."""
    found = matched(tree, like)
    if found is None:
        raise ValueError(f"{what} must have the structure of params, {outline(like)}; given {outline(tree)}.")
    return [_array(leaf) for leaf in found]


def _rebuilt(like: Tree, leaves: list[Any]) -> Tree:
    """Return leaves in the structure of a tree."""
    return rebuilt(like, map(_array, leaves))
