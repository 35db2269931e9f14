"""Faults in the conventions of other frameworks, and in state that comes from them and goes there."""

from machinery import Mutant

MUTANTS = [
    Mutant(
        "momentum of torch with the learning rate", "rmsprop/conventions/pytorch.py",
        "test_peer_runs.py -k 'within_4_ulp_per_step and torch_2 and numpy'",
        "        momentum_includes_lr=False,\n", "",
    ),
    Mutant(
        "averages of timm from 0 on", "rmsprop/conventions/pytorch.py",
        "test_peer_runs.py -k 'within_4_ulp_per_step and timm and numpy'",
        "        initial_accumulator=1.0,\n", "",
    ),
    Mutant(
        "decay of timm never decoupled", "rmsprop/conventions/pytorch.py",
        "test_peer_runs.py -k 'within_4_ulp_per_step and timm and numpy'",
        "        decoupled=decoupled_decay,\n", "",
    ),
    Mutant(
        "epsilon of optax always inside", "rmsprop/conventions/functions.py",
        "test_peer_runs.py -k 'within_4_ulp_per_step and optax_7 and numpy'",
        'epsilon_of("eps", eps, eps_in_sqrt)', 'epsilon_of("eps", eps, True)',
    ),
    Mutant(
        "momentum of 0 in optax not remembered", "rmsprop/conventions/functions.py",
        "test_conventions.py -k momentum_of_zero",
        "momentum = np.array(0.0)", "momentum = 0.0",
    ),
    Mutant(
        "schedules of optax called without the count", "rmsprop/conventions/functions.py",
        "test_conventions.py -k number_of_finished_steps",
        "        counted(learning_rate),\n", "        learning_rate,\n",
    ),
    Mutant(
        "momentum of MXNet not ignored", "rmsprop/conventions/layers.py",
        "test_conventions.py -k formula_of_the_framework",
        "momentum if centered else 0.0", "momentum",
    ),
    Mutant(
        "several limits of Keras taken", "rmsprop/conventions/tensorflow.py",
        "test_conventions.py -k has_no_counterpart",
        "if sum(limit is not None for limit in limits.values()) > 1:", "if False:",
    ),
    Mutant(
        "no epsilon inside of the root", "rmsprop/settings/checks.py",
        "test_conventions.py -k without_epsilon",
        "epsilon=SMALLEST_EPSILON, epsilon_in_sqrt=False", "epsilon=SMALLEST_EPSILON, epsilon_in_sqrt=in_sqrt",
    ),
    Mutant(
        "arguments without a counterpart ignored", "rmsprop/conventions/shared.py",
        "test_conventions.py -k has_no_counterpart",
        "        expected = ", "        return\n        expected = ",
    ),
    # State
    Mutant(
        "mean gradient of torch with its sign", "rmsprop/conventions/torch_state.py",
        "test_states.py -k sign_of_the_mean_gradient",
        'np.asarray(-slot) if name == "mg" and group.get("maximize", False) else slot', "slot",
    ),
    Mutant(
        "state of another optimizer in torch taken", "rmsprop/conventions/torch_state.py",
        "test_states.py -k no_state_of_rmsprop_in_torch",
        '"rms" not in names or any(', "any(",
    ),
    Mutant(
        "state for torch of other slots", "rmsprop/conventions/torch_state.py",
        "test_states.py -k take_for_something_else",
        "        _check_fits(optimizer, slots, group)\n", "        pass\n",
    ),
    Mutant(
        "trace of optax with its sign", "rmsprop/conventions/optax_state.py",
        "test_peer_runs.py -k 'that_of_the_framework and optax and numpy'",
        'np.asarray(-slot) if name == "momentum" else slot', "slot",
    ),
    Mutant(
        "dicts of JAX in their own order", "rmsprop/conventions/optax_state.py",
        "test_states.py -k sorted_keys",
        "        tree = [tree[key] for key in sorted(tree)]\n", "        tree = list(tree.values())\n",
    ),
    Mutant(
        "counts of optax that differ", "rmsprop/conventions/optax_state.py",
        "test_states.py -k no_state_of_rmsprop_in_optax",
        "    if len(counts) > 1:\n", "    if False:\n",
    ),
    Mutant(
        "schedules given to Keras as numbers", "rmsprop/conventions/keras_state.py",
        "test_states.py -k learning_rate_if_that_is_a_number",
        "rates = [np.asarray(optimizer.current_learning_rate)] if is_number else []",
        "rates = [np.asarray(optimizer.current_learning_rate)]",
    ),
    Mutant(
        "averages of Keras behind the slots", "rmsprop/conventions/keras_state.py",
        "test_states.py -k averages_of_the_variables_go_along",
        '(AVERAGE, ACCUMULATOR, "rms", "momentum", "mg")', '(ACCUMULATOR, "rms", "momentum", "mg", AVERAGE)',
    ),
]  # fmt: skip
