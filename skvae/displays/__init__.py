"""Displays that plot a fitted ConvVAE or detector, in scikit-learn's form."""

from skvae.displays.latent_space import LatentSpaceDisplay
from skvae.displays.manifold import ManifoldDisplay
from skvae.displays.outliers import OutlierDisplay
from skvae.displays.reconstruction import ReconstructionDisplay
from skvae.displays.samples import SampleDisplay
from skvae.displays.training import TrainingDisplay

__all__ = [
    "LatentSpaceDisplay",
    "ManifoldDisplay",
    "OutlierDisplay",
    "ReconstructionDisplay",
    "SampleDisplay",
    "TrainingDisplay",
]
