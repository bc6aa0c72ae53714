"""Saved states and files: valid ones load equal, errors name the invalid entry."""

import copy
import io
import itertools
import pickle
import random
import struct
import tracemalloc
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from helpers import TINY, assert_same_fit, assert_unchanged, flat
from sklearn.mixture import GaussianMixture

from skvae import ConvVAE
from skvae.architecture import DTYPE_POLICIES, LOSS_SCALE_VARIABLES, OPTIMIZERS
from skvae.persistence.state import FORMAT, FORMAT_NAME

FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).random((40, 64))


@pytest.fixture(scope="module")
def kinds(rows):
    """Fitted estimators whose states together have all entries."""
    names = [f"pixel{i}" for i in range(64)]
    return [
        ConvVAE(**TINY, early_stopping=True).fit(pd.DataFrame(rows, columns=names)),
        ConvVAE(**TINY, likelihood="bernoulli", optimizer="nadam").fit(rows),
        ConvVAE(**TINY, dtype_policy="mixed_float16").fit(rows.reshape(-1, 8, 8)),
        ConvVAE(**TINY, noise_type="diag").fit(rows.reshape(-1, 8, 8)),
    ]


def loaded(state):
    vae = ConvVAE.__new__(ConvVAE)
    vae.__setstate__(state)
    return vae


def places(state, path=()):
    """Paths to every entry of nested dicts, lists and tuples."""
    entries = state.items() if isinstance(state, dict) else enumerate(state)
    for name, value in entries:
        yield (*path, name)
        if isinstance(value, dict | list | tuple):
            yield from places(value, (*path, name))


def replaced(state, path, change):
    """Copy nested containers and apply `change` to one entry."""
    name, *rest = path
    container = list(state) if isinstance(state, tuple) else copy.copy(state)
    if rest:
        container[name] = replaced(state[name], rest, change)
    else:
        change(container, name)
    return tuple(container) if isinstance(state, tuple) else container


def remove(container, name, _):
    del container[name]


def add(container, name, _):
    if isinstance(container, list):
        container.append(container[name])
    else:
        container["surplus"] = container[name]


def shadow(container, name, choose):
    if isinstance(container, dict):
        container["transform"] = container[name]
    else:
        remove(container, name, choose)


def retype(container, name, choose):
    value = container[name]
    if isinstance(value, np.ndarray):
        other = "int64" if value.dtype != np.int64 else "float32"
        container[name] = value.astype(other) if value.dtype != object else list(value)
    else:
        others = [object(), b"bytes", {1: 2}, "text", 1j, [None], 7.5, np.arange(2)]
        container[name] = choose.choice(
            [other for other in others if type(other) is not type(value)]
        )


def reshape(container, name, choose):
    value = container[name]
    if isinstance(value, np.ndarray):
        container[name] = value[np.newaxis]
    elif isinstance(value, list | tuple) and value:
        container[name] = type(value)([*value, value[-1]])
    else:
        retype(container, name, choose)


def enlarge(container, name, choose):
    """Declare a size that the arrays do not have."""
    value = container[name]
    if type(value) is int:
        container[name] = choose.choice([10**3, 10**9, 10**18, 2**100]) + value
    elif isinstance(value, np.ndarray) and value.dtype != object:
        container[name] = np.broadcast_to(value, (10**9, *value.shape))
    else:
        retype(container, name, choose)


def not_finite(container, name, choose):
    value = container[name]
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        container[name] = value.copy()
        container[name].ravel()[-1:] = choose.choice([np.nan, np.inf])
    else:
        container[name] = -np.inf


def negate(container, name, _):
    value = container[name]
    is_number = type(value) in (int, float) and value != 0
    container[name] = -value if is_number else None


CHANGES = [remove, add, shadow, retype, reshape, enlarge, not_finite, negate]


@pytest.mark.filterwarnings("ignore:X (has|does not have) :UserWarning")
def test_a_thousand_changed_states_are_refused_by_name_or_work(kinds, rows):
    choose = random.Random(0)
    messages = []
    n_states = 0
    tracemalloc.start()
    for state in (vae.__getstate__() for vae in kinds):
        for path, change in itertools.product(places(state), CHANGES):
            n_states += 1
            try:
                vae = loaded(
                    replaced(
                        state, path, lambda *at, change=change: change(*at, choose)
                    )
                )
            except ValueError as error:
                messages.append((path, change, str(error)))
                continue
            if len(path) == 1 and path[0] in vae.get_params():
                continue  # parameters are validated in fit
            z = vae.transform(rows[:2])
            assert np.isfinite(z).all()
            assert np.isfinite(vae.inverse_transform(z)).all()
            assert np.isfinite(vae.score_samples(rows[:2], n_draws=2)).all()
            assert len(vae.sample(2)) == 2
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_states > 1000
    assert len(messages) > 0.7 * n_states
    for path, change, message in messages:
        named = [part for part in path if isinstance(part, str)]
        if change is shadow:
            named += ["transform"]
        if change is enlarge:  # the entry that does not have the declared size
            named += ["weights_", "history_", "newer version"]
        what, _, _ = message.partition(", expected")
        assert any(name in what for name in named), (path, change, message)
    assert peak < 50 * 2**20


def test_states_in_any_order_and_with_attributes_of_ones_own_load_equal(kinds):
    for vae in map(copy.copy, kinds):
        state = vae.__getstate__()
        assert_unchanged(loaded(state), vae)
        backwards = dict(reversed(state.items()))
        for name in ("weights_", "history_", "_state_"):
            backwards[name] = dict(reversed(backwards[name].items()))
        assert_unchanged(loaded(backwards), vae)
        vae.note = "mine"
        assert pickle.loads(pickle.dumps(vae)).note == "mine"


class Counting(ConvVAE):
    """A subclass with an attribute of the class, set in fit, and one set before."""

    n_fits = 0

    def fit(self, X, y=None, **kwargs):
        self.n_fits += 1
        self.n_features_in_ = X.shape[1]
        return super().fit(X, y, **kwargs)


def test_subclasses_are_copied_fitted_and_not(rows):
    vae = Counting(**TINY)
    vae.n_features_in_ = 64
    assert copy.deepcopy(vae).n_fits == 0
    vae.fit(rows)
    assert pickle.loads(pickle.dumps(vae)).n_fits == 1


def test_shapes_of_numpys_integers_are_saved(rows):
    class Stored:
        shape = tuple(np.array([40, 8, 8]))
        dtype = rows.dtype

        def __getitem__(self, part):
            return rows.reshape(40, 8, 8)[part]

    vae = pickle.loads(pickle.dumps(ConvVAE(**TINY).fit(Stored())))
    assert [type(n) for n in vae.input_shape_] == [int, int, int]

    class Rows:
        shape = tuple(np.array([40, 64]))

        def __array__(self, dtype=None, copy=None):
            return rows

    assert pickle.loads(pickle.dumps(ConvVAE(**TINY).fit(Rows()))).n_features_in_ == 64


def test_a_last_step_that_diverges_is_no_fit(rows):
    """There is one step, and the loss after it is never computed."""
    vae = ConvVAE(**{**TINY, "epochs": 1, "batch_size": 64}).fit(rows)
    before = dict(vars(vae))
    with pytest.raises(ValueError, match="Training diverged"):
        vae.set_params(learning_rate=1e6).fit(rows)
    assert vars(vae) == {**before, "learning_rate": 1e6}


def test_a_refused_state_changes_nothing(kinds):
    vae = copy.copy(kinds[0])
    before = dict(vars(vae))
    with pytest.raises(ValueError, match="n_iter_"):
        vae.__setstate__({**vae.__getstate__(), "n_iter_": 0})
    assert vars(vae) == before


def test_seeds_are_those_that_numpy_takes(kinds):
    state = kinds[0].__getstate__()
    for seed in (-1, 2**32):
        private = {**state["_state_"], "seed": seed}
        with pytest.raises(ValueError, match=r"_state_\['seed'\]"):
            loaded({**state, "_state_": private})
        with pytest.raises(ValueError, match="integer from 0 to 4294967295"):
            kinds[0].sample(random_state=seed)
    private["seed"] = 2**32 - 1
    vae = loaded({**state, "_state_": private})
    encoded = vae.to_keras().encoder(np.zeros((2, 8, 8, 1), np.float32))
    assert len(encoded[0]) == 2


def test_sizes_are_refused_before_anything_is_worked_out(kinds):
    """The shapes of so deep a network would take memory quadratic in its depth."""
    state = kinds[0].__getstate__()
    depth = 40_000
    private = state["_state_"]
    architecture = {**private["architecture"], "hidden_layers": depth}
    deep = {
        **state,
        "weights_": dict.fromkeys(map(str, range(2 * (2 * depth + 5)))),
        "_state_": {**private, "architecture": architecture},
    }
    tracemalloc.start()
    with pytest.raises(
        ValueError, match=r"'hidden_layers'\] is 40000, expected at most"
    ):
        loaded(deep)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_parameter_constraints", None),
        ("_n_features_out", 3),
        ("n_iter_", 10**5000),
        (FORMAT_NAME, 10**5000),
    ],
    ids=lambda part: part if isinstance(part, str) else "value",
)
def test_what_the_class_has_and_huge_numbers_are_refused(kinds, name, value):
    with pytest.raises(ValueError, match=r"cannot be loaded|newer version"):
        loaded({**kinds[0].__getstate__(), name: value})


def test_a_newer_format_and_none_are_named(kinds):
    state = kinds[0].__getstate__()
    newer = f"newer version of skvae, in format {FORMAT + 1}; .* up to format {FORMAT}"
    with pytest.raises(ValueError, match=newer):
        loaded({**state, FORMAT_NAME: FORMAT + 1})
    del state[FORMAT_NAME]
    with pytest.raises(ValueError, match=FORMAT_NAME):
        loaded(state)


@pytest.mark.parametrize("latent_dim", [0, 3, "two"])
def test_parameters_are_saved_and_loaded_unvalidated_and_validated_in_fit(
    rows, latent_dim
):
    """As in scikit-learn: clones and searches send parameters that no fit has seen."""
    fitted = ConvVAE(**TINY).fit(rows)
    features = fitted.transform(rows)
    for vae in (ConvVAE(**TINY), fitted):
        vae.set_params(latent_dim=latent_dim)
        other = pickle.loads(pickle.dumps(vae))
        assert_unchanged(other, vae)
        if latent_dim == 3:
            continue
        with pytest.raises(ValueError, match="latent_dim"):
            other.fit(rows)
    np.testing.assert_array_equal(other.transform(rows), features)


def in_format(number, state):
    """A state as an earlier version of skvae would have saved it."""
    new = {"last_weights", "weights_checksum"} if number < 4 else set()
    new |= {"n_steps"} if number == 1 else set()
    private = {k: v for k, v in state["_state_"].items() if k not in new}
    new = {"noise_type"} if number < 3 else set()
    new |= {"compute_dtype_"} if number == 1 else set()
    old = {k: v for k, v in state.items() if k not in new}
    return {**old, "_state_": private, FORMAT_NAME: number}


@pytest.mark.parametrize(
    ("optimizer", "dtype_policy"),
    [(name, "float32") for name in OPTIMIZERS] + [("adam", "mixed_float16")],
)
def test_states_of_format_1_are_converted(rows, optimizer, dtype_policy):
    vae = ConvVAE(**TINY, optimizer=optimizer, dtype_policy=dtype_policy).fit(rows)
    other = loaded(in_format(1, vae.__getstate__()))
    assert other._state_["n_steps"] == vae._state_["n_steps"] == 9
    # Layers may have computed in float32 in spite of a mixed policy.
    expected = "float32" if dtype_policy == "float32" else None
    assert vars(other).get("compute_dtype_") == expected
    np.testing.assert_array_equal(other.transform(rows), vae.transform(rows))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_training_goes_on_from_the_only_weights_of_earlier_formats(rows, number):
    state = ConvVAE(**TINY).fit(rows).__getstate__()
    other = loaded(in_format(number, state))
    private, last_weights = state["_state_"], flat(state["weights_"])
    assert not np.array_equal(private["last_weights"], last_weights)
    vae = loaded({**state, "_state_": {**private, "last_weights": last_weights}})
    assert_same_fit(other.partial_fit(rows), vae.partial_fit(rows))


@pytest.mark.parametrize(
    ("number", "name"), [(2, "n_steps"), (4, "last_weights"), (4, "weights_checksum")]
)
def test_entries_are_required_from_their_format_on_and_unknown_before(
    kinds, number, name
):
    state = kinds[0].__getstate__()
    of_format, earlier = in_format(number, state), in_format(number - 1, state)
    earlier["_state_"][name] = of_format["_state_"].pop(name)
    with pytest.raises(ValueError, match=rf"_state_\['{name}'\] is missing"):
        loaded(of_format)
    with pytest.raises(ValueError, match=rf"_state_\['{name}'\] is an unknown entry"):
        loaded(earlier)


@pytest.mark.parametrize("checksum", [-1, 2**32, 1.0, np.int64(3), True, None])
def test_checksums_are_ints(kinds, checksum):
    state = kinds[0].__getstate__()
    with pytest.raises(ValueError, match=r"_state_\['weights_checksum'\]"):
        loaded({**state, "_state_": {**state["_state_"], "weights_checksum": checksum}})


@pytest.mark.parametrize("sizes", [[3], (0,), (3, 2), (3, 3), (3.0,), ("3",), 3])
def test_sizes_of_the_split_are_ascending_ints(kinds, sizes):
    state = kinds[0].__getstate__()
    with pytest.raises(ValueError, match=r"_state_\['split_sizes'\]"):
        loaded({**state, "_state_": {**state["_state_"], "split_sizes": sizes}})


@pytest.mark.parametrize("n_steps", [-1, 1.0, np.int64(3), True, None])
def test_numbers_of_steps_are_ints(kinds, n_steps):
    state = kinds[0].__getstate__()
    with pytest.raises(ValueError, match=r"_state_\['n_steps'\]"):
        loaded({**state, "_state_": {**state["_state_"], "n_steps": n_steps}})


@pytest.mark.parametrize("dtype", ["float64", 16, np.dtype("float32")])
def test_compute_dtypes_are_names_and_may_be_missing(kinds, dtype):
    state = kinds[0].__getstate__()
    with pytest.raises(ValueError, match="compute_dtype_"):
        loaded({**state, "compute_dtype_": dtype})
    for absent in ({**state, "compute_dtype_": None}, dict(state)):
        if absent["compute_dtype_"]:
            del absent["compute_dtype_"]
        assert not hasattr(loaded(absent), "compute_dtype_")


@pytest.mark.parametrize("dtype_policy", DTYPE_POLICIES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_have_the_variables_that_are_said(rows, optimizer, dtype_policy):
    vae = ConvVAE(**{**TINY, "epochs": 1}, optimizer=optimizer)
    vae.set_params(dtype_policy=dtype_policy)
    if (optimizer, dtype_policy) == ("nadam", "mixed_float16"):
        with pytest.raises(ValueError, match="Use optimizer='adam'"):
            vae.fit(rows)
        return
    vae.fit(rows)
    n_weights = sum(weight.size for weight in vae.weights_.values())
    kinds = {("int64", ()): "count", ("float32", ()): "number"}
    kinds["float32", (n_weights,)] = "weights"
    arrays = vae._state_["optimizer_arrays"]
    expected = OPTIMIZERS[optimizer]
    if "squares" in expected:
        state = vae.__getstate__()
        arrays = list(state["_state_"]["optimizer_arrays"])
        at = len(arrays) - len(expected) + expected.index("squares")
        arrays[at] = arrays[at] - 1
        negative = {**state["_state_"], "optimizer_arrays": arrays}
        with pytest.raises(ValueError, match=rf"arrays'\]\[{at}\] is negative"):
            loaded({**state, "_state_": negative})
    if dtype_policy == "mixed_float16":
        expected = LOSS_SCALE_VARIABLES + expected
    of_weights = {"means": "weights", "squares": "weights"}
    expected = [of_weights.get(kind, kind) for kind in expected]
    assert [kinds[a.dtype.name, a.shape] for a in arrays] == expected


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_skops_needs_to_trust_one_type_alone(kinds, rows):
    for vae in [*kinds, ConvVAE(random_state=np.random.RandomState(0))]:
        dumped = skops.io.dumps(vae)
        assert skops.io.get_untrusted_types(data=dumped) == ["skvae.estimator.ConvVAE"]
        other = skops.io.loads(dumped, trusted=["skvae.estimator.ConvVAE"])
        if vae in kinds:
            assert_unchanged(other, vae)
            np.testing.assert_array_equal(other.transform(rows), vae.transform(rows))
    vae = ConvVAE(**TINY, sampler=GaussianMixture(2)).fit(rows)
    other = skops.io.loads(skops.io.dumps(vae), trusted=["skvae.estimator.ConvVAE"])
    np.testing.assert_array_equal(other.sample(3), vae.sample(3))


def test_cut_and_flipped_skops_files_are_refused_or_equal(kinds):
    """A zip file has checksums of its contents, but not of all its other bytes."""
    choose = random.Random(0)
    vae, whole = kinds[0], skops.io.dumps(kinds[0])
    n_refused = 0
    for i in range(200):
        damaged = bytearray(whole)
        if i % 4:
            damaged[choose.randrange(len(damaged))] ^= 1 << choose.randrange(8)
        else:
            del damaged[choose.randrange(len(damaged)) :]
        try:
            other = skops.io.loads(bytes(damaged), trusted=["skvae.estimator.ConvVAE"])
        except Exception:  # noqa: BLE001  zipfile's, json's and skops's own
            n_refused += 1
        else:
            assert_unchanged(other, vae)
    assert n_refused > 150


# Errors of pickle for a file that ends too early.
CUT = (EOFError, IndexError, ValueError, pickle.UnpicklingError, struct.error)


@pytest.mark.parametrize("compress", [0, 3])
def test_cut_joblib_files_are_refused(kinds, compress):
    buffer = io.BytesIO()
    joblib.dump(kinds[0], buffer, compress=compress)
    whole = buffer.getvalue()
    for n in np.linspace(0, len(whole) - 1, 20, dtype=int):
        try:
            other = joblib.load(io.BytesIO(whole[:n]))
        except CUT:
            continue
        assert compress, "a cut file without checksum was loaded"
        assert_unchanged(other, kinds[0])


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_file_of_an_earlier_format_loads(number):
    vae = joblib.load(FOLDER / f"format-{number}.joblib")
    assert vae.noise_type == ("spherical" if number < 3 else "diag")
    with np.load(FOLDER / f"format-{number}.npz") as expected:
        z = vae.transform(expected["images"])
        np.testing.assert_allclose(z, expected["z"], atol=1e-5)
        decoded = vae.inverse_transform(expected["z"])
        np.testing.assert_allclose(decoded, expected["decoded"], atol=1e-4)
        if "scores" in expected:
            scores = vae.score_samples(expected["images"])
            np.testing.assert_allclose(scores, expected["scores"], rtol=1e-5)
        assert (
            vae.set_params(warm_start=True, epochs=1).fit(expected["images"]).n_iter_
            == 4
        )


def test_the_noise_type_is_required_from_format_3_on(kinds):
    state = in_format(3, kinds[0].__getstate__())
    del state["noise_type"]
    with pytest.raises(ValueError, match="parameter noise_type is missing"):
        loaded(state)
    assert loaded({**state, FORMAT_NAME: 2}).noise_type == "spherical"


@pytest.mark.parametrize(
    "damage",
    [
        lambda variances: variances.ravel(),
        lambda variances: variances.astype(np.float32),
        lambda variances: variances * np.nan,
        lambda variances: variances - variances,
        lambda variances: -variances,
        lambda variances: variances.tolist(),
    ],
)
def test_noise_variances_of_pixels_are_positive_and_of_an_images_shape(kinds, damage):
    state = kinds[3].__getstate__()
    variances = state["noise_variance_"]
    with pytest.raises(ValueError, match="noise_variance_"):
        loaded({**state, "noise_variance_": damage(variances)})
    bernoulli = kinds[1].__getstate__()
    with pytest.raises(ValueError, match="noise_variance_"):
        loaded({**bernoulli, "noise_variance_": variances})
