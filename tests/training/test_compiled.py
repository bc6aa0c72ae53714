"""Cache of compiled networks: shared and bounded."""

from collections import OrderedDict
from contextlib import ExitStack

import numpy as np
import pytest
from helpers import counted_traces, gradient_step, leased

from skvae.architecture import Architecture
from skvae.training import compiled


@pytest.fixture(autouse=True)
def _nothing_compiled(monkeypatch):
    monkeypatch.setattr(compiled, "_networks", OrderedDict())


def tiny(filters):
    return Architecture((2, 2, 1), 1, filters, 1, 1, "linear", "mse")


def kept():
    return [architecture.filters for architecture, _ in compiled._networks]


def use(filters, *optimizers):
    """Lease trainers of a network at a time."""
    with ExitStack() as stack:
        for optimizer in optimizers or ("sgd",):
            stack.enter_context(leased(tiny(filters), optimizer))


def test_the_least_recently_used_network_goes_first(monkeypatch):
    monkeypatch.setattr(compiled, "MAX_NETWORKS", 2)
    with leased(tiny(1)):
        use(2)
        use(3)
        # Networks in use stay.
        assert kept() == [1, 3]
    use(2)
    assert kept() == [3, 2]
    with leased(tiny(2)), leased(tiny(3)), leased(tiny(1)):
        assert kept() == [2, 3, 1]


def test_trainers_count_towards_the_bound(monkeypatch):
    monkeypatch.setattr(compiled, "MAX_NETWORKS", 3)
    with counted_traces() as counts:
        use(1)
        use(1, "sgd", "adam", "lion", "rmsprop")
        use(2)
    assert counts["built"] == 2
    assert kept() == [1, 2]
    use(1, "adam", "adam", "adam")
    use(2, "sgd", "sgd")
    assert kept() == [1, 2]
    use(3)
    assert kept()[-1] == 3
    assert sum(network.n_kept for network in compiled._networks.values()) <= 3


def test_the_weights_of_all_networks_are_bounded(monkeypatch):
    n_weights = tiny(1).n_weights + tiny(2).n_weights
    monkeypatch.setattr(compiled, "MAX_WEIGHTS_KEPT", n_weights)
    use(1)
    use(2)
    assert kept() == [1, 2]
    use(9)
    assert kept() == [9]


def test_trainers_of_a_network_share_the_graph_of_its_gradient():
    architecture = Architecture((4, 4, 1), 2, 3, 1, 3, "sigmoid", "gaussian")
    rng = np.random.default_rng(0)
    weights = rng.normal(size=architecture.n_weights).astype(np.float32)
    step = architecture, weights, rng.random((5, 4, 4, 1)), 0.1
    with counted_traces() as counts:
        stepped = gradient_step(*step)
        with leased(architecture, "sgd", 5):
            stepped_by_another = gradient_step(*step)
    assert counts == {"built": 1, "traced": 1}
    np.testing.assert_array_equal(stepped_by_another, stepped)
