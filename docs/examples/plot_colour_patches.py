"""
Colour patches of photographs
=============================

Images with channels have shape (n, height, width, channels). Here they are patches of
32 x 32 pixels of two photographs, in colours of 8 bits.
"""

import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d

from skvae import ConvVAE, LatentSpaceDisplay, ReconstructionDisplay, SampleDisplay

photographs = load_sample_images().images
patches = [
    extract_patches_2d(photograph, (32, 32), max_patches=1000, random_state=0)
    for photograph in photographs
]
X = np.concatenate(patches)
names = np.repeat(["china", "flower"], 1000)
print(X.shape, X.dtype)

# %%
# Larger images need more layers: each halves height and width. The picture has patches
# that the network was fitted to, over the same patches decoded.

vae = ConvVAE(latent_dim=32, filters=16, hidden_layers=3, epochs=15, random_state=0)
vae.fit(X)
_ = ReconstructionDisplay.from_estimator(vae, X[::80], n_samples=20)

# %%
# Samples have the colours of patches, but no objects: 2,000 patches are few.

_ = SampleDisplay.from_estimator(vae, n_samples=40)

# %%
# The features of the two photographs differ.

_ = LatentSpaceDisplay.from_estimator(vae, X, names)
