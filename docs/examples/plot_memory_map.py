"""
Images larger than memory
=========================

``fit`` and ``transform`` read a memory map part by part, so the images of a file need
not fit in memory. ``transform`` can write to another file. scikit-learn's
``ProgressBar`` shows how far training is.
"""

import tempfile
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from sklearn.callback import ProgressBar
from sklearn.datasets import load_sample_image
from sklearn.feature_extraction.image import extract_patches_2d

from skvae import ConvVAE, ReconstructionDisplay

# %%
# A file with 4,000 grey patches of a photograph, 16 x 16 pixels each. A real file may
# have any size.

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "patches.npy"
photograph = load_sample_image("china.jpg").mean(axis=-1).astype(np.uint8)
np.save(
    path, extract_patches_2d(photograph, (16, 16), max_patches=4000, random_state=0)
)
patches = np.load(path, mmap_mode="r")
print(type(patches).__name__, patches.shape, patches.dtype)

# %%
# The callback is set as for any other estimator of scikit-learn, and reaches the steps
# of a pipeline and the fits of a search, too.

vae = ConvVAE(latent_dim=16, filters=16, hidden_layers=3, epochs=20, random_state=0)
vae.set_callbacks(ProgressBar()).fit(patches)

# %%
# The features go to a file as well.

features = np.lib.format.open_memmap(
    Path(folder.name) / "features.npy", "w+", np.float32, (len(patches), 16)
)
vae.transform(patches, out=features)
features.flush()

# %%
# Displays read the rows that they show.

_ = ReconstructionDisplay.from_estimator(vae, patches, n_samples=12)

# %%
# Patches along the two features that carry most. They are flat in the sky, and have
# edges elsewhere.

first, second = np.argsort(vae.latent_kl_)[::-1][:2]
figure, ax = plt.subplots(layout="constrained")
points = ax.scatter(
    features[:, first], features[:, second], c=patches.std(axis=(1, 2)), s=4
)
figure.colorbar(points, label="standard deviation of the pixels")
_ = ax.set(xlabel=f"latent {first}", ylabel=f"latent {second}")
