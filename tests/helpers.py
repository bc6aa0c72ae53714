"""Parameters, classes and functions shared by tests."""

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


class Hooks:
    """A callback of scikit-learn's that does nothing, for others to start from."""

    def setup(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass


@contextmanager
def counted_traces():
    """Count how often a network is built, and how often its gradient is traced."""
    from skvae.training.compiled import Network

    counts = {"built": 0, "traced": 0}
    build, split = Network.__init__, Network.split

    def counting_build(self, architecture):
        counts["built"] += 1
        build(self, architecture)

    def counting_split(self, *args):
        counts["traced"] += 1
        return split(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "__init__", counting_build)
        patch.setattr(Network, "split", counting_split)
        yield counts


def starting_weights(architecture, rng):
    """Initial weights for images whose mean is that of the value range."""
    from skvae.network.initializers import initial_weights

    return initial_weights(
        architecture, rng, np.full(architecture.image_shape[-1], 0.5)
    )


def leased(architecture, optimizer="sgd", batch_size=16):
    """Lease a trainer, as a fit does."""
    from skvae.training.replicas import current_strategy
    from skvae.training.trainer import leased_trainer

    return leased_trainer(architecture, optimizer, batch_size, current_strategy())


def flat(weights):
    """Weights of a dict as one vector (n_weights,)."""
    return np.concatenate([weight.ravel() for weight in weights.values()])


def new_state(weights):
    """State of training with a new optimizer."""
    from skvae.training.plan import TrainingState

    return TrainingState(
        seed=0,
        n_epochs=0,
        n_steps=0,
        weights=weights,
        last_weights=weights,
        noise_variance=0.5,
        optimizer_arrays=[],
    )


def gradient_step(
    architecture, weights, images, learning_rate, *, kl_weight=1.0, noise_factor=1.0
):
    """Weights (n_weights,) after one step of plain gradient descent on a batch."""
    with leased(architecture, "sgd", len(images)) as trainer:
        trainer.load(new_state(weights), learning_rate)
        trainer.train_steps(
            images,
            0.0,
            1.0,
            kl_weight=kl_weight,
            free_bits=0.0,
            noise_factor=noise_factor,
            batch_size=len(images),
            noise_seed=0,
            first_step=0,
            n_images=len(images),
            sums=np.zeros(3),
        )
        return trainer.state(0, 0).last_weights


def assert_same_fit(first, second):
    """Equal bits in all that was fitted."""
    assert first.history_ == second.history_
    assert first.n_iter_ == second.n_iter_
    assert first.weights_.keys() == second.weights_.keys()
    for path, weight in first.weights_.items():
        np.testing.assert_array_equal(weight, second.weights_[path], err_msg=path)
    last_weights = [vae._state_["last_weights"] for vae in (first, second)]
    np.testing.assert_array_equal(*last_weights)
    np.testing.assert_array_equal(first.latent_kl_, second.latent_kl_)
    variances = [vars(vae).get("noise_variance_") for vae in (first, second)]
    assert type(variances[0]) is type(variances[1])
    np.testing.assert_array_equal(*variances)


def assert_unchanged(vae, before):
    """Assert that parameters and fitted attributes are the same as before."""
    assert vars(vae).keys() == vars(before).keys()
    assert repr(vae.get_params()) == repr(before.get_params())
    if hasattr(vae, "weights_"):
        assert_same_fit(vae, before)
        for name in ("n_features_in_", "input_shape_", "value_range_"):
            assert getattr(vae, name) == getattr(before, name), name
        for name in ("feature_names_in_", "sampler_"):
            assert repr(vars(vae).get(name)) == repr(vars(before).get(name)), name
        private, earlier = dict(vae._state_), dict(before._state_)
        arrays, earlier_arrays = (
            [p.pop("last_weights"), *p.pop("optimizer_arrays")]
            for p in (private, earlier)
        )
        assert private == earlier
        for array, earlier_array in zip(arrays, earlier_arrays, strict=True):
            np.testing.assert_array_equal(array, earlier_array)
