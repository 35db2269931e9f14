"""How long a step of replicas takes, and what it needs of memory, on any number of ranks."""

import math
import textwrap
from typing import NamedTuple

import numpy as np

from rmsprop.distribute.mpi import BUCKET_BYTES
from rmsprop.distribute.sums import AT_ONCE

RANKS = (2, 4, 16, 64, 256, 1_000, 10_000)
ELEMENTS = 16_000_000
ROWS, WIDTH = 1_000, 16


class Machine(NamedTuple):
    """What the model knows of a machine."""

    latency: float
    """Seconds for each message that a rank sends."""
    bandwidth: float
    """Bytes per second that a rank sends, and receives and adds up meanwhile."""
    start: float
    """Seconds of a step that do not depend on ranks or sizes."""
    update: float
    """Bytes per second of gradients that are applied."""
    agreement: float = 0.0
    """Seconds in which the ranks agree on a step."""
    copying: float = 0.0
    """Seconds for each byte of gradients that a sharded step takes for copies."""
    error: float = math.nan
    """Of the fitted times, the root mean square of the relative error."""


def is_at_once(ranks, total):
    """Tell whether each rank sends so many bytes to each other, which all add them up."""
    return ranks * total <= AT_ONCE


def messages(ranks, total):
    """Return the number of messages that a rank sends to add up so many bytes."""
    buckets = max(math.ceil(total / BUCKET_BYTES), 1)
    return (ranks - 1) * (1 if is_at_once(ranks, total) else 2 * buckets)


def moved(ranks, total):
    """Return the bytes that a rank sends to add up so many bytes, or to add up shares and gather variables."""
    return total * (ranks - 1) * (1 if is_at_once(ranks, total) else 2 / ranks)


def seconds(machine, ranks, total):
    """Return the time of an aggregation of so many bytes, ranks being on processors of their own."""
    return machine.start + machine.latency * messages(ranks, total) + moved(ranks, total) / machine.bandwidth


def agreements(machine, ranks):
    """Return the time in which the ranks agree on a step, and once more before they take it."""
    return machine.agreement + 2 * machine.latency * math.log2(ranks)


def step(machine, ranks, total, is_sharded=False):
    """Return the time of a step."""
    own = total / machine.update / (ranks if is_sharded else 1)
    return agreements(machine, ranks) + seconds(machine, ranks, total) + own + machine.copying * total * is_sharded


def sparse_step(machine, ranks, rows, width=WIDTH):
    """Return the time of a step in which each rank lists so many rows of float32."""
    total = ranks * rows * (4 * width + 8)
    gathers = 3 * machine.latency * (ranks - 1)
    return agreements(machine, ranks) + gathers + total / machine.bandwidth + total / machine.update


def memory(ranks, total, slots=1, is_sharded=False):
    """Return the bytes of slots, and of the buckets, that a rank needs beside variable and gradient."""
    share = ranks if is_sharded else 1
    return slots * total / share, total + 2 * min(BUCKET_BYTES, total) * (ranks - 1) / ranks


def fitted(results, processors):
    """Return the machine that explains the aggregations measured best, in the mean of relative squares.

    Ranks that share processors are taken to wait for each other: their times count ``processors / ranks`` times.
    How long an agreement takes is seen in the shortest steps, and how long copies do in the longest ones.
    """
    largest = results[0]["dense"][-1]
    several = [(result, max(1, result["ranks"] / processors)) for result in results if result["ranks"] > 1]
    rows, times, votes, copies = [], [], {}, []
    for result, crowd in several:
        ranks = result["ranks"]
        for each in result["dense"]:
            total = 4 * each["size"]
            rows.append([1, messages(ranks, total), moved(ranks, total)])
            times.append(each["sum"] / crowd)
        first, last = result["dense"][0], result["dense"][-1]
        votes[ranks] = (first["plain"] - first["sum"] - first["update"]) / crowd
        rest = last["sharded"] - last["sum"] - last["update"] / ranks
        copies.append(rest / crowd / (4 * last["size"]))
    matrix = np.array(rows) / np.array(times)[:, None]
    start, latency, inverse = np.maximum(np.linalg.lstsq(matrix, np.ones(len(times)), rcond=None)[0], 1e-15)
    error = np.sqrt(np.mean((matrix @ [start, latency, inverse] - 1) ** 2))
    update = 4 * largest["size"] / largest["update"]
    agreement = np.mean([vote - 2 * latency * math.log2(ranks) for ranks, vote in votes.items()])
    return Machine(latency, 1 / inverse, start, update, float(agreement), float(np.mean(copies)), float(error))


def page(results, machine, title):
    """Return the page of the documentation."""
    return "\n".join([*_head(title), *_measured(results), *_sparse(results), *_model(machine), ""])


def _head(title):
    text = (
        f"Written by `python asv_bench/replicas.py`. {title}; MPICH of the extra `mpi`, shared memory,"
        " one thread for each rank. Medians, in turn with a bare `Allreduce` of the same bytes in the"
        " same job. Four ranks on two processors: their times say more of waiting than of work."
    )
    return ["# Replicas: measured, and predicted", "", textwrap.fill(text, 115), ""]


def _measured(results):
    lines = ["## Dense, one float32 array", ""]
    names = ["ranks", "elements", "`Allreduce` ms", "sum ms", "ratio", "step ms"]
    lines += _table_head([*names, "sharded ms", "sent MB", "slot MB", "slot MB, sharded"])
    for result in results:
        for each in result["dense"]:
            cells = [result["ranks"], f"{each['size']:,}"]
            cells += (
                ["", "", ""] if result["ranks"] == 1 else [_ms(each["allreduce"]), _ms(each["sum"]), _ratio(each)]
            )
            cells += [_ms(each["plain"]), _ms(each["sharded"])]
            cells += [f"{n / 1e6:.3f}" for n in (each["sent"][0], *each["slots"][:2])]
            lines.append(_row(cells))
    return [*lines, ""]


def _sparse(results):
    lines = ["## Sparse, rows of a float32 table of 1,000,000 × 16", ""]
    lines += _table_head(["ranks", "rows on each rank", "step ms", "sent MB", "sharded ms", "sent MB"])
    for result in results:
        for each in result["sparse"]:
            cells = [result["ranks"], f"{each['rows']:,}"]
            for name in ("plain", "sharded"):
                cells += [_ms(each[name]), f"{each[f'{name} sent'] / 1e6:.3f}"]
            lines.append(_row(cells))
    return [*lines, ""]


def _model(machine):
    formula = (
        "A sum over N ranks of n bytes takes `start + latency · messages + bytes sent / bandwidth`. "
        f"Up to {AT_ONCE / 2**20:g} MiB of all ranks together, each sends everything to each other, in N - 1 "
        f"messages. Else there are ⌈n / {BUCKET_BYTES / 2**20:g} MiB⌉ buckets, for each of which a rank sends the "
        "others their shares, adds up its own and sends them the sums: 2 (N - 1) messages, and 2 n (N - 1) / N "
        "bytes in all. "
        "A step takes two agreements and the update in addition; sharded, 1/N of it, and copies. Sparse, "
        "each rank receives the rows of all others. Assumed are processors of one's own, a network in "
        "which all ranks send at once at full bandwidth, and no rank that is late."
    )
    fit = (
        f"Fitted to the sums above, with a relative error of {machine.error:.0%}: "
        f"start {machine.start * 1e6:.0f} µs, latency {machine.latency * 1e6:.1f} µs, "
        f"bandwidth {machine.bandwidth / 1e9:.2f} GB/s; the update takes {machine.update / 1e9:.2f} GB/s "
        f"of gradients, the agreements on a step {machine.agreement * 1e6:.0f} µs beside their messages, and the "
        f"copies of a sharded step {machine.copying * 1e9:.2f} ns for each byte. "
        "Beyond 4 ranks everything is extrapolated: for a cluster, put its own latency and "
        "bandwidth into `asv_bench/replica_model.py`. What it shows of thousands of ranks: sums by direct "
        "messages are limited by latency there, and want larger buckets (`bucket_bytes`)."
    )
    paragraphs = [formula, fit, f"For {ELEMENTS:,} elements of float32, and {ROWS:,} rows × {WIDTH} on each rank:"]
    names = ["ranks", "plain ms", "sharded ms", "sparse ms", "slot MB", "slot MB, sharded", "buckets MB"]
    lines = ["## The model", "", *[line for text in paragraphs for line in (textwrap.fill(text, 115), "")]]
    lines += _table_head(names)
    total = 4 * ELEMENTS
    for ranks in RANKS:
        slots, buffers = memory(ranks, total)
        times = step(machine, ranks, total), step(machine, ranks, total, True), sparse_step(machine, ranks, ROWS)
        sizes = slots, memory(ranks, total, is_sharded=True)[0], buffers
        lines.append(_row([f"{ranks:,}", *map(_ms, times), *[f"{size / 1e6:.3g}" for size in sizes]]))
    return lines


def _ratio(each):
    return f"{each['sum'] / each['allreduce']:.2f}"


def _ms(time):
    return f"{1e3 * time:.3g}"


def _row(cells):
    return "| " + " | ".join(map(str, cells)) + " |"


def _table_head(names):
    return [_row(names), _row(["--:"] * len(names))]
