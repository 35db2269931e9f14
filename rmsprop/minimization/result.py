"""Results of a minimisation, in the form of SciPy: dicts whose entries are attributes."""

from collections.abc import Callable
from typing import Any

MESSAGES = {
    0: "All steps have been taken.",
    1: "The loss has not fallen by more than tol {}.",
    2: "max_seconds have passed.",
    99: "The callback raised StopIteration.",
    -1: "The loss is {}.",
    -2: "Stopped by KeyboardInterrupt; fun is that of the last evaluation.",
}
"""What each status means. Those of 0, 1 and 2 are a success."""


class OptimizeResult(dict[str, Any]):
    """What `rmsprop.minimize` returns, in the manner of ``scipy.optimize.OptimizeResult``.

    Attributes
    ----------
    x : array, Variable, or nested list, tuple or dict of these
        As `x0`; see ``keep_best``.
    fun : float
        The loss at `x`; with batches its mean over the last epoch.
    nit, nfev : int
        The number of steps and of evaluations. Steps before a resumption count, too; evaluations do not.
    success : bool
    status : int
        0: all steps have been taken; 1: `tol`; 2: `max_seconds`; 99: the callback raised ``StopIteration``; -1:
        the loss is not finite; -2: ``KeyboardInterrupt``.
    message : str
    history : dict of str to array
        With an entry for each step: ``fun``, the loss before it, or of its batch; ``seconds`` since the beginning;
        ``learning_rate``, if that is a structure a row with one for each array. NaN for steps before a resumption.
    optimizer : RMSprop
        Its state is that after the last step, also with ``keep_best``.

    Examples
    --------
    >>> import numpy as np, rmsprop
    >>> loss = lambda x: (np.sum(x**2), 2 * x)
    >>> result = rmsprop.minimize(loss, np.ones(2), jac=True, steps=100, learning_rate=0.1)
    >>> result.nit, result["success"], result.history["fun"].shape
    (100, True, (100,))
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    __setattr__ = dict.__setitem__
    __delattr__ = dict.__delitem__

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]

    def __repr__(self) -> str:
        shown = {key: self._shown(key) for key in self}
        width = max(map(len, shown), default=0)
        indent = "\n" + " " * (width + 2)
        return "\n".join(f"{key.rjust(width)}: {indent.join(text.splitlines())}" for key, text in shown.items())

    def _shown(self, key: str) -> str:
        if key == "history":
            return "a dict of " + ", ".join(f"{name} {values.shape}" for name, values in self[key].items())
        return str(self[key])

    def plot(self) -> Any:
        """Draw loss and learning rate against the number of steps.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ModuleNotFoundError
            If matplotlib is not installed.
        """
        try:
            from matplotlib import pyplot as plt
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "plot() needs matplotlib: `pip install matplotlib`.", name=error.name
            ) from error
        history = self["history"]
        figure, (top, bottom) = plt.subplots(2, 1, sharex=True, layout="constrained", height_ratios=(3, 1))
        top.plot(range(1, len(history["fun"]) + 1), history["fun"])
        if (history["fun"] > 0).any() and not (history["fun"] <= 0).any():
            top.set_yscale("log")
        top.set(ylabel="loss", title=f"{self['nit']} steps: loss {self['fun']:.4g}")
        bottom.plot(range(1, len(history["fun"]) + 1), history["learning_rate"])
        bottom.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
        return figure


class IntermediateResult(OptimizeResult):
    """What a callback is given: `x`, a copy that is made when it is read, `fun` and `nit`.

    Parameters
    ----------
    copy : callable
        Returns a copy of the point.
    """

    def __init__(self, copy: Callable[[], Any], **entries: Any) -> None:
        super().__init__(**entries)
        object.__setattr__(self, "_copy", copy)

    def __missing__(self, key: str) -> Any:
        if key != "x":
            raise KeyError(key)
        if self._copy is None:
            raise RuntimeError("x was not read during the callback, and may be another one by now.")
        self["x"] = self._copy()
        return self["x"]

    def __contains__(self, key: object) -> bool:
        return key == "x" or super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return an entry, or a default if there is none."""
        return self[key] if key == "x" else super().get(key, default)

    def __repr__(self) -> str:
        if self._copy is not None:
            self.x  # noqa: B018 (which reads it)
        return super().__repr__()

    def close(self) -> None:
        """Let `x` be copied no more."""
        object.__setattr__(self, "_copy", None)
