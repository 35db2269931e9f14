"""The optimizer: `RMSprop`, with the interface of Keras."""

import inspect
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, SupportsFloat

from rmsprop import gradients, nonfinite
from rmsprop.arrays import Array
from rmsprop.backends import Gradient
from rmsprop.calls import call_of
from rmsprop.checkpointed import Checkpointed
from rmsprop.differentiation import compute_gradients
from rmsprop.formula import needed_slots
from rmsprop.hooks import refuse_hooks
from rmsprop.hyperparameters import (
    Flag,
    Nonfinite,
    Pairs,
    Rate,
    Settings,
    StateDtype,
    Transformer,
    Value,
    learning_rate_of,
)
from rmsprop.journal import reserve_stack
from rmsprop.locks import locked
from rmsprop.loss_scale import LossScale
from rmsprop.parameters import Parameter, described, refuse_repetition
from rmsprop.rebinding import Rebinding
from rmsprop.recording import tapes, tell_tapes
from rmsprop.scopes import entered, entered_strategy, refuse_across_replicas
from rmsprop.step import Captured, by_backend, check_capturable, clipped, fixed, is_captured, update
from rmsprop.tape import Tape
from rmsprop.variable import Variable
from rmsprop.weights import Weights

Step = Variable | Any
"""Result of a step: its number. The None of a step without variables is an `Any` to type checkers, so that
``int(step)`` needs no check that all other steps would never fail."""


class RMSprop(Settings, Weights, Checkpointed, Rebinding):
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
        Applied to the list of pairs one after the other, after aggregation. Excludes clipping.
    lazy : bool, default True
        Whether a sparse gradient leaves the averages of the rows that it does not list as they are. If False
        they decay without momentum, which is what TensorFlow does, contrary to its documentation.
    epsilon_in_sqrt : bool, optional
        Where `epsilon` is added. By default as Keras does: inside of the root with momentum, else outside.
    complex_as_real : bool, default False
        Whether real and imaginary part of a complex variable count as two real numbers, as in PyTorch, each
        with its own average. By default ``|g|**2`` is averaged, so that a global phase makes no difference.
    state_dtype : {None, "bfloat16", "uint8"}, default None
        What averages and momentum are kept in between steps, for NumPy arrays of float32 and float64; by default
        the dtype of the variable. "bfloat16" takes 2 bytes for each element, with errors of less than 1/128 and
        the range of float32. "uint8" takes one, with errors of less than 1/8 of the element or 2**-31 (of momentum
        and ``mg`` 2**-15) of the largest of at most 256 neighbours; beyond 3.2e38 numbers are infinite. Rounding
        leaves averages without bias. With `centered`, the variance is at least about 1/65 or 1/9 of ``rms``.
        Sparse gradients need "bfloat16" or rows of at least 64 elements. Slots and weights are read and set as
        arrays in full.

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
    ) -> None:
        if clipnorm is not None and global_clipnorm is not None:
            raise ValueError(
                f"Cannot accept both `clipnorm` and `global_clipnorm`. "
                f"Received: `clipnorm`={clipnorm}, `global_clipnorm`={global_clipnorm}."
            )
        Weights.__init__(self)
        self.name = name
        self.gradient_aggregator = gradient_aggregator
        self.gradient_transformers = gradient_transformers
        self.clipnorm, self.clipvalue, self.global_clipnorm = clipnorm, clipvalue, global_clipnorm
        self.learning_rate, self.decay = learning_rate_of(learning_rate, lr), decay
        self.rho, self.momentum, self.epsilon = rho, momentum, epsilon
        self.centered, self.lazy = centered, lazy
        self.epsilon_in_sqrt, self.complex_as_real = epsilon_in_sqrt, complex_as_real
        self.state_dtype, self.validate = state_dtype, validate
        self.nonfinite, self.loss_scale = nonfinite, loss_scale
        if entered:
            self._strategy = entered_strategy()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_hooks(cls, RMSprop)

    def __repr__(self) -> str:
        names = inspect.signature(RMSprop).parameters
        given = {name: self.__dict__[f"_{name}"] for name in names if f"_{name}" in self.__dict__}
        if not given.get("gradient_transformers"):
            given.pop("gradient_transformers", None)
        return call_of(self, RMSprop, given)

    @property
    def current_learning_rate(self) -> float:
        """The learning rate that the next step will use, with schedule and `decay`."""
        return self._learning_rate_at(int(self._iterations.array))

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
            `iterations`, increased by one unless the step was left out; None if `grads_and_vars` is empty.

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
        if self._strategy is None:
            grads_and_vars = gradients.listed(grads_and_vars)  # may take a while, in which others can take steps
        with self._lock:
            if self._is_stepping:
                raise RuntimeError("a step of this optimizer is under way, and has called for another one.")
            state = self.__dict__  # which `Settings.__setattr__` need not look at
            state["_is_stepping"] = True
            try:
                return self._step(grads_and_vars, experimental_aggregate_gradients)
            finally:
                state["_is_stepping"] = False

    def _step(self, given: Any, aggregate: bool) -> Step:
        """Take one step, while no other thread uses the optimizer."""
        if self._strategy is not None:
            return self._strategy._take(self, given, aggregate)
        if self.gradient_aggregator is None and not self._gradient_transformers and self._is_replayed(given):
            return self._iterations
        pairs = gradients.pairs(given)
        if not pairs:
            return None
        pairs = self._transformed(pairs, aggregate)
        if not pairs:
            return None
        parameters, grads = self._checked(pairs)
        groups = by_backend(parameters, grads)
        captured = is_captured(groups)
        hyper = self._read(self._step_number(is_needed=not captured))
        if self._constant is None:  # to read the settings may have run the user's code, after which all may differ
            parameters, grads = self._checked(pairs)
            groups = by_backend(parameters, grads)
        if captured:
            check_capturable(groups, [gradient for gradient, _ in pairs], self._needed_slots(), hyper)
        decided_here, hyper_of_update = nonfinite.divided(groups, hyper)
        self._prepare(parameters)  # may fail, and so comes before a device counts that the step is left out
        groups = clipped(groups, hyper_of_update)
        variables = [variable for _, variable in pairs]
        if decided_here and (position := nonfinite.first_of_groups(groups, hyper)) is not None:
            self._leave_out(position, variables[position])
            return self._iterations
        if tapes:
            reserve_stack()  # what they do when they are told, after the step, is not known here
        refresh = update(groups, hyper_of_update)
        tally = self._parameters.plans.tally if hyper_of_update.nonfinite == "skip" else None
        if tally is not None:
            self._iterations.owner = weakref.ref(self)
        if refresh is not None:
            self._iterations.tally = tally
            self._parameters.captured.append(Captured(variables, fixed(hyper), refresh))
            return self._iterations
        self._iterations.take(tally)
        if tapes:
            tell_tapes(*variables)
        return self._iterations

    def _is_replayed(self, given: list[Any]) -> bool:
        """Take the step by what the backend has kept of an earlier one, if all is as it was then."""
        replay, slots = self._parameters.replay_of(given), self._needed_slots()
        accepted = None if replay is None else replay.accept(given, slots)
        if replay is None or accepted is None:
            return False
        hyper = self._constant
        if hyper is None:  # to read the settings may run the user's code, after which all may be different
            hyper = self._read(self._step_number())
            accepted = replay.accept(given, slots)
            if accepted is None or slots is not self._needed_slots():
                return False
        if tapes:
            reserve_stack()
        position = replay.step(accepted, hyper)
        if position is not None:
            self._leave_out(position, given[position][1])
            return True
        self._iterations.take()
        if tapes:
            tell_tapes(*[variable for _, variable in given])
        return True

    def _step_number(self, is_needed: bool = True) -> int:
        """Return the number of steps so far; if the settings depend on it, wait until it is certain."""
        if is_needed and self._depends_on_step():
            self._iterations.settle()
        return int(self._iterations.count)

    def _leave_out(self, position: int, variable: Any) -> None:
        """Count a step that is not taken, or raise the error for the gradient that forbids it."""
        if self.nonfinite == "raise":
            raise nonfinite.error_of(position, variable)
        self._iterations.skip()

    @locked
    def advance(self) -> Variable:
        """Count one replay of a step captured in a CUDA graph, and bring its hyperparameters to the device.

        Call it before each launch of the graph, in the stream of the launch: schedules then go on as without a
        graph. It copies 88 bytes for each captured step, asynchronously. `clipvalue`, `clipnorm`,
        `global_clipnorm` and the variant of the formula stay as captured; to capture a step with others ends the
        replays of earlier ones. The optimizer keeps the variables and gradients of captured steps alive, until
        `discard_captured`, and must itself live as long as the graph. What else is captured with a step must be
        kept alive by you. The stream has to capture in the mode "relaxed", which is CuPy's default.

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
        captured = self._parameters.captured
        if not captured:
            raise RuntimeError("no step has been captured: call apply_gradients while a stream captures.")
        hyper = self._read(self._step_number())
        for name, value in fixed(hyper).items():
            if value != captured[-1].fixed[name]:
                raise RuntimeError(
                    f"{name} can't change between replays of a captured step, which has "
                    f"{captured[-1].fixed[name]!r}; given {value!r}. Capture the step again."
                )
        for step in captured:
            if step.fixed == captured[-1].fixed:
                step.refresh(hyper)
                if tapes:
                    tell_tapes(*step.variables)
        self._iterations.count[()] += 1
        if self._iterations.tally is not None:
            self._iterations.tally.replayed()
        return self._iterations

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
        self._parameters.captured.clear()

    def _transformed(self, pairs: Pairs, aggregate: bool) -> Pairs:
        """Apply the caller's aggregation and transformations, to pairs that have passed the checks."""
        functions = self._gradient_transformers
        if aggregate and self.gradient_aggregator is not None:
            functions = (self.gradient_aggregator, *functions)
        if functions:
            self._checked(pairs)
        for function in functions:
            pairs = gradients.pairs(function(pairs))
        return pairs

    def _checked(self, pairs: Pairs) -> tuple[list[Parameter], list[Gradient]]:
        """Return the parameters, which may still lack slots, and the gradients in their final form."""
        parameters, grads = [], []
        for position, (gradient, variable) in enumerate(pairs):
            parameter = self._parameters.obtain(variable, position)
            array = parameter.variable.array
            if not (  # in a steady step, this is all that a gradient is checked for
                type(gradient) is type(array)
                and gradient.shape == parameter.shape
                and gradient.dtype == array.dtype
            ):
                gradient = gradients.checked(gradient, parameter, position, self.validate)
            parameters.append(parameter)
            grads.append(gradient)
        if len(pairs) > 1 and len({id(p.key) for p in parameters}) < len(pairs):
            refuse_repetition(parameters)
        self._parameters.check_joining(parameters)
        return parameters, grads

    def _prepare(self, parameters: Sequence[Parameter]) -> None:
        """Create the slots that are missing."""
        needed = {*self._needed_slots()}
        missing = [p for p in parameters if not p.slots.keys() >= needed]
        if missing:
            self._create_slots(missing)

    def _needed_slots(self) -> tuple[str, ...]:
        return needed_slots(self._has_momentum, self.__dict__["_centered"])

    def minimize(
        self,
        loss: Any,
        var_list: Any,
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
        tape : rmsprop.tape.Tape, optional
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
        self, loss: Any, params: Any, grad_loss: Any = None, tape: Any = None, jac: bool = False
    ) -> Pairs:
        """Return gradients as `compute_gradients` does, but of the scaled loss."""
        scale = 1.0 if self.loss_scale is None else self.loss_scale.scale
        return compute_gradients(loss, params, grad_loss, tape, jac, scale)

    def get_gradients(self, loss: Any, params: Any) -> list[Gradient]:
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
        return [gradient for gradient, _ in self._complete(compute_gradients(loss, params))]

    def get_updates(self, loss: Any, params: Any) -> list[Step]:
        """Take one step as `minimize` does, but with `get_gradients`; return its result in a list."""
        return [self.apply_gradients(self._complete(self._scaled_gradients(loss, params)))]

    @staticmethod
    def _complete(pairs: Pairs) -> Pairs:
        for position, (gradient, variable) in enumerate(pairs):
            if gradient is None:
                raise ValueError(
                    f"Variable {position} {described(variable)} has `None` for gradient: the loss ignores it."
                )
        return pairs
