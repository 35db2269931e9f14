"""Modules of PyTorch that are trained: their state in files, copies, pickles, and by other names."""

import copy
import importlib.util
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest

import rmsprop
from rmsprop import RMSprop, TorchTape, Variable, conventions
from rmsprop.conventions import weights_from_torch, weights_to_torch

torch = pytest.importorskip("torch", reason="PyTorch is in the extra 'interop'")

BITS = Path(__file__).parents[2] / "held_bits.py"


def module():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


X, Y = torch.linspace(-1, 1, 80).reshape(20, 4), torch.linspace(1, -1, 20)


def train(model, optimizer, steps=1):
    for _ in range(steps):
        model.zero_grad(set_to_none=True)
        torch.nn.functional.mse_loss(model(X)[:, 0], Y).backward()
        if isinstance(optimizer, RMSprop):
            optimizer.apply_gradients([(p.grad, p) for p in model.parameters()])
        else:
            optimizer.step()


def values(model, optimizer=None):
    weights = [] if optimizer is None else optimizer.get_weights()
    return [*[p.detach().numpy().copy() for p in model.parameters()], *weights]


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "settings",
    [{}, {"momentum": 0.9}, {"centered": True, "weight_decay": 0.01}, {"momentum": 0.5, "maximize": True}],
    ids=str,
)
def test_a_module_is_trained_as_by_torch(settings):
    ours, theirs = module(), module()
    opt, other = conventions.torch(lr=0.01, **settings), torch.optim.RMSprop(theirs.parameters(), 0.01, **settings)
    train(ours, opt, 20)
    train(theirs, other, 20)
    for a, b in zip(values(ours), values(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    third, again = module(), conventions.torch(lr=0.01, **settings)
    again.build(list(third.parameters()))
    again.set_weights(weights_from_torch(other.state_dict()))
    assert_same(again.get_weights(), [np.asarray(w) for w in weights_from_torch(other.state_dict())])
    third.load_state_dict(theirs.state_dict())
    train(third, again)
    train(theirs, other)
    for a, b in zip(values(third), values(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    back = torch.optim.RMSprop(third.parameters(), 0.01, **settings)
    back.load_state_dict(weights_to_torch(again, back.state_dict()))


def test_weights_are_in_the_order_of_keras_and_slots_are_tensors():
    model, opt = module(), RMSprop(0.01, momentum=0.9, centered=True)
    train(model, opt, 2)
    arrays = [p.detach().numpy().copy() for p in model.parameters()]
    other = RMSprop(0.01, momentum=0.9, centered=True)
    other.build(arrays)
    assert [w.shape for w in other.get_weights()] == [w.shape for w in opt.get_weights()]
    other.set_weights(opt.get_weights())
    assert_same(other.get_weights(), opt.get_weights())
    slots = [opt.get_slot(p, name).array for name in opt.get_slot_names() for p in model.parameters()]
    assert all([type(slot) is torch.Tensor and not slot.requires_grad for slot in slots])


def test_files_bring_back_a_module_and_its_state(tmp_path):
    model, opt = module(), RMSprop(0.01, momentum=0.9)
    train(model, opt, 3)
    opt.save(tmp_path / "x.safetensors", dict(model.named_parameters()))
    train(model, opt, 2)
    expected = values(model, opt)
    fresh = module()
    loaded = RMSprop.load(tmp_path / "x.safetensors")
    loaded.restore(tmp_path / "x.safetensors", dict(fresh.named_parameters()))
    train(fresh, loaded, 2)
    assert_same(values(fresh, loaded), expected)
    opt.restore(tmp_path / "x.safetensors", dict(model.named_parameters()))
    assert all(p.is_leaf and p.requires_grad for p in model.parameters())
    train(model, opt, 2)
    assert_same(values(model, opt), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_a_module_with_its_optimizer_go_on_by_themselves(copied):
    model, opt = module(), RMSprop(0.01, momentum=0.9)
    train(model, opt, 3)
    twin, again = copied((model, opt))
    before = values(twin, again)
    train(model, opt, 2)
    assert_same(values(twin, again), before)
    train(twin, again, 2)
    assert_same(values(twin, again), values(model, opt))


def test_a_copy_of_a_module_goes_on_after_rebind():
    model, opt = module(), RMSprop(0.01)
    train(model, opt, 3)
    twin = copy.deepcopy(model)
    opt.rebind(list(twin.parameters()))
    before = values(model)
    train(twin, opt, 2)
    assert_same(values(model), before)


def test_a_leaf_that_was_replaced_is_refused():
    w, opt = torch.ones(3, requires_grad=True), RMSprop(0.1)
    for _ in range(3):
        opt.apply_gradients([(torch.ones(3), w)])
    w = (w * 2).detach().requires_grad_()
    with pytest.raises(ValueError, match="seems to have been replaced"):
        opt.apply_gradients([(torch.ones(3), w)])


def test_a_view_that_is_taken_anew_is_known_by_its_memory():
    whole, array = torch.ones(4, 3), np.ones((4, 3), np.float32)
    ours, theirs = RMSprop(0.1), RMSprop(0.1)
    for k in (0, 1, 0, 0, 1):
        ours.apply_gradients([(torch.full((3,), k + 1.0), whole[k])])
        theirs.apply_gradients([(np.full(3, k + 1.0, np.float32), array[k])])
    np.testing.assert_array_equal(whole.numpy(), array)
    assert len(ours.get_weights()) == 3


def test_a_tensor_in_the_former_memory_of_another_is_a_variable_of_its_own():
    former = torch.ones(3)
    p, opt = torch.nn.Parameter(former), RMSprop(0.1)
    for _ in range(3):
        opt.apply_gradients([(torch.ones(3), p)])
    p.data = torch.ones(3)
    newcomer = former[:]  # which lies where the parameter was
    opt.apply_gradients([(torch.ones(3), p), (torch.ones(3), newcomer)])
    assert len(opt.get_weights()) == 3
    value = p.detach().clone()
    opt.apply_gradients([(torch.ones(3), newcomer)])
    assert torch.equal(p.detach(), value)


def test_parameters_that_have_no_gradient_stay_as_they_are(caplog):
    model, opt = module(), RMSprop(0.01)
    train(model, opt)
    frozen = model[0].weight.requires_grad_(False)
    before = frozen.clone()
    with caplog.at_level(logging.WARNING, "rmsprop"):
        train(model, opt)
    assert "Gradients do not exist" in caplog.text
    assert torch.equal(frozen, before)


def test_constraints_and_tapes_work_with_tensors_in_variables():
    v = Variable(torch.tensor([3.0, -2.0]), constraint=lambda t: t.clamp(min=0))
    memory, opt = v.array, RMSprop(0.1)
    for _ in range(40):
        opt.minimize(lambda t: (t + 1).square().sum(), [v], tape=TorchTape())
    assert v.array is memory
    assert (memory == 0).all()
    p = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    for _ in range(3):
        RMSprop(0.1).minimize(lambda t: t.square().sum(), [p], tape=TorchTape())
    assert (p.abs() < torch.tensor([3.0, 2.0])).all()
    assert p.grad is None


def test_the_loop_over_steps_takes_parameters():
    w = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    result = rmsprop.minimize(lambda x: ((x - 1) ** 2).sum(), w, steps=200, optimizer=RMSprop(0.1))
    assert abs(result.x.detach().numpy() - 1).max() < 0.1
    assert (w == 0).all()
    bounded = rmsprop.minimize(
        lambda x: ((x - 1) ** 2).sum(), w, steps=200, optimizer=RMSprop(0.1), bounds=(-1, 0.5), overwrite_x0=True
    )
    assert bounded.x is w
    np.testing.assert_allclose(w.detach().numpy(), 0.5)


def test_digests_of_trajectories_are_those_of_numpy():
    specification = importlib.util.spec_from_file_location("held_bits", BITS)
    held = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(held)
    for dtype, formula, setting, layout in held.cases():
        if held.is_possible("torch", dtype, setting, layout):
            settings = {**held.FORMULAS[formula], **held.SETTINGS[setting]}
            ours, theirs = (held.digest(xp, dtype, settings, layout) for xp in (torch, np))
            assert ours == theirs, (dtype, formula, setting, layout)
