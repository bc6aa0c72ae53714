"""Keras models, layers, initializers and the training objective.

Importing this package registers the layers that `keras.saving.load_model` needs for
models from `ConvVAE.to_keras`. It imports Keras and TensorFlow.
"""

from skvae.network.models import (
    KerasModels,
    Sampling,
    build_decoder,
    build_encoder,
    build_models,
)

__all__ = ["KerasModels", "Sampling", "build_decoder", "build_encoder", "build_models"]
