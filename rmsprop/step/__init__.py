"""Steps: from pairs of gradient and variable to updated variables, or to an error and nothing changed."""
