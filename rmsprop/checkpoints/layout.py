"""The file: that of safetensors, whose last array is a digest of everything before it.

It begins with the length of the header in 8 bytes, then there is the header, then the arrays. The header is JSON:
``__metadata__``, which maps names to strings, and for each array its dtype, shape, and where it begins and ends.
The writer is one of its own, since that of the package safetensors needs all arrays in memory twice and takes no
digest along; and so is the reader, which takes only what the writer writes, to the byte.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import FileIO
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from rmsprop.arrays.libraries import Host
from rmsprop.checkpoints.atomic import EarlySync
from rmsprop.checkpoints.digests import PIECE, digest_of, pieces_of
from rmsprop.checkpoints.errors import CheckpointError
from rmsprop.checkpoints.helpers import helpers_for
from rmsprop.checkpoints.tensors import NAMES, Kind, bytes_of, itemsize_of

FORMAT, VERSIONS = "rmsprop", ("1", "2")
"""The last version is written."""
DIGEST = "sha256"
DIGEST_SIZE = 32
LONGEST = 100_000_000
"""Bytes of the header at most, as in the package safetensors."""
LONGEST_REASON = 400
"""Letters of an error at most, as it may show what is in the file."""

_TEXT = rb'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\/bfnrtu])*+"'
_LIST = rb"\[(?:\d{1,19}(?:,\d{1,19}){0,63}+)?+\]"
_HEADER = re.compile(
    rb'\{"__metadata__":\{(?:' + _TEXT + rb":" + _TEXT + rb",?)*+\}"
    rb"(?:,"
    + _TEXT
    + rb':\{"dtype":"[A-Z0-9_]{1,16}","shape":'
    + _LIST
    + rb',"data_offsets":'
    + _LIST
    + rb"\})*+\} *+"
)
"""The only headers that are parsed: flat ones, which take little more memory than their text."""
_KIND = re.compile(r"(\w{1,32})\[((?:\d{1,19}(?:,\d{1,19}){0,63})?)\]", re.ASCII)


class Tensor(NamedTuple):
    """An array to be written."""

    name: str
    kind: Kind
    read: Callable[[bool], Host]
    """Returns it, when its turn has come; a copy, if that is asked for."""


class Content(NamedTuple):
    """What a file says, after its digest has been verified."""

    source: str
    """Its path, for messages."""
    notes: dict[str, str]
    kinds: dict[str, Kind]
    data: dict[str, Host]
    """The bytes of each array, in the order of the header; all are views of one array."""


def write(file: BinaryIO, notes: Mapping[str, str], tensors: Sequence[Tensor], arrays: Iterable[Host]) -> None:
    """Write a checkpoint.

    Parameters
    ----------
    file : binary file
    notes : mapping of str to str
    tensors : sequence of Tensor
    arrays : iterable of arrays
        Those of `tensors`, one after the other.
    """
    header = _header(notes, tensors)
    data = (bytes_of(array, tensor.kind.dtype) for tensor, array in zip(tensors, arrays, strict=True))
    with helpers_for(sum([tensor.kind.nbytes for tensor in tensors])) as helpers:
        digest, sync = digest_of(VERSIONS[-1], helpers), EarlySync(file, helpers)
        for piece in pieces_of(chain((len(header).to_bytes(8, "little"), header), data)):
            digest.update(piece)
            file.write(piece)
            sync.note(len(piece))
        file.write(digest.digest())
        sync.finish()


def text_of(kind: Kind) -> str:
    """Return a kind in the form in which notes tell it."""
    return f"{kind.dtype}[{','.join(map(str, kind.shape))}]"


def kind_of(text: str) -> Kind:
    """Return the kind that a note tells; ``ValueError`` or ``TypeError`` if it tells none."""
    match = _KIND.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no dtype and shape.")
    shape = tuple(map(int, match[2].split(","))) if match[2] else ()
    return Kind(match[1], shape, itemsize_of(match[1]))


def _header(notes: Mapping[str, str], tensors: Sequence[Tensor]) -> bytes:
    entries: dict[str, Any] = {}
    views = {t.name: text_of(t.kind) for t in tensors if NAMES[t.kind.held[0]] != t.kind.dtype}
    entries["__metadata__"] = {"format": FORMAT, "version": VERSIONS[-1], **views, **notes}
    begin = 0
    for name, kind in [*[(t.name, t.kind) for t in tensors], (DIGEST, Kind("uint8", (DIGEST_SIZE,), 1))]:
        code, shape = kind.held
        entries[name] = {"dtype": code, "shape": shape, "data_offsets": [begin, begin + kind.nbytes]}
        begin += kind.nbytes
    return _dumped(entries)


def _dumped(entries: Mapping[str, Any]) -> bytes:
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def read(path: str | os.PathLike[str]) -> Content:
    """Return what a checkpoint says, verified; its arrays take the memory of the file, once.

    The file is opened once: if it is replaced meanwhile, what it was is read.

    Raises
    ------
    CheckpointError
        If it is no checkpoint, was written by a later version of the format, is cut off or damaged.
    OSError
        If it can't be read.
    """
    source = os.fsdecode(path)
    if not stat.S_ISREG(os.stat(path).st_mode):  # to open a pipe would wait for its writer
        raise CheckpointError(f"{source} is no checkpoint: it is no regular file.")
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            header = _read_header(file, size)
            notes, kinds = _parsed(header, size)
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{source} is no checkpoint: {str(error)[:LONGEST_REASON]}") from None
        file.seek(0)
        content, found = _read_all(file, size, notes["version"])
    if content is None or content[8 : 8 + len(header)].tobytes() != header:
        raise CheckpointError(f"{source} changed while it was read.")
    if content[-DIGEST_SIZE:].tobytes() != found:
        raise CheckpointError(f"{source} is damaged: its content is not that of its {DIGEST}.")
    data, begin = {}, size - sum(kind.nbytes for kind in kinds.values())
    for name, kind in kinds.items():
        data[name] = content[begin : begin + kind.nbytes]
        begin += kind.nbytes
    del kinds[DIGEST], data[DIGEST]
    return Content(source, notes, kinds, data)


def _read_header(file: FileIO, size: int) -> bytes:
    if size < 8 + DIGEST_SIZE:
        raise ValueError(f"it has {size} bytes, less than any.")
    length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, LONGEST):
        raise ValueError(f"its header would have {length} bytes, but the file has {size}.")
    return file.read(length)


def _parsed(header: bytes, size: int) -> tuple[dict[str, str], dict[str, Kind]]:
    """Return the notes of a header, and the kinds of its arrays."""
    if _HEADER.fullmatch(header) is None:
        raise ValueError("its header is none of safetensors.")
    entries = json.loads(header)
    notes = entries["__metadata__"]
    if notes.get("format") != FORMAT:
        raise ValueError(f"its format is {notes.get('format')!r}; expected {FORMAT!r}.")
    _check_version(notes.get("version"))
    if _dumped(entries) != header:  # such as with a name twice, of which others may read the one or the other
        raise ValueError("its header is not what would be written for it.")
    del entries["__metadata__"]
    begin, kinds = 0, {}
    for name, entry in entries.items():
        kinds[name] = kind = _kind(name, entry, notes.get(name))
        if entry["data_offsets"] != [begin, begin + kind.nbytes]:
            raise ValueError(f"the array {name!r} takes {kind.nbytes} bytes from {begin} on; given {entry}.")
        begin += kind.nbytes
    if list(kinds.items())[-1:] != [(DIGEST, Kind("uint8", (DIGEST_SIZE,), 1))]:
        raise ValueError("its last array is no digest.")
    if size != 8 + len(header) + begin:
        raise ValueError(f"it is cut off, or has been added to: {8 + len(header) + begin} bytes became {size}.")
    return notes, kinds


def _check_version(version: Any) -> None:
    """Refuse files of unknown versions. Those of earlier ones differ in their digests."""
    if version not in VERSIONS:
        raise ValueError(
            f"its format has version {version}; this release of rmsprop reads versions {' and '.join(VERSIONS)}. "
            f"Use a newer one."
        )


def _kind(name: str, entry: Mapping[str, Any], note: str | None) -> Kind:
    code, shape = entry["dtype"], tuple(entry["shape"])
    if note is not None:
        kind = kind_of(note)
    elif code in NAMES:
        kind = Kind(NAMES[code], shape, itemsize_of(NAMES[code]))
    else:
        raise ValueError(f"the array {name!r} has the dtype {code}; expected one of {', '.join(NAMES)}.")
    if kind.held != (code, shape):
        raise ValueError(
            f"the array {name!r} is held as {code} of shape {shape}, which is not how {note} is held."
        )
    return kind


def _read_all(file: FileIO, size: int, version: str) -> tuple[Host | None, bytes]:
    """Return all bytes of a file, None if they are fewer than `size`, and the digest of all but the last."""
    content, end = np.empty(size, np.uint8), size - DIGEST_SIZE
    with helpers_for(size) as helpers:
        digest = digest_of(version, helpers)
        for begin in range(0, end, PIECE):
            piece = content.data[begin : min(begin + PIECE, end)]
            if not _filled(file, piece):
                return None, b""
            digest.update(piece)
        return (content, digest.digest()) if _filled(file, content.data[end:]) else (None, b"")


def _filled(file: FileIO, piece: memoryview) -> bool:
    """Read a piece; tell whether the file had as much."""
    while piece:
        count = file.readinto(piece)
        if not count:
            return False
        piece = piece[count:]
    return True
