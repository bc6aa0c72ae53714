"""Format of the state of a saved ConvVAE, and its conversion."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np

from skvae.architecture import OPTIMIZERS
from skvae.data.read_only import read_only
from skvae.persistence.validation import (
    PRIVATE,
    check_attributes,
    check_fitted,
    check_format,
)

# Incremented when the states of earlier versions need a conversion.
FORMAT = 3
FORMAT_NAME = "_skvae_format"

# Fitted attributes that not every fit sets.
OPTIONAL = frozenset(
    {"noise_variance_", "feature_names_in_", "sampler_", "compute_dtype_"}
)

# Entries of `_state_` that format 1 does not have.
_NEW_IN_FORMAT_2 = frozenset({"n_steps"})


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
        check_fitted(state, PRIVATE - _NEW_IN_FORMAT_2 if number == 1 else PRIVATE)
        if number == 1:
            state = _from_format_1(state)
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
            "optimizer_arrays": [read_only(a) for a in private["optimizer_arrays"]],
        },
    }


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
