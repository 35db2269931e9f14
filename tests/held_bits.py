"""Digests of some 250 trajectories, by which a change of the structure shows that it holds all bits.

``python tests/held_bits.py > before.txt``, then again after the change, and ``diff``. With ``cupy`` as argument,
CuPy takes the steps, on a device or in a simulator of one; with ``torch``, tensors in NumPy's memory are updated;
by default NumPy takes them and, as any other library, array_api_strict.
"""

import hashlib
import sys
from itertools import product

import numpy as np

from rmsprop import IndexedSlices, LossScale, RMSprop, Variable, schedules

STEPS = 6
SHAPES = [(4, 64), (7,), (), (300, 2)]

DTYPES = ("float32", "float64", "complex64", "complex128", "float16")

FORMULAS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "centered": {"centered": True},
    "both": {"momentum": 0.5, "centered": True, "epsilon": 1e-3},
}

SETTINGS = {
    "alone": {},
    "clipnorm": {"clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.3},
    "global_clipnorm": {"global_clipnorm": 0.7},
    "scheduled": {"learning_rate": schedules.ExponentialDecay(0.1, 3, 0.5), "decay": 0.01},
    "skip": {"nonfinite": "skip"},
    "scaled": {"nonfinite": "skip", "clipnorm": 2.0, "loss_scale": {"initial_scale": 8.0, "dynamic": False}},
    "as reals": {"complex_as_real": True, "epsilon_in_sqrt": True},
    "bfloat16": {"state_dtype": "bfloat16"},
    "uint8": {"state_dtype": "uint8"},
}

LAYOUTS = ("list", "strided", "sparse")


def numbers(rng, shape, dtype):
    """Return numbers of several magnitudes."""
    values = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 2, shape)
    if dtype.startswith("complex"):
        values = values + 1j * rng.standard_normal(shape)
    return np.asarray(values).astype(dtype)


def variables_of(xp, rng, dtype, layout):
    """Return variables of a library, or of NumPy, CuPy and PyTorch the arrays themselves."""
    if xp.__name__ == "torch":
        return [xp.from_numpy(array) for array in variables_of(np, rng, dtype, layout)]
    arrays = [numbers(rng, shape, dtype) for shape in SHAPES]
    if xp.__name__ == "array_api_strict":
        return [Variable(xp.asarray(array)) for array in arrays]
    arrays = [xp.asarray(array) for array in arrays]
    if layout == "strided":
        return [xp.repeat(a, 2, axis=-1)[..., ::2].T if a.ndim else a for a in arrays]
    return arrays


def gradient_of(xp, rng, variable, dtype, layout):
    """Return a gradient for a variable, in the same library."""
    if xp.__name__ == "torch":
        return in_torch(xp, gradient_of(np, rng, variable, dtype, layout))
    shape = tuple(variable.shape)
    if layout == "sparse" and len(shape) == 2:
        rows = rng.integers(0, shape[0], 5)
        return IndexedSlices(xp.asarray(numbers(rng, (5, shape[1]), dtype)), xp.asarray(rows))
    gradient = numbers(rng, shape, dtype)
    if layout == "strided" and shape:
        return xp.asarray(np.repeat(gradient, 3, axis=0))[::3]
    return xp.asarray(gradient)


def in_torch(torch, gradient):
    """Return a gradient of NumPy in the form of PyTorch, in the same memory."""
    if isinstance(gradient, IndexedSlices):
        return IndexedSlices(torch.from_numpy(gradient.values), torch.from_numpy(gradient.indices))
    return torch.from_numpy(gradient)


def to_host(array):
    return array.get() if hasattr(array, "get") else np.asarray(array)


def digest(xp, dtype, settings, layout):
    """Return a digest of variables and slots after each step."""
    rng = np.random.default_rng(7)
    variables = variables_of(xp, rng, dtype, layout)
    scale = {"loss_scale": LossScale(**settings["loss_scale"])} if "loss_scale" in settings else {}
    optimizer = RMSprop(**{"learning_rate": 0.01, **settings, **scale})
    found = hashlib.blake2b(digest_size=8)
    for step in range(STEPS):
        pairs = [(gradient_of(xp, rng, v, dtype, layout), v) for v in variables]
        if step == STEPS - 2 and settings.get("nonfinite") == "skip":
            pairs[1] = pairs[1][0] * np.inf, pairs[1][1]
        with np.errstate(invalid="ignore"):
            optimizer.apply_gradients(pairs)
        for variable in variables:
            found.update(to_host(variable.array if isinstance(variable, Variable) else variable).tobytes())
    for weight in optimizer.get_weights():
        found.update(weight.tobytes())
    return found.hexdigest()


def is_possible(library, dtype, setting, layout):
    """Tell whether a library takes steps of this kind."""
    if setting in ("bfloat16", "uint8"):
        return library in ("numpy", "cupy") and (setting, layout) != ("uint8", "sparse")
    if library == "array_api_strict":
        return dtype != "float16" and layout != "strided" and setting != "as reals"
    return True


def cases():
    """Yield names of a dtype, a formula and a setting with one of the layouts, as in a Latin square."""
    for i, j, k in product(range(len(DTYPES)), range(len(FORMULAS)), range(len(SETTINGS))):
        yield DTYPES[i], [*FORMULAS][j], [*SETTINGS][k], LAYOUTS[(i + j + k) % len(LAYOUTS)]


def main(libraries):
    """Print the digest of each case."""
    for library in libraries:
        xp = __import__(library)
        for dtype, formula, setting, layout in cases():
            if is_possible(library, dtype, setting, layout):
                settings = {**FORMULAS[formula], **SETTINGS[setting]}
                print(library, dtype, formula, setting, layout, digest(xp, dtype, settings, layout), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["numpy", "array_api_strict"])
