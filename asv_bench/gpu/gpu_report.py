"""What was measured on a GPU, as text, as a Markdown page and as a plot."""

import cupy
from report import comparison, installed, plot, text


def device():
    """Return the name of the device."""
    name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"]
    return name.decode() if isinstance(name, bytes) else name


def line(name, times):
    """Return the times of a scenario in a line."""
    ratio = times["rmsprop"] / times["limit"]
    return f"{name}: {', '.join(f'{who} {text(t)}' for who, t in times.items())}; {ratio:.2f} of the limit"


def advice(choice):
    """Return what is recommended for a choice."""
    relative = ", ".join(f"{value}: {ratio:.2f}" for value, ratio in choice["relative"].items())
    what = "keep" if choice["best"] == choice["today"] else "change to"
    return f"{choice['what']} = {choice['today']}: {what} {choice['best']} (time relative to today's: {relative})"


def page(found):
    """Return a page with all that was found."""
    versions = ", ".join(f"{name} {number}" for name, number in (installed() | {"cupy": cupy.__version__}).items())
    small = "Small arrays, once: these times mean nothing.\n\n" if found["is_small"] else ""
    advices = "\n".join(f"- {advice(choice)}" for choice in found["choices"])
    return f"""# Benchmarks on a GPU

Written by `make gpu`. The limit is the time in which a copy moves the bytes that a step has to read and write.

{small}![Time per element against size](gpu.svg)

{comparison(found["seconds"])}

{found["date"]}, {found["device"]}, whose copies move {found["bytes_per_second"] / 1e9:.0f} GB/s.
{versions}.

## What a GPU had to decide

{advices}
"""


def draw(found, path):
    """Draw time per element against size."""
    plot(found["seconds"], path)
