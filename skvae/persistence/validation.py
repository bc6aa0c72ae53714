"""Validation of the state of a saved ConvVAE.

The whole state is validated before any of it is used. Sizes that it declares are
compared with the sizes of its arrays, and nothing is allocated from them, so validation
takes no more memory than the state itself. Errors are ValueErrors with the name of the
invalid entry.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Set
from dataclasses import fields
from typing import Any, NoReturn

import numpy as np

from skvae.architecture import (
    ACTIVATIONS,
    DTYPE_POLICIES,
    LIKELIHOODS,
    LOSS_SCALE_VARIABLES,
    MAX_HIDDEN_LAYERS,
    OPTIMIZERS,
    Architecture,
)
from skvae.data.layout import caller_shapes
from skvae.data.value_range import parse_value_range
from skvae.streams import MAX_SEED

# Fitted attributes that each fit sets.
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

# Entries of the private attribute `_state_`.
PRIVATE = frozenset(
    {
        "architecture",
        "caller_shape",
        "seed",
        "n_steps",
        "last_weights",
        "weights_checksum",
        "optimizer",
        "optimizer_arrays",
        "noise_variance",
    }
)

# Not in the files of earlier versions.
_OPTIONAL_PRIVATE = frozenset({"split_sizes"})

_LOSSES = frozenset({"loss", "reconstruction", "kl"})

_CHOICES = {
    "last_activation": ACTIVATIONS,
    "likelihood": LIKELIHOODS,
    "dtype_policy": DTYPE_POLICIES,
}


def check_format(state: Any, name: str, newest: int) -> int:
    """Validate and return the format number of a state, at most `newest`.

    Parameters
    ----------
    state : dict of str to object
    name : str
        Name of the entry with the format number.
    newest : int
    """
    _check_dict("state", state)
    number = state.get(name)
    if number is None:
        msg = (
            f"This ConvVAE cannot be loaded: {name} is missing. It was saved before "
            f"formats had numbers, or not by skvae. Fit it again."
        )
        raise ValueError(msg)
    _check(_is_count(number), name, number, "a positive int")
    if number > newest:
        msg = (
            f"This ConvVAE was saved by a newer version of skvae, in format "
            f"{_shown(number)}; this version reads up to format {newest}. Install a "
            f"newer skvae to load it."
        )
        raise ValueError(msg)
    return int(number)


def check_attributes(state: dict[str, Any], parameters: Set[str], cls: type) -> None:
    """Validate the names of all attributes.

    Parameters
    ----------
    state : dict of str to object
    parameters : set of str
        Names of the estimator's parameters, none of which may be missing.
    cls : type
        Class whose attributes must not be replaced, except methods by other callables.
    """
    for name in sorted(parameters - state.keys()):
        _fail(f"parameter {name}", "missing", "a value")
    for name, value in state.items():
        _check(isinstance(name, str), "state", name, "names of attributes")
        is_method = callable(getattr(cls, name, None)) and callable(value)
        is_own = is_method or not hasattr(cls, name)
        _check(is_own, name, value, "the attribute of the class")


def check_fitted(state: dict[str, Any], private_names: Set[str]) -> None:
    """Validate fitted attributes.

    Parameters
    ----------
    state : dict of str to object
    private_names : set of str
        Names of the entries of `_state_`.
    """
    for name in sorted(FITTED - state.keys()):
        _fail(name, "missing", "an attribute that fit sets")
    private, weights = state["_state_"], state["weights_"]
    _check_dict_of("_state_", private, private_names, _OPTIONAL_PRIVATE)
    _check_dict("weights_", weights)
    architecture = _architecture(private["architecture"], len(weights))
    shapes = architecture.weight_shapes
    _check_dict_of("weights_", weights, shapes.keys())
    for path, shape in shapes.items():
        _check_array(f"weights_[{path!r}]", weights[path], shape, np.float32)
    _check_training(private, architecture)
    _check_history(state["history_"], state["n_iter_"])
    _check_images(state, private["caller_shape"], architecture)
    _check_noise(state.get("noise_variance_"), private["caller_shape"], architecture)
    _check_optional(state, architecture)


def _architecture(value: Any, n_arrays: int) -> Architecture:
    """Validate the architecture of a state with the given number of weight arrays."""
    where = "_state_['architecture']"
    _check_dict_of(where, value, {field.name for field in fields(Architecture)})
    for name, choices in _CHOICES.items():
        _check_choice(f"{where}[{name!r}]", value[name], choices)
    for name in ("latent_dim", "filters", "hidden_layers", "kernel_size"):
        is_count = _is_count(value[name])
        _check(is_count, f"{where}[{name!r}]", value[name], "a positive int")
    n_layers, shape = value["hidden_layers"], value["image_shape"]
    is_small = n_layers <= MAX_HIDDEN_LAYERS
    expected = f"at most {MAX_HIDDEN_LAYERS}"
    _check(is_small, f"{where}['hidden_layers']", n_layers, expected)
    is_shape = _is_shape(shape) and len(shape) == 3
    _check(is_shape, f"{where}['image_shape']", shape, "a tuple of three positive ints")
    # Checked before `weight_shapes` computes the shape of each layer.
    n_expected = 2 * (2 * n_layers + 5)
    if n_arrays != n_expected:
        _fail("weights_", f"a dict of {n_arrays} arrays", f"{n_expected} of them")
    return Architecture(**value)


def _check_training(private: dict[str, Any], architecture: Architecture) -> None:
    """Validate the state from which training continues."""
    seed, n_steps = private["seed"], private.get("n_steps", 0)  # not in format 1
    is_valid = type(seed) is int and 0 <= seed <= MAX_SEED
    _check(is_valid, "_state_['seed']", seed, f"an int from 0 to {MAX_SEED}")
    is_valid = type(n_steps) is int and n_steps >= 0
    _check(is_valid, "_state_['n_steps']", n_steps, "a non-negative int")
    if "last_weights" in private:  # not in formats 1 to 3
        where, n_weights = "_state_['last_weights']", architecture.n_weights
        _check_array(where, private["last_weights"], (n_weights,), np.float32)
        checksum = private["weights_checksum"]
        is_valid = type(checksum) is int and 0 <= checksum < 2**32
        where = "_state_['weights_checksum']"
        _check(is_valid, where, checksum, "an int from 0 to 2**32 - 1")
    sizes = private.get("split_sizes", ())
    is_valid = (
        isinstance(sizes, tuple)
        and all(map(_is_count, sizes))
        and list(sizes) == sorted(set(sizes))
    )
    _check(is_valid, "_state_['split_sizes']", sizes, "a tuple of ascending ints")
    variance = private["noise_variance"]
    where = "_state_['noise_variance']"
    _check(_is_positive(variance), where, variance, "a positive float")
    _check_choice("_state_['optimizer']", private["optimizer"], OPTIMIZERS)
    kinds = OPTIMIZERS[private["optimizer"]]
    if architecture.dtype_policy == "mixed_float16":
        kinds = LOSS_SCALE_VARIABLES + kinds
    where, arrays = "_state_['optimizer_arrays']", private["optimizer_arrays"]
    is_complete = isinstance(arrays, list) and len(arrays) == len(kinds)
    _check(is_complete, where, arrays, f"a list of {len(kinds)} arrays")
    for i, (array, kind) in enumerate(zip(arrays, kinds, strict=True)):
        shape = (architecture.n_weights,) if kind in ("means", "squares") else ()
        dtype = np.int64 if kind == "count" else np.float32
        _check_array(f"{where}[{i}]", array, shape, dtype)
        if kind != "means" and (array < 0).any():
            _fail(f"{where}[{i}]", "negative", "non-negative numbers")


def _check_history(history: Any, n_epochs: Any) -> None:
    _check(_is_count(n_epochs), "n_iter_", n_epochs, "a positive int")
    _check_dict_of("history_", history, _LOSSES, frozenset({"val_loss"}))
    for name, values in history.items():
        where = f"history_[{name!r}]"
        is_complete = isinstance(values, list) and len(values) == n_epochs
        _check(is_complete, where, values, f"a list of {_shown(n_epochs)} floats")
        for value in values:
            # The validation loss of an epoch without early stopping is NaN.
            is_valid = type(value) is float and (
                math.isfinite(value) or (name == "val_loss" and math.isnan(value))
            )
            _check(is_valid, where, value, "finite floats")


def _check_images(
    state: dict[str, Any], caller_shape: Any, architecture: Architecture
) -> None:
    """Validate the layout, the value range and the KL of the images."""
    shape, n_pixels = state["input_shape_"], state["n_features_in_"]
    expected = f"a tuple of the ints {architecture.image_shape}"
    is_valid = _is_shape(shape) and shape == architecture.image_shape
    _check(is_valid, "input_shape_", shape, expected)
    is_valid = _is_count(n_pixels) and n_pixels == architecture.n_pixels
    _check(is_valid, "n_features_in_", n_pixels, f"the int {architecture.n_pixels}")
    shapes = caller_shapes(architecture.image_shape)
    is_valid = _is_shape(caller_shape) and caller_shape in shapes
    expected = f"a tuple of the ints {' or '.join(map(str, shapes))}"
    _check(is_valid, "_state_['caller_shape']", caller_shape, expected)
    value_range = state["value_range_"]
    is_valid = isinstance(value_range, tuple) and all(
        type(value) is float for value in value_range
    )
    _check(is_valid, "value_range_", value_range, "a tuple of two floats")
    try:
        parse_value_range(value_range)
    except ValueError as error:
        _fail("value_range_", f"invalid ({error})", "a valid value range")
    kl_shape = (architecture.latent_dim,)
    _check_array("latent_kl_", state["latent_kl_"], kl_shape, np.float32)


def _check_noise(
    value: Any, shape: tuple[int, ...], architecture: Architecture
) -> None:
    """Validate the noise variance of all pixels, or of each pixel of an image."""
    where = "noise_variance_"
    if architecture.likelihood == "gaussian" and isinstance(value, np.ndarray):
        _check_array(where, value, shape, np.float64)
        if not (value > 0).all():
            _fail(where, "zero or negative", "positive numbers")
        return
    if architecture.likelihood == "bernoulli":
        is_valid, expected = value is None, "no value for bernoulli"
    else:
        is_valid, expected = _is_positive(value), "a positive float"
    _check(is_valid, where, value, expected)


def _check_optional(state: dict[str, Any], architecture: Architecture) -> None:
    """Validate attributes that not every fit sets."""
    if "feature_names_in_" in state:
        names, n_pixels = state["feature_names_in_"], architecture.n_pixels
        is_valid = (
            isinstance(names, np.ndarray)
            and names.dtype == object
            and names.shape == (n_pixels,)
            and all(type(name) is str for name in names)
        )
        _check(is_valid, "feature_names_in_", names, f"an array of {n_pixels} strings")
    if "compute_dtype_" in state:
        dtypes = ("float32", "bfloat16", "float16")
        _check_choice("compute_dtype_", state["compute_dtype_"], dtypes)
    if "sampler_" in state:
        sampler = state["sampler_"]
        is_valid = hasattr(sampler, "sample") and not isinstance(sampler, type)
        _check(is_valid, "sampler_", sampler, "an estimator with a method sample")


def _check_dict(where: str, value: Any) -> None:
    _check(isinstance(value, dict), where, value, "a dict")


def _check_dict_of(
    where: str, value: Any, names: Set[str], optional: Set[str] = frozenset()
) -> None:
    """Check that a dict has all names, and no others but the optional ones."""
    _check_dict(where, value)
    for name in sorted(names - value.keys()):
        _fail(f"{where}[{name!r}]", "missing", "a value")
    for name in value.keys() - names - optional:
        _fail(f"{where}[{_shown(name)}]", "an unknown entry", "none of this name")


def _check_array(
    where: str, value: Any, shape: tuple[int, ...], dtype: type[np.generic]
) -> None:
    _check(isinstance(value, np.ndarray), where, value, "an array")
    if value.shape != shape or value.dtype != dtype:
        got = f"an array of shape {value.shape} and dtype {value.dtype}"
        _fail(where, got, f"shape {_shown(shape)} and dtype {dtype.__name__}")
    if not np.isfinite(value).all():
        _fail(where, "an array with NaN or infinity", "finite numbers")


def _check_choice(where: str, value: Any, choices: Iterable[str]) -> None:
    is_valid = type(value) is str and value in choices
    _check(is_valid, where, value, f"one of {', '.join(choices)}")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_is_count, value))


def _is_positive(value: Any) -> bool:
    return type(value) is float and math.isfinite(value) and value > 0


def _check(is_valid: bool, where: str, value: Any, expected: str) -> None:
    if not is_valid:
        _fail(where, _shown(value), expected)


def _shown(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # Python does not convert ints of thousands of digits
        return "a number of thousands of digits"


def _fail(where: str, got: str, expected: str) -> NoReturn:
    msg = (
        f"This ConvVAE cannot be loaded: {where} is {got}, expected {expected}. The "
        f"file is damaged, or was not saved by skvae."
    )
    raise ValueError(msg)
