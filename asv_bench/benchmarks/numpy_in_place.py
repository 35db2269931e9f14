"""RMSprop as one writes it in NumPy, with care: in place, without new arrays."""

import numpy as np


class NumPyInPlace:
    """The state, and memory for intermediate results."""

    def __init__(
        self,
        shapes,
        learning_rate,
        rho,
        epsilon,
        momentum=None,
        centered=False,
        global_clipnorm=None,
        weight_decay=None,
    ):
        self.learning_rate, self.rho, self.epsilon, self.momentum = learning_rate, rho, epsilon, momentum
        self.global_clipnorm, self.weight_decay = global_clipnorm, weight_decay
        self.variables, self.rms = zeros(shapes), zeros(shapes)
        self.mom = zeros(shapes) if momentum is not None else [None] * len(shapes)
        self.mg = zeros(shapes) if centered else [None] * len(shapes)
        scratch = [np.empty(max(v.size for v in self.variables), np.float32) for _ in range(3)]
        self.work = [[s[: v.size].reshape(v.shape) for s in scratch] for v in self.variables]

    def step(self, gradients):
        scale = None if self.global_clipnorm is None else self.scale(gradients)
        for g, *arrays, work in zip(
            gradients, self.variables, self.rms, self.mom, self.mg, self.work, strict=True
        ):
            if scale is not None:
                g = np.multiply(g, scale, out=work[2])
            if self.weight_decay is not None:
                np.multiply(arrays[0], self.weight_decay, out=work[0])
                g = np.add(g, work[0], out=work[2])
            self.update(g, *arrays, work[0], work[1])

    def scale(self, gradients):
        """Return what to multiply gradients by, so that their norm is `global_clipnorm` at most."""
        norm = np.sqrt(sum(float(np.vdot(g, g)) for g in gradients))
        return self.global_clipnorm / max(norm, self.global_clipnorm)

    def update(self, g, v, rms, mom, mg, a, b):
        np.multiply(g, g, out=a)
        a *= 1 - self.rho
        rms *= self.rho
        rms += a
        np.divide(g, self.root(g, rms, mom, mg, a, b), out=a)
        a *= self.learning_rate
        if mom is None:
            v -= a
        else:
            mom *= self.momentum
            mom += a
            v -= mom

    def root(self, g, rms, mom, mg, a, b):
        """Return the denominator in `a`."""
        if mg is not None:
            mg *= self.rho
            np.multiply(g, 1 - self.rho, out=b)
            mg += b
            np.multiply(mg, mg, out=a)
            rms = np.subtract(rms, a, out=a)
        if mom is None:
            np.sqrt(rms, out=a)
            a += self.epsilon
        else:
            np.add(rms, self.epsilon, out=a)
            np.sqrt(a, out=a)
        return a


def rows_step(values, indices, table, rms, learning_rate, rho, epsilon):
    """Update the listed rows of a table, those that are listed twice by the sum."""
    rows, which = np.unique(indices, return_inverse=True)
    g = np.zeros((len(rows), *values.shape[1:]), values.dtype)
    np.add.at(g, which, values)
    average = rms[rows]
    average *= rho
    average += (1 - rho) * g * g
    rms[rows] = average
    table[rows] -= learning_rate * g / (np.sqrt(average) + epsilon)


def zeros(shapes):
    return [np.zeros(shape, np.float32) for shape in shapes]
