"""Export to ONNX models, in the caller's units."""

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
    """Build ONNX models that take and return images in the caller's units.

    Parameters
    ----------
    architecture : Architecture
    weights : mapping of str to ndarray
        Weights by Keras path.
    value_range : (float, float)
        Interval of pixel values that is scaled to [0, 1].

    Returns
    -------
    OnnxModels

    Raises
    ------
    ValueError
        If the weights do not match the architecture, or exceed the size limit of ONNX.
    """
    models = OnnxModels(
        encoder_graph(architecture, weights, value_range).to_model(),
        decoder_graph(architecture, weights, value_range).to_model(),
    )
    for model in models:
        onnx.checker.check_model(model, full_check=True)
    return models
