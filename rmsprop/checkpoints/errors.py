"""The error for a file that is no sound checkpoint, or not one of this optimizer."""


class CheckpointError(ValueError):
    """A file is no checkpoint, is damaged, or does not fit the optimizer or variables that are to be restored.

    Errors of the file system, such as a missing file, stay what they are: ``OSError``.

    Examples
    --------
    >>> import pathlib, tempfile, rmsprop
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "notes.txt"
    ...     _ = path.write_text("no checkpoint")
    ...     try:
    ...         rmsprop.RMSprop.load(path)
    ...     except rmsprop.CheckpointError as error:
    ...         print(str(error).removeprefix(folder))
    /notes.txt is no checkpoint: it has 13 bytes, less than any.
    """
