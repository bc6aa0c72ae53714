"""A convolutional variational autoencoder as a scikit-learn estimator."""

import skvae.training.processes  # noqa: F401  remembers this process
from skvae.checkpoint import Checkpoint
from skvae.displays import (
    LatentSpaceDisplay,
    ManifoldDisplay,
    ReconstructionDisplay,
    SampleDisplay,
    TrainingDisplay,
)
from skvae.estimator import ConvVAE
from skvae.training.threads import configure_threads

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "ConvVAE",
    "LatentSpaceDisplay",
    "ManifoldDisplay",
    "ReconstructionDisplay",
    "SampleDisplay",
    "TrainingDisplay",
    "__version__",
    "configure_threads",
]
