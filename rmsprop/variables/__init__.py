"""Arrays with a name that optimizers update, and what follows them."""
