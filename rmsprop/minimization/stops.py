"""Stops of a minimisation: why it ends, and when the loss no longer falls."""

import math

from rmsprop.minimization.result import MESSAGES


class Stop(Exception):
    """The end of a minimisation.

    Parameters
    ----------
    status : int
        See `rmsprop.minimization.result.MESSAGES`.
    detail : str
        What is to be told in the message.
    """

    def __init__(self, status: int, detail: str = "") -> None:
        super().__init__(MESSAGES[status].format(detail))
        self.status = status


class Patience:
    """The rule by which a loss no longer falls.

    Parameters
    ----------
    tol : float
        By how much a loss must fall, relative to the larger of 1 and the modulus of the lowest so far, as in
        L-BFGS-B.
    patience : int
        After how many losses on end that have not fallen so much it is over.
    """

    def __init__(self, tol: float, patience: int) -> None:
        self.tol, self.patience = tol, patience
        self._lowest = math.inf
        self._count = self._seen = 0

    def judge(self, losses: list[float]) -> None:
        """Stop if the last of the losses have not fallen; those that were there before have been looked at."""
        while self._seen < len(losses):
            loss = losses[self._seen]
            self._seen += 1
            if self._lowest == math.inf or loss < self._lowest - self.tol * max(1.0, abs(self._lowest)):
                self._lowest, self._count = loss, 0
            else:
                self._count += 1
            if self._count >= self.patience:
                raise Stop(1, f"{self.tol:g} {self.patience} times on end")
