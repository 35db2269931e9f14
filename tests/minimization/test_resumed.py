"""minimize with checkpoints: a run that was cut off goes on as if it had not been."""

import numpy as np
import pytest

from rmsprop import CheckpointManager, minimize


def distance(x, batch=1.0):
    wrong = [x["z"] - 1j * batch, x["w"] - batch]
    return sum(float(np.sum(np.abs(w) ** 2)) for w in wrong), {"z": 2 * wrong[0], "w": 2 * wrong[1]}


def x0():
    return {"z": np.zeros(3, complex), "w": np.zeros(2)}


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "accumulate": 2}, {"nonfinite": "skip"}], ids=str)
@pytest.mark.parametrize(
    "batches",
    [
        {},
        {"batches": [1.0, 2.0, 3.0, 4.0], "epochs": 5},
        {"batches": lambda epoch: [epoch, 2.0 * epoch], "epochs": 10},
    ],
    ids=["none", "list", "function"],
)
@pytest.mark.parametrize("stop", [6, 12])
def test_a_run_goes_on_where_its_last_checkpoint_is(settings, batches, stop, tmp_path):
    given = {"jac": True, "learning_rate": 0.01, **settings, **(batches or {"steps": 20})}

    def interrupt(intermediate_result):
        if intermediate_result.nit == stop:
            raise KeyboardInterrupt

    whole = minimize(distance, x0(), **given)
    manager = CheckpointManager(tmp_path, every=1)
    cut = minimize(distance, x0(), checkpoint=manager, callback=interrupt, **given)
    assert (cut.status, cut.nit) == (-2, stop)
    rest = minimize(distance, x0(), checkpoint=CheckpointManager(tmp_path), **given)
    for name in ("z", "w"):
        np.testing.assert_array_equal(rest.x[name], whole.x[name])
    assert rest.nit == whole.nit == 20
    assert rest.fun == whole.fun
    assert np.isnan(rest.history["fun"][:stop]).all()
    np.testing.assert_array_equal(rest.history["fun"][stop:], whole.history["fun"][stop:])
    np.testing.assert_array_equal(rest.history["learning_rate"][stop:], whole.history["learning_rate"][stop:])


def test_a_run_that_is_complete_only_evaluates(tmp_path):
    given = {"jac": True, "steps": 5, "checkpoint": CheckpointManager(tmp_path)}
    first = minimize(distance, x0(), **given)
    again = minimize(distance, x0(), **given)
    assert (again.nit, again.nfev, again.fun) == (5, 1, first.fun)
    np.testing.assert_array_equal(again.x["z"], first.x["z"])
