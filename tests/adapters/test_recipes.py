"""The recipes of docs/recipes.md run, and solve a small problem each."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
REASON = "in the extra 'adapters'"


def imported(name):
    """Return a package, or skip the test; those of others may warn."""
    warnings.simplefilter("ignore")
    return pytest.importorskip(name, reason=REASON)


def block_of(heading):
    found = re.search(rf"^## {heading}\n.*?^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def ran(heading, **names):
    """Run the block below a heading with these names, and return all names."""
    exec(compile(block_of(heading), f"recipes.md: {heading}", "exec"), names)
    return names


def assert_close(found, truth, by):
    assert np.linalg.norm(found - truth) < by * np.linalg.norm(truth)


def assert_gradient(loss, x, *args):
    """Compare a slope in a random direction with that of the gradient."""
    rng = np.random.default_rng(7)
    along = {name: rng.standard_normal(a.shape) + 1j * rng.standard_normal(a.shape) for name, a in x.items()}
    high, low = ({name: x[name] + sign * 1e-5 * along[name] for name in x} for sign in (1, -1))
    slope = (loss(high, *args)[0] - loss(low, *args)[0]) / 2e-5
    gradients = loss(x, *args)[1]
    found = sum(np.vdot(gradients[name], along[name]).real for name in x)
    np.testing.assert_allclose(found, slope, rtol=1e-5)


def test_each_heading_has_a_test_and_a_block():
    headings = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert {f"test_{heading.lower()}" for heading in headings} <= globals().keys()
    assert PAGE.count("```python") == len(headings) == 7


def test_thinc():
    thinc = imported("thinc.api")
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((32, 3)).astype(np.float32)
    outputs = inputs.sum(1, keepdims=True)
    model = thinc.Linear(1, 3)
    model.initialize()
    ran("thinc", model=model, batches=[(inputs, outputs)] * 300)
    np.testing.assert_allclose(model.get_param("W"), 1, atol=0.05)


def test_autograd():
    import autograd.numpy as anp

    truth = np.array([1.0, -2.0])
    names = ran("autograd", loss=lambda x: anp.sum((x["a"] - truth) ** 2), x0={"a": np.zeros(2)})
    assert_close(names["x"]["a"], truth, 0.05)


def test_sigpy():
    sigpy = imported("sigpy.mri")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32] - 16
    truth = (1 + 0.5j) * (np.hypot(x, y) < 12) - 0.7 * (np.hypot(x - 4, y + 3) < 4)
    coils = np.exp(-(((x - 20 * np.array([[[1]], [[-1]], [[0]]])) ** 2 + y**2) / 800) + 0j)
    mask = (rng.random((32, 32)) < 0.5) | (np.hypot(x, y) < 4)
    data = sigpy.linop.Sense(coils, weights=mask)(truth)
    names = ran("sigpy", y=data, coils=coils, mask=mask)
    assert_close(names["result"].x, truth, 0.05)
    assert np.linalg.norm(names["A"].H(data) - truth) > 0.2 * np.linalg.norm(truth)
    assert_gradient(lambda x: (names["loss"](x["x"])[0], {"x": names["loss"](x["x"])[1]}), {"x": truth + 0.1})


def test_odl():
    odl = imported("odl")
    rng = np.random.default_rng(0)
    truth = np.maximum(0, rng.standard_normal(20))
    A = odl.MatrixOperator(rng.standard_normal((40, 20)))
    names = ran("ODL", A=A, data=A(A.domain.element(truth)))
    assert_close(names["x"].asarray(), truth, 0.02)
    assert names["x"].asarray().min() >= 0


def test_qoc():
    """In a stand-in of qoc's loop, which is not on PyPI."""
    optimizer = ran("qoc")["RMSprop"]()
    truth, errors = np.array([0.5, -0.25]), []

    def jacobian(params, scale):
        errors.append(scale * np.sum((params - truth) ** 2))
        return 2 * scale * (params - truth), errors[-1] <= 1e-3

    x0 = np.zeros(2)
    optimizer.run(lambda params, scale: 0.0, 1000, x0, jacobian, args=(2.0,))
    assert errors[-1] <= 1e-3 < errors[-2]
    assert len(errors) < 1000
    np.testing.assert_array_equal(x0, 0)


def test_ptylab():
    PtyLab = imported("PtyLab")
    rng = np.random.default_rng(0)
    data = PtyLab.ExperimentalData(operationMode="CPM")
    y, x = np.mgrid[:6, :6].reshape(2, -1) * 4 + rng.integers(0, 2, (2, 36))
    pixel, size = 1e-6, 24
    data.wavelength, data.zo, data.dxd = 500e-9, 0.01, 500e-9 * 0.01 / (size * pixel)
    data.encoder = np.stack([y, x], 1) * pixel
    data.entrancePupilDiameter, data.spectralDensity, data.theta = 12 * pixel, None, None
    data.emptyBeam = None
    data.ptychogram = np.zeros((36, size, size))
    data._setData()
    params = PtyLab.Params()
    reconstruction = PtyLab.Reconstruction(data, params)
    reconstruction.initializeObjectProbe()
    truth = {
        "object": np.exp(0.5j * rng.random(reconstruction.object.shape)),
        "probe": reconstruction.probe * np.exp(0.3j * rng.random(reconstruction.probe.shape)),
    }
    for position, (row, col) in enumerate(reconstruction.positions):
        esw = truth["object"][..., row : row + size, col : col + size] * truth["probe"]
        far = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(esw, (-2, -1)), norm="ortho"), (-2, -1))
        data.ptychogram[position] = np.abs(far[0, 0, 0, 0]) ** 2
    engine = PtyLab.Engines.ePIE(reconstruction, data, params, PtyLab.DummyMonitor())
    batches = np.arange(36).reshape(9, 4)
    reconstruction.object = reconstruction.object.astype(complex)
    reconstruction.probe = reconstruction.probe.astype(complex)
    names = ran("PtyLab", engine=engine, reconstruction=reconstruction, batches=batches)
    assert_gradient(names["loss"], truth | {"probe": 0.9 * truth["probe"]}, [0, 17])
    history = names["result"].history["fun"].reshape(-1, 9).sum(1)
    assert history[-1] < 0.2 * history[0]
    assert reconstruction.probe is names["result"].x["probe"]


def test_prysm():
    imported("prysm")
    y, x = np.mgrid[-8:8, -8:8] / 4
    amplitude = np.pad(1.0 * (np.hypot(x, y) < 1.8), 8)
    truth = amplitude * np.pad(0.6 * x * y + 0.4 * x**3 - 0.3 * y**2, 8) / 2
    far = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(amplitude * np.exp(1j * truth)), norm="ortho"))
    names = ran("prysm", amplitude=amplitude, measured=np.abs(far) ** 2, phase0=0.5 * truth)
    assert names["result"].fun < 1e-3 * names["result"].history["fun"][0]
