"""Format of the state of a saved ConvVAE, and its conversion."""

from __future__ import annotations

import zlib
from collections.abc import Set
from typing import Any

import numpy as np

from skvae.architecture import OPTIMIZERS, Architecture
from skvae.data.read_only import read_only
from skvae.persistence.validation import (
    PRIVATE,
    check_attributes,
    check_fitted,
    check_format,
)

# Incremented when the states of earlier versions need a conversion.
FORMAT = 4
FORMAT_NAME = "_skvae_format"

# Fitted attributes that not every fit sets.
OPTIONAL = frozenset(
    {"noise_variance_", "feature_names_in_", "sampler_", "compute_dtype_"}
)

# Entries of `_state_` by the first format that has them; the others are in all formats.
_ADDED = {2: {"n_steps"}, 4: {"last_weights", "weights_checksum"}}


def with_format(state: dict[str, Any]) -> dict[str, Any]:
    """Add the format number, which a saved state has."""
    return {**state, FORMAT_NAME: FORMAT}


def checked(state: Any, parameters: Set[str], cls: type) -> dict[str, Any]:
    """Validate a saved state and convert it to the current format.

    Values of parameters are not validated, because `fit` does.

    Parameters
    ----------
    state : dict of str to object
        Attributes of the estimator, and the format number.
    parameters : set of str
        Names of the estimator's parameters.
    cls : type
        Class of the estimator. Its attributes must not be replaced, except methods by
        other callables.

    Returns
    -------
    dict of str to object
        Attributes of the estimator, with read-only fitted arrays. Optional attributes
        that are None are omitted.

    Raises
    ------
    ValueError
        If the state is invalid, with the name of the invalid entry, or if a newer
        version of skvae has saved it.
    """
    number = check_format(state, FORMAT_NAME, FORMAT)
    state = {
        name: value
        for name, value in state.items()
        if name != FORMAT_NAME and not (name in OPTIONAL and value is None)
    }
    if number < 3:  # one noise variance for all pixels
        state = {"noise_type": "spherical", **state}
    check_attributes(state, parameters, cls)
    if "weights_" in state or "_state_" in state:
        later = (names for first, names in _ADDED.items() if number < first)
        check_fitted(state, PRIVATE.difference(*later))
        if number == 1:
            state = _from_format_1(state)
        if number < 4:
            state = _with_last_weights(state)
        state = with_read_only_arrays(state)
    return state


def with_read_only_arrays(fitted: dict[str, Any]) -> dict[str, Any]:
    """Make the arrays among fitted attributes read-only."""
    private = fitted["_state_"]
    weights = fitted["weights_"].items()
    arrays = {
        name: read_only(fitted[name])
        for name in ["feature_names_in_", "noise_variance_"]
        if isinstance(fitted.get(name), np.ndarray)
    }
    return {
        **fitted,
        **arrays,
        "weights_": {path: read_only(weight) for path, weight in weights},
        "latent_kl_": read_only(fitted["latent_kl_"]),
        "_state_": {
            **private,
            "last_weights": read_only(private["last_weights"]),
            "optimizer_arrays": [read_only(a) for a in private["optimizer_arrays"]],
        },
    }


def weights_checksum(weights: np.ndarray) -> int:
    """Checksum of fitted weights (n_weights,), which tells whether they were replaced.

    It is that of their values as float32, whatever their dtype.
    """
    return zlib.crc32(np.ascontiguousarray(weights, "<f4").data)


def _from_format_1(state: dict[str, Any]) -> dict[str, Any]:
    """Convert a validated state of format 1."""
    private = state["_state_"]
    # The optimizer's own variables come last. The first of them counts its steps.
    n_variables = len(OPTIMIZERS[private["optimizer"]])
    n_steps = int(private["optimizer_arrays"][-n_variables])
    state = {**state, "_state_": {**private, "n_steps": n_steps}}
    if private["architecture"]["dtype_policy"] == "float32":
        state["compute_dtype_"] = "float32"
    return state


def _with_last_weights(state: dict[str, Any]) -> dict[str, Any]:
    """Add the weights to go on from to a validated state of format 1, 2 or 3.

    Results were computed with them, and not yet with an average.
    """
    private = state["_state_"]
    weights = Architecture(**private["architecture"]).pack(state["weights_"])
    last = {"last_weights": weights, "weights_checksum": weights_checksum(weights)}
    return {**state, "_state_": {**private, **last}}
