"""What several tests share."""

from contextlib import contextmanager

import numpy as np
import pytest

# A network that trains in milliseconds.
TINY = {
    "latent_dim": 2,
    "filters": 2,
    "hidden_layers": 2,
    "epochs": 3,
    "batch_size": 16,
    "random_state": 0,
}


@contextmanager
def counted_traces():
    """Count how often Python builds a network or runs the body of a graph function."""
    from skvae import engine, network

    counts = {"built": 0, "traced": 0}
    unpack, build = engine.Network.unpack, network.build_encoder

    def counting_unpack(self, weights):
        counts["traced"] += 1
        return unpack(self, weights)

    def counting_build(architecture):
        counts["built"] += 1
        return build(architecture)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.Network, "unpack", counting_unpack)
        patch.setattr(network, "build_encoder", counting_build)
        yield counts


def assert_same_fit(first, second):
    """Equal bits in all that was fitted."""
    assert first.history_ == second.history_
    assert first.n_iter_ == second.n_iter_
    assert first.weights_.keys() == second.weights_.keys()
    for path, weight in first.weights_.items():
        np.testing.assert_array_equal(weight, second.weights_[path], err_msg=path)
    np.testing.assert_array_equal(first.latent_kl_, second.latent_kl_)
    assert vars(first).get("noise_variance_") == vars(second).get("noise_variance_")
