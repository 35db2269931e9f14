"""Faults in the check of gradients."""

from machinery import Mutant

FOLDER = "rmsprop/gradient_checks"

MUTANTS = [
    Mutant(
        "extrapolation of another ratio", f"{FOLDER}/differences.py",
        "test_differences.py -k powers_of_the_step",
        "(RATIO ** (2 * j) - 1)", "(RATIO**j - 1)",
    ),
    Mutant(
        "steps that are halved", f"{FOLDER}/differences.py",
        "test_differences.py -k looks_exact_by_chance",
        "RATIO = 1.9", "RATIO = 2.0",
    ),
    Mutant(
        "no noise but that of rounding", f"{FOLDER}/differences.py",
        "test_right_gradients.py -k noise_makes_no_right_gradient_wrong",
        "max(rounding, _scatter(table, steps), 2 * _quantum(samples))", "rounding",
    ),
    Mutant(
        "kinks not seen", f"{FOLDER}/differences.py",
        "test_right_gradients.py -k kinks_make_no_right_gradient_wrong",
        '"kink": kink,', '"kink": 0.0,',
    ),
    Mutant(
        "gradients of complex arrays not conjugated", f"{FOLDER}/verdicts.py",
        "test_planted_faults.py -k without_the_fault_is_right",
        "np.vdot(gradient, way).real", "np.sum(gradient * way).real",
    ),
    Mutant(
        "fits at any tolerance", f"{FOLDER}/verdicts.py",
        "test_planted_faults.py -k in_double_precision",
        "<= abs(scale) * tolerance", "<= math.inf",
    ),
    Mutant(
        "real directions only", f"{FOLDER}/check.py",
        "test_planted_faults.py -k in_double_precision",
        "is_complex and k % 2 == 1", "False",
    ),
    Mutant(
        "arrays themselves given to the loss", f"{FOLDER}/losses.py",
        "test_check_gradients.py -k nothing_is_changed",
        "rebuilt(self.x0, map(copied, arrays))", "rebuilt(self.x0, arrays)",
    ),
    Mutant(
        "rows that are listed twice counted once", f"{FOLDER}/dense.py",
        "test_check_gradients.py -k sparse_gradients_are_summed",
        "np.add.at(total, indices.astype(np.intp), values)", "total[indices] = values",
    ),
    Mutant(
        "precision of the array alone", f"{FOLDER}/losses.py",
        "test_check_gradients.py -k coarsest_dtype",
        "self.precision = max(self.precision, epsilon_of(value if is_array(value) else host))", "pass",
    ),
    Mutant(
        "second halves not searched", f"{FOLDER}/worst.py",
        "test_check_gradients.py -k worst_elements_are_shown",
        "(middle, stop, total - first)", "(middle, stop, 0.0)",
    ),
]  # fmt: skip
