"""Methods that optimizers of Keras call, so that subclasses define them; nothing here would."""

KERAS_HOOKS = frozenset(
    [
        "_aggregate_gradients",
        "_apply_dense",
        "_apply_sparse",
        "_apply_sparse_duplicate_indices",
        "_assert_valid_dtypes",
        "_call_if_callable",
        "_clip_gradients",
        "_compute_gradients",
        "_create_all_weights",
        "_create_hypers",
        "_create_or_restore_slot_variable",
        "_create_slots",
        "_decayed_lr",
        "_deduplicate_indexed_slices",
        "_deduplicate_sparse_grad",
        "_dense_apply_args",
        "_distributed_apply",
        "_fallback_apply_state",
        "_finish",
        "_get_gradients",
        "_get_hyper",
        "_prepare",
        "_prepare_local",
        "_resource_apply_dense",
        "_resource_apply_sparse",
        "_resource_apply_sparse_duplicate_indices",
        "_resource_scatter_add",
        "_resource_scatter_update",
        "_restore_slot_variable",
        "_serialize_hyperparameter",
        "_set_hyper",
        "_sparse_apply_args",
        "_transform_gradients",
        "_transform_loss",
        "_transform_unaggregated_gradients",
        "_valid_dtypes",
        "update_step",
    ]
)


def refuse_hooks(kind: type, base: type) -> None:
    """Raise ``TypeError`` if a subclass of an optimizer, or another of its bases, defines a hook of Keras."""
    for owner in kind.__mro__:
        hooks = sorted(KERAS_HOOKS & vars(owner).keys())
        if hooks and owner not in base.__mro__:
            raise TypeError(
                f"{owner.__name__} defines {hooks[0]}, which Keras would call, but nothing here does. Expected "
                f"gradient_transformers, which get the gradients, or a method that extends apply_gradients."
            )
