"""The methods by which an optimizer is told that variables were replaced."""

from typing import Any

from rmsprop.known import Parameters
from rmsprop.locks import locked
from rmsprop.parameters import listed
from rmsprop.variable import Variable


class Rebinding:
    """What is to be done about variables that are no longer in use; a base of `rmsprop.RMSprop`."""

    _waiting: Any
    _parameters: Parameters
    _slots: list[Variable]
    _slot_names: list[str]
    _is_stepping: bool

    @locked
    def rebind(self, var_list: Any) -> None:
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
        self._check_idle("rebind")
        if self._waiting is not None:
            raise RuntimeError("the loaded state waits for its variables: call build(var_list), not rebind.")
        self._parameters.rebind(listed(var_list))

    @locked
    def forget(self, variables: Any = None) -> None:
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
        self._check_idle("forget", also_captures=variables is not None)
        dropped = self._parameters.forget(None if variables is None else listed(variables))
        slots = {id(slot) for parameter in dropped for slot in parameter.slots.values()}
        names = {name for parameter in self._parameters for name in parameter.slots}
        self._slots = [slot for slot in self._slots if id(slot) not in slots]
        self._slot_names = [name for name in self._slot_names if name in names or not slots]

    def _check_idle(self, doing: str, also_captures: bool = True) -> None:
        """Raise ``RuntimeError`` if something goes on with the variables as they are."""
        if self._is_stepping:
            raise RuntimeError(f"a step of this optimizer is under way, and has called {doing}.")
        if also_captures and self._parameters.captured:
            raise RuntimeError(f"captured steps go on with their arrays: call discard_captured() before {doing}.")
