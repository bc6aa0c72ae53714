"""What a saved ConvVAE consists of, and whether that can be right.

A state is checked as a whole before any of it is believed, with no more memory than it
takes itself: sizes that it declares are compared with what it has, and never allocated.
"""

from __future__ import annotations

import math
import reprlib
from dataclasses import fields
from typing import Any, NoReturn

import numpy as np

from skvae.architecture import (
    ACTIVATIONS,
    DTYPE_POLICIES,
    LIKELIHOODS,
    LOSS_SCALE_VARIABLES,
    OPTIMIZERS,
    Architecture,
)
from skvae.images import caller_shapes

# Raised with each change after which states of before need another treatment.
FORMAT = 1
FORMAT_NAME = "_skvae_format"

# Attributes that a fit leaves, and those that not every fit leaves.
FITTED = frozenset(
    {
        "weights_",
        "history_",
        "n_iter_",
        "input_shape_",
        "value_range_",
        "latent_kl_",
        "n_features_in_",
        "_state_",
    }
)
OPTIONAL = frozenset({"noise_variance_", "feature_names_in_", "sampler_"})

_PRIVATE = frozenset(
    {
        "architecture",
        "caller_shape",
        "seed",
        "optimizer",
        "optimizer_arrays",
        "noise_variance",
    }
)
_LOSSES = frozenset({"loss", "reconstruction", "kl"})

_CHOICES = {
    "last_activation": ACTIVATIONS,
    "likelihood": LIKELIHOODS,
    "dtype_policy": DTYPE_POLICIES,
}


def with_format(state: dict[str, Any]) -> dict[str, Any]:
    """What goes into a file."""
    return {**state, FORMAT_NAME: FORMAT}


def checked(
    state: Any, parameters: frozenset[str], reserved: frozenset[str]
) -> dict[str, Any]:
    """What comes from a file, without the format, and None for nothing left out.

    Parameters
    ----------
    state : dict
        Attributes by their names.
    parameters : set of str
        Names of the estimator's parameters.
    reserved : set of str
        Names that no further attributes may have.

    Raises
    ------
    ValueError
        If the state is of a newer version, or cannot be right: with the name of what
        cannot.
    """
    if not isinstance(state, dict):
        _fail("state", state, "a dict")
    _check_format(state.get(FORMAT_NAME))
    state = {
        name: value
        for name, value in state.items()
        if name != FORMAT_NAME and not (name in OPTIONAL and value is None)
    }
    for name in sorted(parameters - state.keys()):
        _fail(f"parameter {name}", "missing", "a value")
    for name in state.keys() - parameters - FITTED - OPTIONAL:
        if not isinstance(name, str) or name in reserved:
            _fail("state", name, "no attribute of that name")
    if state.keys() & (FITTED | OPTIONAL):
        _check_fitted(state)
    return state


def _check_format(number: Any) -> None:
    if not _is_int(number) or number < 1:
        _fail(FORMAT_NAME, number, f"a number from 1 to {FORMAT}")
    if number > FORMAT:
        msg = (
            f"This ConvVAE was saved by a newer version of skvae, in format {number}; "
            f"this version reads up to format {FORMAT}. Install a newer skvae to load "
            f"it."
        )
        raise ValueError(msg)


def _check_fitted(state: dict[str, Any]) -> None:
    for name in sorted(FITTED - state.keys()):
        _fail(name, "missing", "what fit leaves")
    private = _checked_dict("_state_", state["_state_"], _PRIVATE)
    weights = state["weights_"]
    if not isinstance(weights, dict):
        _fail("weights_", weights, "a dict")
    architecture = _architecture(private["architecture"], len(weights))
    n_weights = _check_weights(weights, architecture)
    _check_training(private, architecture, n_weights)
    _check_history(state["history_"], state["n_iter_"])
    _check_images(state, private["caller_shape"], architecture)
    _check_optional(state, architecture)


def _architecture(value: Any, n_arrays: int) -> Architecture:
    """The architecture that a dict stands for, if it is one of so many arrays."""
    where = "_state_['architecture']"
    names = {field.name for field in fields(Architecture)}
    values = _checked_dict(where, value, names)
    for name, choices in _CHOICES.items():
        if values[name] not in choices:
            _fail(f"{where}[{name!r}]", values[name], f"one of {', '.join(choices)}")
    for name in ("latent_dim", "filters", "hidden_layers", "kernel_size"):
        _check_count(f"{where}[{name!r}]", values[name])
    shape = values["image_shape"]
    _check_counts(f"{where}['image_shape']", shape, 3)
    # Before shapes are worked out layer by layer.
    n_expected = 2 * (2 * values["hidden_layers"] + 5)
    if n_arrays != n_expected:
        _fail("weights_", f"a dict of {n_arrays} arrays", f"{n_expected} of them")
    return Architecture(**values)


def _check_weights(weights: dict[str, Any], architecture: Architecture) -> int:
    """See that weights are those of an architecture; their number."""
    shapes = architecture.weight_shapes
    _checked_dict("weights_", weights, shapes.keys())
    for path, shape in shapes.items():
        _check_array(f"weights_[{path!r}]", weights[path], shape, np.float32)
    return sum(math.prod(shape) for shape in shapes.values())


def _check_training(
    private: dict[str, Any], architecture: Architecture, n_weights: int
) -> None:
    """See that training could go on."""
    if not _is_int(private["seed"]) or private["seed"] < 0:
        _fail("_state_['seed']", private["seed"], "a non-negative int")
    _check_positive("_state_['noise_variance']", private["noise_variance"])
    where, optimizer = "_state_['optimizer']", private["optimizer"]
    if optimizer not in OPTIMIZERS:
        _fail(where, optimizer, f"one of {', '.join(OPTIMIZERS)}")
    where, arrays = "_state_['optimizer_arrays']", private["optimizer_arrays"]
    expected = OPTIMIZERS[optimizer]
    if architecture.dtype_policy == "mixed_float16":
        expected = LOSS_SCALE_VARIABLES + expected
    if not isinstance(arrays, list) or len(arrays) != len(expected):
        _fail(where, arrays, f"a list of {len(expected)} arrays")
    for i, (array, kind) in enumerate(zip(arrays, expected, strict=True)):
        shape = (n_weights,) if kind == "weights" else ()
        dtype = np.int64 if kind == "count" else np.float32
        _check_array(f"{where}[{i}]", array, shape, dtype)


def _check_history(history: Any, n_epochs: Any) -> None:
    _check_count("n_iter_", n_epochs)
    if not isinstance(history, dict):
        _fail("history_", history, "a dict")
    _checked_dict("history_", history, _LOSSES | (history.keys() & {"val_loss"}))
    for name, values in history.items():
        where = f"history_[{name!r}]"
        if not isinstance(values, list) or len(values) != n_epochs:
            _fail(where, values, f"a list of {reprlib.repr(n_epochs)} floats")
        for value in values:
            # A validation loss is missing for epochs without early stopping.
            if type(value) is not float or not (
                math.isfinite(value) or (name == "val_loss" and math.isnan(value))
            ):
                _fail(where, value, "finite floats")


def _check_images(
    state: dict[str, Any], caller_shape: Any, architecture: Architecture
) -> None:
    """See that what is said of images agrees with the network's."""
    shape = architecture.image_shape
    _check_equal("input_shape_", state["input_shape_"], shape)
    _check_equal("n_features_in_", state["n_features_in_"], architecture.n_pixels)
    if caller_shape not in caller_shapes(shape):
        expected = " or ".join(map(str, caller_shapes(shape)))
        _fail("_state_['caller_shape']", caller_shape, expected)
    value_range = state["value_range_"]
    if (
        not isinstance(value_range, tuple)
        or [type(value) for value in value_range] != [float, float]
        or not all(map(math.isfinite, value_range))
        or value_range[0] >= value_range[1]
    ):
        _fail("value_range_", value_range, "two finite floats, the lower first")
    latent_shape = (architecture.latent_dim,)
    _check_array("latent_kl_", state["latent_kl_"], latent_shape, np.float32)


def _check_optional(state: dict[str, Any], architecture: Architecture) -> None:
    noise_variance = state.get("noise_variance_")
    if architecture.likelihood != "bernoulli":
        _check_positive("noise_variance_", noise_variance)
    elif noise_variance is not None:
        _fail("noise_variance_", noise_variance, "none, for bernoulli")
    names = state.get("feature_names_in_")
    if names is not None:
        is_array = isinstance(names, np.ndarray) and names.dtype == object
        if not is_array or names.shape != (architecture.n_pixels,):
            _fail("feature_names_in_", names, f"{architecture.n_pixels} names")
        if not all(type(name) is str for name in names):
            _fail("feature_names_in_", names, "an array of strings")
    sampler = state.get("sampler_")
    if sampler is not None and (
        isinstance(sampler, type) or not hasattr(sampler, "sample")
    ):
        _fail("sampler_", sampler, "an estimator that has sample")


def _checked_dict(where: str, value: Any, names: Any) -> dict[str, Any]:
    """See that a dict has these names and no others."""
    if not isinstance(value, dict):
        _fail(where, value, "a dict")
    for name in sorted(names - value.keys()):
        _fail(f"{where}[{name!r}]", "missing", "a value")
    for name in value.keys() - names:
        _fail(where, name, "no entry of that name")
    return value


def _check_array(
    where: str, value: Any, shape: tuple[int, ...], dtype: type[np.generic]
) -> None:
    if not isinstance(value, np.ndarray):
        _fail(where, value, "an array")
    if value.shape != shape or value.dtype != dtype:
        got = f"an array of shape {value.shape} and dtype {value.dtype}"
        _fail(where, got, f"shape {reprlib.repr(shape)} and dtype {dtype.__name__}")
    if not np.isfinite(value).all():
        _fail(where, "an array with NaN or infinity", "finite numbers")


def _check_counts(where: str, value: Any, n: int) -> None:
    if not isinstance(value, tuple) or len(value) != n:
        _fail(where, value, f"a tuple of {n} positive ints")
    for number in value:
        _check_count(where, number)


def _check_count(where: str, value: Any) -> None:
    if not _is_int(value) or value < 1:
        _fail(where, value, "a positive int")


def _check_positive(where: str, value: Any) -> None:
    if type(value) is not float or not math.isfinite(value) or value <= 0:
        _fail(where, value, "a positive float")


def _check_equal(where: str, value: Any, expected: Any) -> None:
    if type(value) is not type(expected) or value != expected:
        _fail(where, value, repr(expected))


def _is_int(value: Any) -> bool:
    return type(value) is int


def _fail(where: str, got: Any, expected: str) -> NoReturn:
    text = got if isinstance(got, str) else reprlib.repr(got)
    msg = (
        f"This ConvVAE cannot be loaded: {where} is {text}, expected {expected}. The "
        f"file is damaged, or skvae did not write it."
    )
    raise ValueError(msg)
