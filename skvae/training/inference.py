"""Inference of the network under training."""

from __future__ import annotations

from skvae.architecture import Architecture
from skvae.serving.sessions import FittedNetwork
from skvae.training.plan import TrainingData, TrainingState


def network_of(
    architecture: Architecture, data: TrainingData, state: TrainingState
) -> FittedNetwork:
    """Network with the weights of a state, for images in the caller's units."""
    weights = architecture.unpack(state.weights)
    return FittedNetwork(architecture, weights, data.value_range, state.seed)
