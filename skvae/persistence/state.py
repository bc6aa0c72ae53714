"""What a saved ConvVAE consists of, and whether that can be right.

A state is checked as a whole before any of it is believed, with no more memory than it
takes itself: sizes that it declares are compared with what it has, and never allocated.
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
from skvae.data.read_only import read_only
from skvae.data.value_range import parse_value_range
from skvae.streams import MAX_SEED

# Raised with each change after which states of before need another treatment.
FORMAT = 2
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
OPTIONAL = frozenset(
    {"noise_variance_", "feature_names_in_", "sampler_", "compute_dtype_"}
)

_PRIVATE = frozenset(
    {
        "architecture",
        "caller_shape",
        "seed",
        "n_steps",
        "optimizer",
        "optimizer_arrays",
        "noise_variance",
    }
)
_NEW_IN_FORMAT_2 = frozenset({"n_steps"})
_LOSSES = frozenset({"loss", "reconstruction", "kl"})

_CHOICES = {
    "last_activation": ACTIVATIONS,
    "likelihood": LIKELIHOODS,
    "dtype_policy": DTYPE_POLICIES,
}


def with_format(state: dict[str, Any]) -> dict[str, Any]:
    """What goes into a file."""
    return {**state, FORMAT_NAME: FORMAT}


def checked(state: Any, parameters: Set[str], cls: type) -> dict[str, Any]:
    """What comes from a file, without the format, and None for nothing left out.

    Fitted arrays are made read-only.

    Parameters
    ----------
    state : dict
        Attributes by their names.
    parameters : set of str
        Names of the estimator's parameters.
    cls : type
        The estimator's class, in place of whose methods nothing else may be.

    Raises
    ------
    ValueError
        If the state is of a newer version, or cannot be right: with the name of what
        cannot.
    """
    _dict("state", state)
    number = _checked_format(state.get(FORMAT_NAME))
    state = {
        name: value
        for name, value in state.items()
        if name != FORMAT_NAME and not (name in OPTIONAL and value is None)
    }
    for name in sorted(parameters - state.keys()):
        _fail(f"parameter {name}", "missing", "a value")
    for name, value in state.items():
        if not isinstance(name, str):
            _refuse("state", name, "names of attributes")
        # Neither methods nor what scikit-learn keeps in the class.
        is_method = callable(getattr(cls, name, None)) and callable(value)
        if hasattr(cls, name) and not is_method:
            _refuse(name, value, "what the class has")
    if _is_fitted(state):
        _check_fitted(state, _PRIVATE - _NEW_IN_FORMAT_2 if number == 1 else _PRIVATE)
        if number == 1:
            state = _from_format_1(state)
        state = with_read_only_arrays(state)
    return state


def _from_format_1(state: dict[str, Any]) -> dict[str, Any]:
    """Fitted attributes in today's format."""
    private = state["_state_"]
    # The first of the optimizer's own variables counts its steps.
    n_variables = len(OPTIMIZERS[private["optimizer"]])
    n_steps = int(private["optimizer_arrays"][-n_variables])
    state = {**state, "_state_": {**private, "n_steps": n_steps}}
    if private["architecture"]["dtype_policy"] == "float32":
        state["compute_dtype_"] = "float32"
    return state


def with_read_only_arrays(fitted: dict[str, Any]) -> dict[str, Any]:
    """Fitted attributes whose arrays are read-only."""
    private = fitted["_state_"]
    weights = fitted["weights_"].items()
    return {
        **fitted,
        "weights_": {path: read_only(weight) for path, weight in weights},
        "latent_kl_": read_only(fitted["latent_kl_"]),
        "_state_": {
            **private,
            "optimizer_arrays": [read_only(a) for a in private["optimizer_arrays"]],
        },
    }


def _is_fitted(state: dict[str, Any]) -> bool:
    """Whether a state claims to be that of a fitted estimator."""
    return "weights_" in state or "_state_" in state


def _checked_format(number: Any) -> int:
    if number is None:
        msg = (
            f"This ConvVAE cannot be loaded: {FORMAT_NAME} is missing. It was saved "
            f"before formats had numbers, or not by skvae. Fit it anew."
        )
        raise ValueError(msg)
    _check_count(FORMAT_NAME, number)
    if number > FORMAT:
        msg = (
            f"This ConvVAE was saved by a newer version of skvae, in format "
            f"{_shown(number)}; this version reads up to format {FORMAT}. Install a "
            f"newer skvae to load it."
        )
        raise ValueError(msg)
    return int(number)


def _check_fitted(state: dict[str, Any], private_names: Set[str]) -> None:
    for name in sorted(FITTED - state.keys()):
        _fail(name, "missing", "what fit leaves")
    private = _dict_of("_state_", state["_state_"], private_names)
    weights = _dict("weights_", state["weights_"])
    architecture = _architecture(private["architecture"], len(weights))
    _check_weights(weights, architecture)
    _check_training(private, architecture)
    _check_history(state["history_"], state["n_iter_"])
    _check_images(state, private["caller_shape"], architecture)
    _check_optional(state, architecture)


def _architecture(value: Any, n_arrays: int) -> Architecture:
    """The architecture that a dict stands for, if it is one of so many arrays."""
    where = "_state_['architecture']"
    names = {field.name for field in fields(Architecture)}
    values = _dict_of(where, value, names)
    for name, choices in _CHOICES.items():
        _check_choice(f"{where}[{name!r}]", values[name], choices)
    for name in ("latent_dim", "filters", "hidden_layers", "kernel_size"):
        _check_count(f"{where}[{name!r}]", values[name])
    if values["hidden_layers"] > MAX_HIDDEN_LAYERS:
        expected = f"at most {MAX_HIDDEN_LAYERS}"
        _refuse(f"{where}['hidden_layers']", values["hidden_layers"], expected)
    _check_counts(f"{where}['image_shape']", values["image_shape"])
    if len(values["image_shape"]) != 3:
        _refuse(f"{where}['image_shape']", values["image_shape"], "three ints")
    # Before shapes are worked out layer by layer.
    n_expected = 2 * (2 * values["hidden_layers"] + 5)
    if n_arrays != n_expected:
        _fail("weights_", f"a dict of {n_arrays} arrays", f"{n_expected} of them")
    return Architecture(**values)


def _check_weights(weights: dict[str, Any], architecture: Architecture) -> None:
    """See that weights are those of an architecture."""
    shapes = architecture.weight_shapes
    _dict_of("weights_", weights, shapes.keys())
    for path, shape in shapes.items():
        _check_array(f"weights_[{path!r}]", weights[path], shape, np.float32)


def _check_training(private: dict[str, Any], architecture: Architecture) -> None:
    """See that training could go on."""
    if type(private["seed"]) is not int or not 0 <= private["seed"] <= MAX_SEED:
        _refuse("_state_['seed']", private["seed"], f"an int from 0 to {MAX_SEED}")
    n_steps = private.get("n_steps", 0)
    if type(n_steps) is not int or n_steps < 0:
        _refuse("_state_['n_steps']", n_steps, "an int that is not negative")
    _check_positive("_state_['noise_variance']", private["noise_variance"])
    optimizer = private["optimizer"]
    _check_choice("_state_['optimizer']", optimizer, OPTIMIZERS)
    where, arrays = "_state_['optimizer_arrays']", private["optimizer_arrays"]
    expected = OPTIMIZERS[optimizer]
    if architecture.dtype_policy == "mixed_float16":
        expected = LOSS_SCALE_VARIABLES + expected
    if not isinstance(arrays, list) or len(arrays) != len(expected):
        _refuse(where, arrays, f"a list of {len(expected)} arrays")
    for i, (array, kind) in enumerate(zip(arrays, expected, strict=True)):
        is_of_weights = kind in ("means", "squares")
        shape = (architecture.n_weights,) if is_of_weights else ()
        dtype = np.int64 if kind == "count" else np.float32
        _check_array(f"{where}[{i}]", array, shape, dtype)
        if kind != "means" and (array < 0).any():
            _fail(f"{where}[{i}]", "negative", "what is not")


def _check_history(history: Any, n_epochs: Any) -> None:
    _check_count("n_iter_", n_epochs)
    _dict_of("history_", history, _LOSSES, frozenset({"val_loss"}))
    for name, values in history.items():
        where = f"history_[{name!r}]"
        if not isinstance(values, list) or len(values) != n_epochs:
            _refuse(where, values, f"a list of {_shown(n_epochs)} floats")
        for value in values:
            # A validation loss is missing for epochs without early stopping.
            if type(value) is not float or not (
                math.isfinite(value) or (name == "val_loss" and math.isnan(value))
            ):
                _refuse(where, value, "finite floats")


def _check_images(
    state: dict[str, Any], caller_shape: Any, architecture: Architecture
) -> None:
    """See that what is said of images agrees with the network's."""
    shape = architecture.image_shape
    _check_counts("input_shape_", state["input_shape_"])
    _check_count("n_features_in_", state["n_features_in_"])
    _check_counts("_state_['caller_shape']", caller_shape)
    if state["input_shape_"] != shape:
        _refuse("input_shape_", state["input_shape_"], str(shape))
    if state["n_features_in_"] != architecture.n_pixels:
        _refuse("n_features_in_", state["n_features_in_"], str(architecture.n_pixels))
    if caller_shape not in caller_shapes(shape):
        expected = " or ".join(map(str, caller_shapes(shape)))
        _refuse("_state_['caller_shape']", caller_shape, expected)
    value_range = state["value_range_"]
    if not isinstance(value_range, tuple) or not all(
        type(value) is float for value in value_range
    ):
        _refuse("value_range_", value_range, "a tuple of two floats")
    try:
        parse_value_range(value_range)
    except ValueError as error:
        _fail("value_range_", f"refused ({error})", "one that fit would take")
    latent_shape = (architecture.latent_dim,)
    _check_array("latent_kl_", state["latent_kl_"], latent_shape, np.float32)


def _check_optional(state: dict[str, Any], architecture: Architecture) -> None:
    noise_variance = state.get("noise_variance_")
    if architecture.likelihood != "bernoulli":
        _check_positive("noise_variance_", noise_variance)
    elif noise_variance is not None:
        _refuse("noise_variance_", noise_variance, "none, for bernoulli")
    names = state.get("feature_names_in_")
    if names is not None:
        is_array = isinstance(names, np.ndarray) and names.dtype == object
        if not is_array or names.shape != (architecture.n_pixels,):
            _refuse("feature_names_in_", names, f"{architecture.n_pixels} names")
        if not all(type(name) is str for name in names):
            _refuse("feature_names_in_", names, "an array of strings")
    if "compute_dtype_" in state:
        dtypes = ("float32", "bfloat16", "float16")
        _check_choice("compute_dtype_", state["compute_dtype_"], dtypes)
    sampler = state.get("sampler_")
    if sampler is not None and (
        isinstance(sampler, type) or not hasattr(sampler, "sample")
    ):
        _refuse("sampler_", sampler, "an estimator that has sample")


def _dict(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(where, value, "a dict")
    return value


def _dict_of(
    where: str, value: Any, names: Set[str], optional: Set[str] = frozenset()
) -> dict[str, Any]:
    """See that a dict has these names and perhaps the optional, but no others."""
    _dict(where, value)
    for name in sorted(names - value.keys()):
        _fail(f"{where}[{name!r}]", "missing", "a value")
    for name in value.keys() - names - optional:
        _refuse(where, name, "no entry of that name")
    return value


def _check_array(
    where: str, value: Any, shape: tuple[int, ...], dtype: type[np.generic]
) -> None:
    if not isinstance(value, np.ndarray):
        _refuse(where, value, "an array")
    if value.shape != shape or value.dtype != dtype:
        got = f"an array of shape {value.shape} and dtype {value.dtype}"
        _fail(where, got, f"shape {_shown(shape)} and dtype {dtype.__name__}")
    if not np.isfinite(value).all():
        _fail(where, "an array with NaN or infinity", "finite numbers")


def _check_choice(where: str, value: Any, choices: Iterable[str]) -> None:
    if type(value) is not str or value not in choices:
        _refuse(where, value, f"one of {', '.join(choices)}")


def _check_counts(where: str, value: Any) -> None:
    if not isinstance(value, tuple):
        _refuse(where, value, "a tuple of positive ints")
    for number in value:
        _check_count(where, number)


def _check_count(where: str, value: Any) -> None:
    if type(value) is not int or value < 1:
        _refuse(where, value, "a positive int")


def _check_positive(where: str, value: Any) -> None:
    if type(value) is not float or not math.isfinite(value) or value <= 0:
        _refuse(where, value, "a positive float")


def _refuse(where: str, value: Any, expected: str) -> NoReturn:
    _fail(where, _shown(value), expected)


def _shown(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # Python does not print ints of thousands of digits
        return "a number of thousands of digits"


def _fail(where: str, got: str, expected: str) -> NoReturn:
    msg = (
        f"This ConvVAE cannot be loaded: {where} is {got}, expected {expected}. The "
        f"file is damaged, or skvae did not write it."
    )
    raise ValueError(msg)
