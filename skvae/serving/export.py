"""ONNX models that others serve, in the caller's units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx

from skvae.architecture import Architecture
from skvae.serving.graphs import decoder_graph, encoder_graph


class OnnxModels(NamedTuple):
    """Encoder and decoder as ONNX models."""

    encoder: onnx.ModelProto
    decoder: onnx.ModelProto


def onnx_models(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    value_range: tuple[float, float],
) -> OnnxModels:
    """Make models of these weights that take and give images in the caller's units.

    Raises
    ------
    ValueError
        If the weights are not the architecture's, or larger than a model may be.
    """
    models = OnnxModels(
        encoder_graph(architecture, weights, value_range).to_model(),
        decoder_graph(architecture, weights, value_range).to_model(),
    )
    for model in models:
        onnx.checker.check_model(model, full_check=True)
    return models
