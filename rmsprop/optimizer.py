"""The optimizer: `RMSprop`, with the interface of Keras."""

import copy
import inspect
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Self, SupportsFloat

import numpy as np

from rmsprop.arrays.libraries import Array, DType, Host
from rmsprop.backends import Gradient
from rmsprop.calls import call_of
from rmsprop.locks import Unchanged, locked
from rmsprop.scopes import entered, entered_strategy, refuse_across_replicas
from rmsprop.settings.checks import (
    Flag,
    Nonfinite,
    Pairs,
    Rate,
    StateDtype,
    Transformer,
    Value,
    checked_patterns,
    number,
)
from rmsprop.settings.keras_hooks import refuse_hooks
from rmsprop.settings.rows import ROWS, HasSettings, config_of, given_by, learning_rate_of
from rmsprop.settings.settings import Settings
from rmsprop.state.loss_scale import LossScale
from rmsprop.state.multipliers import exclude, multiply
from rmsprop.state.parameters import Parameter, refuse_repetition
from rmsprop.state.state import STEPPING, State
from rmsprop.state.weights import set_weights as _set_weights
from rmsprop.state.weights import weights_of
from rmsprop.step import accumulation, capturing, gradients, slots, take
from rmsprop.step.averages import swapped
from rmsprop.tapes.losses import compute_gradients
from rmsprop.tapes.tape import Tape
from rmsprop.variables.nested import Tree, flatten, listed
from rmsprop.variables.variable import Variable, described

if TYPE_CHECKING:
    from rmsprop.checkpoints.background import Saving

Path = str | os.PathLike[str]

Step = Variable | Any
"""Result of a step: its number. The None of a step without variables is an `Any` to type checkers, so that
``int(step)`` needs no check that all other steps would never fail."""


class RMSprop(HasSettings):
    """Optimizer that divides the gradient by a running root mean square of its recent magnitudes.

    The interface and the results are those of ``tf.keras.optimizers.legacy.RMSprop``. Without momentum::

        rms = rho * rms + (1 - rho) * |g|**2
        var = var - learning_rate * g / (sqrt(rms) + epsilon)

    and with momentum::

        mom = momentum * mom + learning_rate * g / sqrt(rms + epsilon)
        var = var - mom

    With `centered`, ``rms - |mg|**2``, clamped at 0, takes the place of ``rms`` below the root, where
    ``mg = rho * mg + (1 - rho) * g``. All averages start at zero and there is no bias correction.

    Parameters
    ----------
    learning_rate : float, 0-d array, Variable, callable or LearningRateSchedule, default 0.001
        A schedule gets `iterations`, any other callable no argument; either is called once per step. A 0-d array
        on a GPU is waited for in each step, and so is one that is any other hyperparameter.
    rho : float, 0-d array, Variable or callable, default 0.9
        Decay factor of the moving averages, in [0, 1].
    momentum : float, 0-d array, Variable or callable, default 0.0
        In [0, 1]. Anything but the number 0 chooses the formula with momentum, even if its value is 0.
    epsilon : float, default 1e-7
        Keeps the denominator from zero. 0 and None mean the default, as in Keras.
    centered : bool, default False
        Whether to divide by the estimated standard deviation instead of the root mean square.
    name : str, default "RMSprop"
    clipnorm, clipvalue, global_clipnorm : float, optional
        Gradients are clipped to ``|g| <= clipvalue`` in each element (of complex ones the modulus), then to
        the norm `clipnorm` for each variable, or to the norm `global_clipnorm` for all together.
    decay : float, default 0.0
        The learning rate is divided by ``1 + decay * iterations``.
    lr : float, optional
        Former name of `learning_rate`; wins over it.
    gradient_aggregator : callable, optional
        Maps the list of (gradient, variable) pairs to the list to use. By default, in the scope of a strategy of
        `rmsprop.distribute`, gradients are added up over its replicas.
    gradient_transformers : sequence of callables, optional
        Applied to the list of pairs one after the other, after aggregation and before clipping.
    lazy : bool, default True
        Whether a sparse gradient leaves the averages of the rows that it does not list as they are. If False
        they decay without momentum, which is what TensorFlow does, contrary to its documentation.
    epsilon_in_sqrt : bool, optional
        Where `epsilon` is added. By default as Keras does: inside of the root with momentum, else outside.
    complex_as_real : bool, default False
        Whether real and imaginary part of a complex variable count as two real numbers, as in PyTorch, each
        with its own average. By default ``|g|**2`` is averaged, so that a global phase makes no difference.
    state_dtype : {None, "bfloat16", "uint8"}, default None
        What averages and momentum are kept in between steps, for NumPy and CuPy arrays; by default the dtype in
        which steps are computed. "bfloat16" takes 2 bytes for each number, with errors of less than 1/128 and
        the range of float32. "uint8" takes one, with errors of less than 1/8 of the number or 2**-31 (of momentum
        and ``mg`` 2**-15) of the largest of at most 1,024 neighbours; in single precision, numbers beyond 3.2e38
        are infinite. Complex numbers are two. Rounding leaves averages without bias. With `centered`, the variance
        is at least about 1/65 or 1/9 of ``rms``. Sparse gradients need "bfloat16" or rows of at least 64 elements.
        Slots and weights are read and set as arrays in full.

    nonfinite : {"propagate", "skip", "raise"}, default "propagate"
        What becomes of a step if a gradient has a NaN or an infinity, as it reaches the update: summed over
        replicas and transformed, not yet clipped; or a norm beyond double precision where it is clipped by that,
        or beyond single precision in a library that has no other.
        By default, as in Keras, these spread to the variables. "skip" leaves out the step, for all variables; it
        does not count in `iterations`, but in `skipped`. "raise" raises ``FloatingPointError``. On a GPU, "skip"
        waits for nothing: whoever reads the counts does, and steps with a schedule or `decay`, which depend on
        them, for the decision on the step before. "raise" waits in each step.
    loss_scale : LossScale, optional
        What gradients are divided by in the update, for losses in half precision; see `rmsprop.LossScale`.
    validate : bool, default False
        Whether a step waits for a GPU to check the rows of sparse gradients. By default, rows out of range are
        left out there, and a later sparse step, or `get_weights`, raises the ``ValueError``. On the CPU they are
        always checked at once.
    weight_decay : float, 0-d array, Variable, callable or LearningRateSchedule, default 0.0
        At least 0. By default this times the variable is added to the gradient, once that has been clipped (L2);
        of a sparse gradient, in the rows that it lists. A schedule gets what that of a learning rate does.
    decoupled : bool, default False
        Whether weight decay is that of the variable itself, which then loses ``learning_rate * weight_decay`` of
        itself in each step, past averages and clipping. Rows that a sparse gradient does not list lose it only if
        `lazy` is False.
    nesterov : bool, default False
        Whether the momentum is Nesterov's, so that a step is ``step + momentum * mom``.
    bias_correction : bool, default False
        Whether averages are divided by ``1 - rho ** (iterations + 1)``, since they begin at zero. On a GPU, steps
        with ``nonfinite="skip"`` then wait for the decision on the step before.
    initial_accumulator : float, default 0.0
        What the average of squares of a new variable begins at.
    momentum_includes_lr : bool, default True
        Whether the learning rate is in what the momentum gathers. If not, steps are multiplied by that of the
        present step, as in PyTorch.
    maximize : bool, default False
        Whether to go uphill. Weight decay still leads to zero.
    use_ema : bool, default False
        Whether variables are averaged over the steps, as in Keras 3: after each step, ``average = ema_momentum *
        average + (1 - ema_momentum) * variable``, after the first it is the variable. The average is a slot, in
        full precision, which variables without a gradient keep as it is. See `swapped`.
    ema_momentum : float, default 0.99
        In [0, 1].
    ema_overwrite_frequency : int, optional
        After how many steps, each time, variables are set to their averages; by default never.
    accumulate : int, default 1
        Of how many calls of `apply_gradients` the mean gradient makes one step, as in Keras 3. The other calls
        only add gradients to a slot. Schedules see the number of calls, `iterations` counts steps.

    Raises
    ------
    TypeError, ValueError
        If an argument is no number or out of range, or arguments exclude each other.

    Notes
    -----
    A gradient whose square overflows in the computing precision, beyond 1.8e19 in float32, makes its `rms`
    infinite, and its element gets no steps from then on; with a `rho` of 0 or 1 it becomes NaN. `nonfinite` does
    not look for that, clipping prevents it.

    The method is G. Hinton's, lecture 6e of *Neural Networks for Machine Learning* (2012); centering and
    momentum are A. Graves', *Generating Sequences With Recurrent Neural Networks*, arXiv:1308.0850.

    Examples
    --------
    Plain arrays, with a gradient written by hand:

    >>> import numpy as np
    >>> from rmsprop import RMSprop, Variable
    >>> x = np.array([3.0, -2.0])
    >>> opt = RMSprop(learning_rate=0.1)
    >>> for _ in range(100):
    ...     _ = opt.apply_gradients([(2 * x, x)])
    >>> bool(np.all(np.abs(x) < 0.1))
    True

    The example of the documentation page of Keras:

    >>> opt = RMSprop(learning_rate=0.1)
    >>> var1 = Variable(10.0)
    >>> loss = lambda: (var1 ** 2) / 2.0    # d(loss) / d(var1) = var1
    >>> opt.minimize(loss, [var1]).numpy()
    array(1)
    >>> print(var1.numpy())
    9.683772
    """

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        rho: Value = 0.9,
        momentum: Value = 0.0,
        epsilon: SupportsFloat | None = 1e-7,
        centered: Flag = False,
        name: str | None = "RMSprop",
        *,
        clipnorm: SupportsFloat | None = None,
        clipvalue: SupportsFloat | None = None,
        global_clipnorm: SupportsFloat | None = None,
        decay: SupportsFloat = 0.0,
        lr: Rate | None = None,
        gradient_aggregator: Transformer | None = None,
        gradient_transformers: Iterable[Transformer] | None = None,
        lazy: Flag = True,
        epsilon_in_sqrt: Flag | None = None,
        complex_as_real: Flag = False,
        state_dtype: StateDtype | None = None,
        nonfinite: Nonfinite = "propagate",
        loss_scale: LossScale | None = None,
        validate: Flag = False,
        weight_decay: Rate | None = 0.0,
        decoupled: Flag = False,
        nesterov: Flag = False,
        bias_correction: Flag = False,
        initial_accumulator: SupportsFloat = 0.0,
        momentum_includes_lr: Flag = True,
        maximize: Flag = False,
        use_ema: Flag = False,
        ema_momentum: SupportsFloat = 0.99,
        ema_overwrite_frequency: int | None = None,
        accumulate: int = 1,
    ) -> None:
        given = locals()
        if clipnorm is not None and global_clipnorm is not None:
            raise ValueError(
                f"Cannot accept both `clipnorm` and `global_clipnorm`. "
                f"Received: `clipnorm`={clipnorm}, `global_clipnorm`={global_clipnorm}."
            )
        self._state = State()
        self._settings = Settings(self._state)
        given["learning_rate"] = learning_rate_of(learning_rate, lr)
        for each in ROWS:
            setattr(self, each, given[each])
        if entered:
            self._state.strategy = entered_strategy()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_hooks(cls, RMSprop)

    def __repr__(self) -> str:
        values = self._settings.values if "_settings" in self.__dict__ else {}  # as a debugger may ask too early
        given = {name: values[name] for name in inspect.signature(RMSprop).parameters if name in values}
        if not given.get("gradient_transformers"):
            given.pop("gradient_transformers", None)
        return call_of(self, RMSprop, given)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy state and variables; these in the memo, so that whoever else copies them has the same copies."""
        twin = memo[id(self)] = type(self).__new__(type(self))
        with self._state.lock:
            twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

    def __copy__(self) -> NoReturn:
        raise TypeError("an optimizer and a shallow copy of it would share their state; use copy.deepcopy.")

    def __getstate__(self) -> dict[str, Any]:
        with self._state.lock:
            return {**self.__dict__, "_unchanged": Unchanged(self._state)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        del self.__dict__["_unchanged"]

    def apply_gradients(
        self,
        grads_and_vars: Iterable[tuple[Any, Any]],
        name: str | None = None,
        experimental_aggregate_gradients: bool = True,
    ) -> Step:
        """Take one step.

        Parameters
        ----------
        grads_and_vars : iterable of (gradient, variable) pairs
            A variable is a NumPy or CuPy array, updated in place, or a `Variable`. A gradient is an array of
            the same library and shape, an `IndexedSlices`, or None for a variable to leave as it is. Gradients
            are not modified. That of a complex variable is ``dL/dRe + i dL/dIm``, whose negative leads downhill.
            In a loop, change an array in place, ``x[...] = value`` or ``out=x``: ``x = value`` makes a new one.
        name : str, optional
            Not used.
        experimental_aggregate_gradients : bool, default True
            Whether `gradient_aggregator` is applied or, without one, gradients are added up over the replicas of
            the strategy in whose scope the optimizer was made. If not, that is left to the caller.

        Returns
        -------
        Variable or None
            `iterations`, increased by one unless the step was left out, or this call only accumulates; None if
            `grads_and_vars` is empty, or has only variables that are not trainable, which are left out.

        Raises
        ------
        FloatingPointError
            If a gradient is not finite, with ``nonfinite="raise"``.
        TypeError
            If `grads_and_vars` is malformed, or a dtype or an array library does not fit.
        ValueError
            If there is no gradient for any variable, a shape differs, a variable occurs twice, variables share
            memory, or a hyperparameter is not finite or out of range. If a variable seems to have been replaced:
            one comes that is not known, and a known one of the same shape, dtype and library is held by nobody
            else; see `rebind` and `forget`.
        RuntimeError
            If a variable with a constraint has a sparse gradient, a CUDA stream captures and the step can't be
            captured, in the scope of a strategy outside of its `run`, or in something that a step of the same
            optimizer calls.

        While a CUDA stream captures, the step is recorded and `iterations` stays; see `advance`.

        An array that was replaced is not noticed as long as something else holds it, such as a history of all
        iterates or a captured step, nor if its memory was allocated by neither NumPy nor CuPy. A view that is
        taken anew in each step, ``w[0]``, is known by its memory; a copy, ``w[[0, 2]]``, is a new array.

        Threads can share an optimizer: one takes its step, or reads or sets weights or hyperparameters, after the
        other.

        In case of an error, variables, slots and `iterations` are as they were. Only slots that had to be created
        may stay, at zero. A ``KeyboardInterrupt`` is no error in this sense: it may come between the updates of
        variables of several dtypes, or before the step is counted.
        """
        if entered:
            refuse_across_replicas()
        state = self._state
        if state.strategy is None:
            grads_and_vars = gradients.listed(grads_and_vars)  # may take a while, in which others can take steps
        with state.lock:
            if state.occupied:
                raise RuntimeError(f"no step can be taken now: {state.occupied}")
            state.occupied = STEPPING
            try:
                step = take.take if state.strategy is None else state.strategy.take
                if self._settings.values["accumulate"] > 1 or state.accumulated.array:
                    step = partial(accumulation.take, step)
                return step(self._settings, grads_and_vars, experimental_aggregate_gradients)
            finally:
                state.occupied = None

    def minimize(
        self,
        loss: Any,
        var_list: Tree,
        grad_loss: Array | None = None,
        name: str | None = None,
        tape: Tape | None = None,
        *,
        jac: bool = False,
    ) -> Step:
        """Differentiate a loss and take one step.

        Parameters
        ----------
        loss : callable or traced value
            A callable takes the values of the variables, or no argument if all are `Variable`s, and returns the
            loss, or ``(loss, gradients)`` with the gradients in the structure of `var_list`. A value needs its
            `tape`. The loss must be real: of a complex one take ``.real`` or ``abs``. With a `loss_scale`, a tape
            is given the scaled loss; gradients that a loss returns must be scaled by itself.
        var_list : Variable or array, nested lists or dicts of these, or a callable that returns them
            The outermost dict gives the loss keyword arguments, the outermost list or tuple positional ones. What
            is inside keeps its structure.
        grad_loss : array_like, optional
            Weights of the elements of the loss, or a number for all; by default they are summed.
        name : str, optional
            Not used.
        tape : rmsprop.tapes.tape.Tape, optional
            The tape that has recorded `loss`, or that is to record it if it is a callable; by default a
            `GradientTape`, which gives `IndexedSlices` for variables that are only read by arrays of integers. A
            `TorchTape` differentiates arrays of any library by PyTorch.
        jac : bool, default False
            Whether the loss returns ``(loss, gradients)``, as in SciPy: then it gets plain values, and nothing is
            traced. It is not needed for arrays of other libraries than NumPy, which need a `tape` else.

        Returns
        -------
        Variable or None
            As `apply_gradients`.

        Raises
        ------
        TypeError
            If the loss is complex, does not take its variables, or can't be differentiated because of the arrays'
            library and returns no gradients.
        ValueError
            If a loss returns gradients in another structure, `loss` is a value and `tape` is missing, both `tape`
            and `jac` are given, or no gradient exists; as `apply_gradients`.

        Examples
        --------
        >>> import autograd.numpy as anp, numpy as np, rmsprop
        >>> w = np.array([2.0, 1.0])
        >>> opt = rmsprop.RMSprop(learning_rate=0.5)
        >>> opt.minimize(lambda w: anp.sum(w ** 2), [w]).numpy()
        array(1)

        Variables by name:

        >>> x = np.linspace(-1, 1, 5)
        >>> model = {"width": np.array(2.0), "center": np.array(0.5)}
        >>> loss = lambda width, center: anp.sum((x - center) ** 2 / width**2)
        >>> int(opt.minimize(loss, model))
        2
        """
        return self.apply_gradients(self._scaled_gradients(loss, var_list, grad_loss, tape, jac), name=name)

    def _scaled_gradients(
        self, loss: Any, params: Tree, grad_loss: Any = None, tape: Any = None, jac: bool = False
    ) -> Pairs:
        """Return gradients as `compute_gradients` does, but of the scaled loss."""
        scale = 1.0 if self.loss_scale is None else self.loss_scale.scale
        return compute_gradients(loss, params, grad_loss, tape, jac, scale)

    def get_gradients(self, loss: Any, params: Tree) -> list[Gradient]:
        """Return the gradients of a loss, without a step.

        Parameters
        ----------
        loss : callable
            As for `minimize`.
        params : Variable or array, or nested lists or dicts of these

        Raises
        ------
        ValueError
            If the loss does not depend on a variable.
        """
        return [gradient for gradient, _ in _complete(compute_gradients(loss, params))]

    def get_updates(self, loss: Any, params: Tree) -> list[Step]:
        """Take one step as `minimize` does, but with `get_gradients`; return its result in a list."""
        return [self.apply_gradients(_complete(self._scaled_gradients(loss, params)))]

    @property
    def current_learning_rate(self) -> float:
        """The learning rate that the next step will use, with schedule and `decay`."""
        return self._settings.learning_rate_at(int(self._state.iterations.array))

    @locked
    def advance(self) -> Variable:
        """Count one replay of a step captured in a CUDA graph, and bring its hyperparameters to the device.

        Call it before each launch of the graph, in the stream of the launch: schedules then go on as without a
        graph. It copies 168 bytes for each captured step, or with multipliers for each variable, asynchronously.
        `clipvalue`, `clipnorm`, `global_clipnorm` and the variant of the formula stay as captured; to capture a
        step with others ends the replays of earlier ones. The optimizer keeps the variables and gradients of
        captured steps alive, until `discard_captured`, and must itself live as long as the graph. What else is
        captured with a step must be kept alive by you. The stream has to capture in the mode "relaxed", which is
        CuPy's default.

        Returns
        -------
        Variable
            `iterations`, increased by one.

        Raises
        ------
        RuntimeError
            If no step has been captured, or a setting has been changed that a captured step keeps.

        Examples
        --------
        On a GPU::

            opt.build([x])
            stream = cupy.cuda.Stream(non_blocking=True)
            with stream:
                stream.begin_capture()
                opt.apply_gradients([(gradient, x)])    # is captured, not run
                graph = stream.end_capture()
                for _ in range(100):
                    opt.advance()
                    graph.launch()
        """
        capturing.advance(self._settings)
        return self._state.iterations

    @locked
    def discard_captured(self) -> None:
        """Forget all captured steps, and free what their replays need; their graphs must not be launched again.

        Call it in the stream of the last launch. Without it, `advance` goes on to serve each step that was ever
        captured.

        Examples
        --------
        On a GPU, where the step is captured again because an array was replaced::

            opt.discard_captured()
            stream.begin_capture()
            opt.apply_gradients([(other_gradient, x)])
            graph = stream.end_capture()
        """
        self._state.parameters.captured.clear()

    @locked
    def build(self, var_list: Tree) -> None:
        """Create the slots of variables before the first step, so that weights can be restored.

        Parameters
        ----------
        var_list : array or Variable, or nested list, tuple or dict of these
            In the order in which `set_weights` will give their slots.

        Raises
        ------
        TypeError, ValueError
            If a variable can't be optimised; nothing has changed then.

        Examples
        --------
        >>> import numpy as np, rmsprop
        >>> w = np.ones(3)
        >>> opt = rmsprop.RMSprop()
        >>> opt.build([w])
        >>> opt.set_weights([np.array(7), np.full(3, 0.5)])
        >>> int(opt.iterations), opt.get_slot(w, "rms").numpy()
        (7, array([0.5, 0.5, 0.5]))
        """
        self._built(var_list)

    def _built(self, var_list: Tree) -> list[Parameter]:
        """Return the parameters of variables, which are known and have slots then."""
        if isinstance(var_list, Iterator):
            var_list = list(var_list)
        known = self._state.parameters
        parameters = [known.obtain(v, i) for i, v in enumerate(flatten(var_list))]
        refuse_repetition(parameters)
        known.check_joining(parameters)
        slots.create(self._settings, parameters, var_list)
        return parameters

    @locked
    def rebind(self, var_list: Tree) -> None:
        """Go on with other variables, in the place of all that are known; their state stays as it is.

        Parameters
        ----------
        var_list : array or Variable, or nested list, tuple or dict of these
            One for each known variable, in the order in which these became known, of the same array library,
            device, shape and dtype. Some may be those that are known.

        Raises
        ------
        TypeError, ValueError
            If number, shapes or dtypes differ, or a variable can't be optimised; nothing has changed then.
        RuntimeError
            If loaded state still waits for its variables, steps have been captured, or in something that a step
            calls.

        Examples
        --------
        >>> import numpy as np, rmsprop
        >>> x = np.array([1.0, -1.0])
        >>> opt = rmsprop.RMSprop(learning_rate=0.1)
        >>> for _ in range(2):
        ...     step = opt.apply_gradients([(2 * x, x)])
        ...     x = np.maximum(x, 0)    # with np.maximum(x, 0, out=x), nothing need be told
        ...     opt.rebind([x])
        >>> len(opt.get_weights()), x.round(2)
        (2, array([0.5, 0. ]))
        """
        self._state.check_idle("rebind")
        if self._state.waiting is not None:
            raise RuntimeError("the loaded state waits for its variables: call build(var_list), not rebind.")
        self._state.parameters.rebind(listed(var_list))

    @locked
    def forget(self, variables: Tree = None) -> None:
        """Drop the state of variables, which are no longer known then; `iterations` goes on.

        Parameters
        ----------
        variables : array or Variable, or nested list, tuple or dict of these, optional
            By default all that nobody else holds, such as arrays that others have taken the place of.

        Raises
        ------
        ValueError
            If a variable is not known; nothing has changed then.
        RuntimeError
            If steps have been captured that use them, or in something that a step calls.

        Examples
        --------
        A new array for each frame, on purpose:

        >>> import numpy as np, rmsprop
        >>> opt = rmsprop.RMSprop(learning_rate=0.1)
        >>> for frame in (1.0, 2.0, 3.0):
        ...     x = np.zeros(2)
        ...     opt.forget()            # the array of the last frame, which `x` does not refer to any more
        ...     for _ in range(100):
        ...         step = opt.apply_gradients([(x - frame, x)])
        >>> len(opt.get_weights()), x.round(1)
        (2, array([3., 3.]))
        """
        self._state.check_idle("forget", also_captures=variables is not None)
        self._state.forget(None if variables is None else listed(variables))

    @locked
    def group(self, variables: Tree, lr_mult: float | None = None, wd_mult: float | None = None) -> None:
        """Multiply learning rate and weight decay for some variables.

        They still share limits of clipping, `iterations` and files, and a list of them stays one pass.

        Parameters
        ----------
        variables : array or Variable, or nested list, tuple or dict of these
            Those that are not known yet become so, as by `build`.
        lr_mult, wd_mult : float, optional
            By default as they are: 1, or what an earlier call gave. `wd_mult` is at least 0.

        Raises
        ------
        TypeError, ValueError
            If a variable can't be optimised, or a multiplier is no number; nothing has changed then.
        RuntimeError
            If steps have been captured, or in something that a step calls.

        Notes
        -----
        Files keep the multipliers, a config does not.

        Examples
        --------
        An object and a probe of ptychography, of which the probe is to move slowly:

        >>> import numpy as np, rmsprop
        >>> obj, probe = np.ones(3), np.ones(2)
        >>> opt = rmsprop.RMSprop(learning_rate=0.12)
        >>> opt.group(probe, lr_mult=1 / 12)
        >>> step = opt.apply_gradients([(obj, obj), (probe, probe)])
        >>> obj.round(4), probe.round(4)
        (array([0.6205, 0.6205, 0.6205]), array([0.9684, 0.9684]))
        """
        self._state.check_idle("group")
        lr = None if lr_mult is None else number("lr_mult", lr_mult)
        wd = None if wd_mult is None else number("wd_mult", wd_mult, 0.0)
        multiply(self._state, self._built(variables), lr, wd)

    @locked
    def exclude_from_weight_decay(self, var_list: Tree = None, var_names: Sequence[str] | None = None) -> None:
        """Exclude variables from weight decay, as in Keras 3.

        Parameters
        ----------
        var_list : array or Variable, or nested list, tuple or dict of these, optional
            Those that are not known yet become so, as by `build`.
        var_names : sequence of str, optional
            Regular expressions. A variable in whose name one is found is excluded, also if it comes later.

        Raises
        ------
        TypeError, ValueError
            If a variable can't be optimised, or `var_names` are no regular expressions; nothing has changed then.
        RuntimeError
            If steps have been captured, or in something that a step calls.

        Examples
        --------
        >>> import rmsprop
        >>> opt = rmsprop.RMSprop(weight_decay=0.01, decoupled=True)
        >>> opt.exclude_from_weight_decay(var_names=["bias", "scale$"])
        """
        self._state.check_idle("exclude_from_weight_decay")
        patterns = checked_patterns(var_names)
        if var_list is not None:
            multiply(self._state, self._built(var_list), None, 0.0)
        exclude(self._state, patterns)

    def swapped(self) -> AbstractContextManager[None]:
        """Return a context in which the variables are their averages, to evaluate these; see ``use_ema``.

        In its end the variables are what they were. Meanwhile no step can be taken, and there is a copy of them.

        Raises
        ------
        ValueError
            If no variable is averaged.
        RuntimeError
            If steps have been captured, or in something that a step calls.

        Examples
        --------
        >>> import numpy as np, rmsprop
        >>> x = np.zeros(1)
        >>> opt = rmsprop.RMSprop(learning_rate=0.1, use_ema=True, ema_momentum=0.5)
        >>> for sign in (1.0, -1.0, 1.0, -1.0):
        ...     step = opt.apply_gradients([(np.array([sign]), x)])
        >>> with opt.swapped():
        ...     average = x.copy()
        >>> average.round(3), x.round(3)
        (array([-0.174]), array([-0.108]))
        """
        return swapped(self._state)

    @property
    def iterations(self) -> Variable:
        """The number of steps so far, an int64 scalar `Variable`.

        It can be replaced, by a `Variable` or a number from 0 to 2**62, as long as there are no slots. Later,
        ``assign`` to it.
        """
        return self._state.iterations

    @iterations.setter
    @locked
    def iterations(self, value: Any) -> None:
        self._state.replace_iterations(value)

    @property
    def skipped(self) -> int:
        """The number of steps that were left out, with ``nonfinite="skip"``, for gradients that were not finite.

        To read it waits for a GPU, as it does to read `iterations`.

        Examples
        --------
        >>> import numpy as np, rmsprop
        >>> opt, w = rmsprop.RMSprop(nonfinite="skip"), np.ones(2)
        >>> _ = opt.apply_gradients([(np.array([1.0, np.inf]), w)])
        >>> opt.skipped, int(opt.iterations), w
        (1, 0, array([1., 1.]))
        """
        self._state.iterations.settle()
        return self._state.iterations.skipped

    @property
    def weights(self) -> list[Variable]:
        """The iteration count and all slots: first ``rms`` of each variable, then ``momentum``, then ``mg``.

        Slots of other names follow, and if gradients are accumulated the number of calls that has been. Variables
        are in the order in which they became known.
        """
        return [weight for _, weight in self._state.named_weights]

    def variables(self) -> list[Variable]:
        """Return `weights`."""
        return self.weights

    @locked
    def get_weights(self) -> list[Host]:
        """Return NumPy copies of the `weights`, in the order of Keras.

        Raises
        ------
        ValueError
            Once, if a GPU found rows out of range in a sparse gradient of an earlier step.

        Examples
        --------
        >>> import numpy as np, rmsprop
        >>> opt, w = rmsprop.RMSprop(rho=0.5), np.ones(2)
        >>> _ = opt.apply_gradients([(np.array([1.0, 2.0]), w)])
        >>> opt.get_weights()
        [array(1), array([0.5, 2. ])]
        """
        return weights_of(self._state)

    @locked
    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replace the `weights`, for instance by those of an optimizer in Keras.

        Parameters
        ----------
        weights : sequence of array_like
            As `get_weights` returns them. If the iteration count is missing, it becomes 0, as in Keras.

        Raises
        ------
        ValueError
            If number, shapes or dtypes do not fit. Nothing has changed then.
        TypeError
            If `weights` is no sequence of arrays of numbers, likewise.
        """
        _set_weights(self._state, weights, self.name)

    def get_slot_names(self) -> list[str]:
        """Return the names of the slots, in order of creation."""
        return list(self._state.slot_names)

    @locked
    def get_slot(self, var: Any, slot_name: str) -> Variable:
        """Return a slot of a variable.

        Parameters
        ----------
        var : array or Variable
        slot_name : {"rms", "momentum", "mg"} or a name given to `add_slot`

        Raises
        ------
        KeyError
            If the variable, or the slot, does not exist.
        ValueError
            If the variable was copied together with the optimizer, and its copy is in use.
        """
        if not isinstance(slot_name, str):
            raise TypeError(f"slot_name must be a string; given {slot_name!r}.")
        parameter = self._state.parameters.find(var)
        if parameter is None:
            raise KeyError(f"the optimizer has no slots for the variable {described(var)}; build() creates them.")
        if slot_name not in parameter.slots:
            raise KeyError(f"there is no slot {slot_name!r}; there are {sorted(parameter.slots)}.")
        return parameter.slots[slot_name]

    @locked
    def add_slot(self, var: Any, slot_name: str, initializer: Any = "zeros", shape: Any = None) -> Variable:
        """Create a slot for a variable, or return the one there is.

        Parameters
        ----------
        var : array or Variable
        slot_name : str
        initializer : {"zeros", "ones"}, callable or array_like, default "zeros"
            A callable gets ``shape`` and ``dtype``. An array is the initial value itself.
        shape : tuple of int, optional
            Defaults to the variable's, as it must be for the slots that steps use; not used with an array as
            `initializer`.

        Returns
        -------
        Variable

        Raises
        ------
        ValueError
            If `initializer` is an unknown name, or the shape can't be that of the slot.
        """
        return slots.added(self._settings, var, slot_name, initializer, shape)

    def add_weight(
        self,
        name: str,
        shape: Any,
        dtype: DType = None,
        initializer: Any = "zeros",
        trainable: bool | None = None,
        synchronization: str = "auto",
        aggregation: str = "none",
    ) -> Variable:
        """Return a new NumPy `Variable`, which is not among the `weights`.

        Parameters
        ----------
        name : str
        shape : tuple of int
        dtype : dtype, default float32
        initializer : as in `add_slot`
        trainable : bool, optional
            Defaults to True, with `synchronization` "on_read" to False.
        synchronization, aggregation : str
            How replicas would share the variable. "on_read" excludes `trainable`.

        Raises
        ------
        ValueError
            If `trainable` is True with `synchronization` "on_read", or `initializer` is unknown.
        """
        on_read = synchronization.lower() == "on_read"
        if trainable and on_read:
            raise ValueError("synchronization 'on_read' needs trainable=False; given trainable=True.")
        dtype = np.dtype(np.float32 if dtype is None else dtype)
        value = slots.initial_value(initializer, tuple(shape), dtype, np.zeros(()))
        return Variable.around(value, name, trainable=not on_read if trainable is None else trainable)

    def get_config(self) -> dict[str, Any]:
        """Return the settings, in the form of Keras: JSON-serialisable, without the state.

        A callable is stored as its present value; if that is a momentum of 0, the copy is one without momentum.
        `gradient_aggregator` and `gradient_transformers` are left
        out, as in Keras; settings that Keras does not know, as long as they have their default.

        Examples
        --------
        >>> import rmsprop
        >>> rmsprop.RMSprop(momentum=0.5, clipnorm=1).get_config()
        {'name': 'RMSprop', 'clipnorm': 1.0, 'learning_rate': 0.001, 'decay': 0.0, 'rho': 0.9, 'momentum': 0.5,
         'epsilon': 1e-07, 'centered': False}
        """
        return config_of(self._settings.values, {})

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Return a new optimizer with the settings of `get_config`: of this library, or of an RMSprop of Keras.

        That of Keras 3 and the present one of tf_keras add `epsilon` inside of the root, clip by one limit alone,
        and not by 0, and decay weights apart from gradients: so does the optimizer that is made of their settings.
        Sparse gradients follow `lazy`.

        Parameters
        ----------
        config : dict
            It is not changed.
        custom_objects : dict of str to class, optional
            Classes of your own schedules, by name.

        Raises
        ------
        TypeError
            If a key is unknown, or the class of a schedule.
        ValueError
            If a setting is out of range, or asks for what is not done here: averages of the variables over calls
            that accumulate gradients.
        """
        given = given_by(config, cls, custom_objects)
        # The constructor refuses both norms, but one can be assigned later.
        later = given.pop("global_clipnorm", None) if given.get("clipnorm") is not None else None
        optimizer = cls(**given)
        if later is not None:
            optimizer.global_clipnorm = later
        return optimizer

    @locked
    def save(self, path: Path, variables: Tree = None, *, wait: bool = True) -> "Saving | None":
        """Save state and settings to a file and, if they are given, the variables themselves.

        The file is replaced in one piece, when all of it is on the disk: whatever happens, `path` is what it was
        or what it is to be. It has the format of safetensors, which other programs read, and ends with a digest.

        Parameters
        ----------
        path : str or path
            Directories on the way must exist. Of a link, what it points to is replaced.
        variables : array or Variable, or nested list, tuple or dict of these, optional
            All that the optimizer has state of, and others if you like. Their names are the keys of dicts and the
            positions in lists, joined by ``/``; in a list, a `Variable` goes by its own name. Without, only state
            is saved, of plain arrays in the order in which the optimizer first saw them.
        wait : bool, default True
            Whether to return when the file is complete. If not, it is written in the background from a copy of
            everything, while steps go on.

        Returns
        -------
        Saving or None
            With ``wait=False``, what has a method ``wait()``, which raises what the save raises. Else that is
            raised by the next `save` or `restore` or, if there is none, printed when the program ends. Both, and
            the end, wait for it.

        Raises
        ------
        OSError
            If the file can't be written, or `path` is a FIFO, a device or a socket; it is as it was then.
        TypeError
            If `variables` holds something else, or settings are not what JSON can hold.
        ValueError
            If a variable with state is missing, occurs twice, or a GPU found rows out of range in an earlier step.
        RuntimeError
            If the state was loaded, and no variables have been given to it yet.

        Notes
        -----
        A callable as a setting, and a schedule without ``get_config``, are code, which is not saved: such
        optimizers can be restored, but not loaded. On several replicas, all ranks call this, and rank 0 writes.

        Examples
        --------
        >>> import os, tempfile, numpy as np, rmsprop
        >>> opt, w = rmsprop.RMSprop(rho=0.5), np.ones(2)
        >>> _ = opt.apply_gradients([(np.array([1.0, 2.0]), w)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "w.safetensors")
        ...     opt.save(path, {"w": w})
        ...     again, v = rmsprop.RMSprop(rho=0.5), np.zeros(2)
        ...     again.restore(path, {"w": v})
        >>> bool((v == w).all()), again.get_weights()
        (True, [array(1), array([0.5, 2. ])])
        """
        from rmsprop.checkpoints.saving import save

        return save(self._settings, self.get_config, path, variables, wait)

    @classmethod
    def load(cls, path: Path, custom_objects: Mapping[str, type] | None = None) -> Self:
        """Return a new optimizer with the settings and the state in a file.

        The state waits for its variables, whose own values are left alone: the first `build` or `apply_gradients`
        must have all of them, under the names that they were saved under. `restore`, in place of these, brings
        back the values, too.

        Parameters
        ----------
        path : str or path
        custom_objects : mapping of str to class, optional
            Classes of your own schedules, by name.

        Raises
        ------
        CheckpointError
            If the file is no sound checkpoint, or the settings were in part code, see `save`.
        OSError
            If it can't be read.

        Examples
        --------
        >>> import os, tempfile, numpy as np, rmsprop
        >>> opt, w = rmsprop.RMSprop(rho=0.5), np.ones(2)
        >>> _ = opt.apply_gradients([(np.array([1.0, 2.0]), w)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "opt.safetensors")
        ...     opt.save(path)
        ...     again = rmsprop.RMSprop.load(path)
        >>> again.rho, again.get_weights()
        (0.5, [array(1), array([0.5, 2. ])])
        >>> again.build([w])
        >>> again.get_slot(w, "rms").numpy()
        array([0.5, 2. ])
        """
        from rmsprop.checkpoints.restoring import load

        optimizer: Self = load(cls, path, custom_objects)
        return optimizer

    @locked
    def restore(self, path: Path, variables: Tree) -> None:
        """Bring the state, and the values of variables if they were saved, back from a file.

        Parameters
        ----------
        path : str or path
        variables : array or Variable, or nested list, tuple or dict of these
            All that were saved, under the same names, see `save`.

        Raises
        ------
        CheckpointError
            If the file is no sound checkpoint, or names, shapes, dtypes or settings are not those that were saved.
        OSError
            If it can't be read.
        TypeError, ValueError
            If a variable can't be optimised or written to.

        In case of an error, nothing has changed.

        Examples
        --------
        See `save`.
        """
        from rmsprop.checkpoints.restoring import restore

        restore(self._settings, self.get_config, path, variables)


def _complete(pairs: Pairs) -> Pairs:
    for position, (gradient, variable) in enumerate(pairs):
        if gradient is None:
            raise ValueError(
                f"Variable {position} {described(variable)} has `None` for gradient: the loss ignores it."
            )
    return pairs
