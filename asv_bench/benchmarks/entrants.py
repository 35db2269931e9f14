"""Who takes part in a comparison: the limit, rmsprop, and the peers that are installed."""

import importlib.util

from benchmarks.contenders import limit, ours
from benchmarks.peers import PEERS
from benchmarks.scenarios import is_supported


def entrants(scenario):
    """Return those that take part in a scenario, by name, the limit first; nobody if rmsprop lacks a setting."""
    if not is_supported(scenario.settings):
        return {}
    first = ours(scenario)
    found = {"limit": limit(scenario, first.streams), "rmsprop": first}
    for name, peer in PEERS.items():
        if is_installed(peer.package) and peer.enters(scenario):
            found[name] = peer.build(scenario)
    return found


def is_installed(package):
    return importlib.util.find_spec(package) is not None
