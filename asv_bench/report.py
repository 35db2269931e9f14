"""Write a table and a plot of the latest results of asv: ``python report.py``, which `make bench` does.

Writes docs/benchmarks.md and docs/benchmarks.svg, and the table into the README, between two markers.
"""

import ast
import itertools
import json
import math
import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[1]
MARKERS = "<!-- benchmarks: written by `make bench` -->", "<!-- end of benchmarks -->"
PACKAGES = ("rmsprop", "numpy", "numba", "torch", "jax", "optax", "tensorflow", "tf-keras")
STEP = "comparison.Step.track_step"
ONE_ARRAY = re.compile(r"1 × ([\d,]+)")


def latest(results):
    """Return what asv wrote last in its folder of results."""
    paths = [path for path in results.glob("*/*.json") if path.name != "machine.json"]
    return json.loads(max(paths, key=lambda path: path.stat().st_mtime).read_text())


def values(report, benchmark):
    """Return the results of a benchmark by parameters, without those that were skipped or failed."""
    found, params = report["results"][benchmark][:2]
    keys = itertools.product(*[[ast.literal_eval(text) for text in texts] for texts in params])
    pairs = zip(keys, found or [], strict=False)
    return {key: value for key, value in pairs if value is not None and not math.isnan(value)}


def by_scenario(times):
    """Return {scenario: {contender: seconds}}."""
    table = {}
    for (scenario, contender), seconds in times.items():
        table.setdefault(scenario, {})[contender] = seconds
    return table


def comparison(table):
    """Return the Markdown table of all contenders; the fastest but the limit is bold."""
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    lines = [row_of(["float32, time of a step", *names, "to the limit", "best peer to rmsprop"])]
    lines.append(row_of(["---", *["---:"] * (len(names) + 2)]))
    for scenario, row in table.items():
        peers = [seconds for name, seconds in row.items() if name not in ("limit", "rmsprop")]
        best = min([*peers, row["rmsprop"]])
        cells = [text(row[name], name != "limit" and row[name] == best) if name in row else "" for name in names]
        faster = f"{min(peers) / row['rmsprop']:.2f}" if peers else ""
        lines.append(row_of([scenario, *cells, f"{row['rmsprop'] / row['limit']:.2f}", faster]))
    return "\n".join(lines)


def others(report):
    """Return a Markdown table of each other benchmark."""
    parts = []
    for name in sorted(report["results"]):
        found = {} if name.startswith("comparison.") else values(report, name)
        if not found:
            continue
        is_time = ".time" in name
        lines = [row_of([f"`{name}`", "time" if is_time else "value"]), row_of(["---", "---:"])]
        for key, value in found.items():
            lines.append(row_of([", ".join(map(str, key)), text(value) if is_time else f"{value:.3g}"]))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def row_of(cells):
    return f"| {' | '.join(cells)} |"


def text(seconds, is_bold=False):
    """Return a time with three digits and a unit."""
    scale, unit = next((s, u) for s, u in ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (0, "ns")) if seconds >= s)
    number = seconds / (scale or 1e-9)
    shown = f"{number:.{max(0, 2 - math.floor(math.log10(number)))}f} {unit}"
    return f"**{shown}**" if is_bold else shown


def circumstances(report, versions):
    """Return when and on what the results were measured."""
    machine = report["params"]
    day = datetime.fromtimestamp(report["results"][STEP][3] / 1000, UTC).date()
    gib = int(machine["ram"]) / 2**30
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    return (
        f"{day}, commit {report['commit_hash'][:8]}, {machine['cpu']}, {machine['num_cpu']} cores, "
        f"{gib:.0f} GiB, {machine['os'].split()[0]}.\n{packages}."
    )


def installed():
    """Return the versions of the packages that are compared."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def plot(table, path):
    """Draw time per element against size, one line for each contender, the limit dashed."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    sizes = {name: int(m[1].replace(",", "")) for name in table if (m := ONE_ARRAY.fullmatch(name))}
    names = list(dict.fromkeys(name for scenario in sizes for name in table[scenario]))
    with mpl.rc_context({"svg.hashsalt": "rmsprop", "svg.fonttype": "none", "font.size": 11}):
        axes = (figure := Figure(figsize=(8, 4.5), layout="constrained")).subplots()
        axes.set_prop_cycle(color=[f"tab:{c}" for c in ("blue", "orange", "green", "purple", "brown", "gray")])
        for name in names:
            points = [(n, 1e9 * table[s][name] / n) for s, n in sizes.items() if name in table[s]]
            style = {
                "limit": {"color": "black", "ls": "--"},
                "rmsprop": {"color": "crimson", "lw": 3, "zorder": 3},
            }
            axes.loglog(*zip(*points, strict=True), label=name, marker=".", **style.get(name, {}))
        axes.set(xlabel="elements of one float32 array", ylabel="ns per element and step")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, ncols=2)
        figure.savefig(path, metadata={"Date": None})


def between_markers(readme, content):
    """Return the README with new content between the markers."""
    begin, end = MARKERS
    before, rest = readme.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def write(report, house, versions):
    """Write the table, the plot and the README's part."""
    table = by_scenario(values(report, STEP))
    docs = house / "docs"
    plot(table, docs / "benchmarks.svg")
    shown = f"{comparison(table)}\n\n{circumstances(report, versions)}"
    page = (
        f"# Benchmarks\n\nWritten by `make bench`.\n\n![Time per element against size](benchmarks.svg)\n\n{shown}"
    )
    (docs / "benchmarks.md").write_text(f"{page}\n\n{others(report)}".rstrip() + "\n")
    readme = house / "README.md"
    picture = "![Time per element of a step against the size of an array](docs/benchmarks.svg)"
    readme.write_text(between_markers(readme.read_text(), f"{picture}\n\n{shown}"))


if __name__ == "__main__":
    write(latest(Path(__file__).parent / "results"), HOUSE, installed())
