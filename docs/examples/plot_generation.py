"""
Generating images of a class
============================

A ConvVAE does not use labels. To generate images of a given class, fit a density to the
latent features of each class, draw from it, and decode.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture

from skvae import ConvVAE

images, labels = load_digits().images, load_digits().target
vae = ConvVAE(latent_dim=8, filters=32, hidden_layers=2, epochs=60, random_state=0)
features = vae.fit_transform(images).astype(float)

# %%
# One mixture of three Gaussians describes the features of a class.

mixtures = [
    GaussianMixture(3, reg_covar=1e-2, random_state=0).fit(features[labels == label])
    for label in range(10)
]

# %%
# Each row has ten new images of a digit.

drawn = np.concatenate([mixture.sample(10)[0] for mixture in mixtures])
generated = vae.inverse_transform(drawn)

figure, axes = plt.subplots(10, 10, figsize=(6, 6), layout="constrained")
for ax, image in zip(axes.flat, generated, strict=True):
    ax.imshow(image, cmap="gray", vmin=0, vmax=16)
    ax.set_axis_off()

# %%
# Without labels, a mixture of all features as ``sampler`` makes ``sample`` draw from
# regions in which there are images. The prior, which is the default, also draws from
# the regions between them.

from skvae import SampleDisplay

mixed = ConvVAE(latent_dim=8, filters=32, hidden_layers=2, epochs=60, random_state=0)
mixed.set_params(sampler=GaussianMixture(30, random_state=0)).fit(images)
figure, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
for ax, model, title in ((axes[0], vae, "prior"), (axes[1], mixed, "mixture")):
    SampleDisplay.from_estimator(model, n_samples=64, n_cols=8, ax=ax)
    ax.set_title(title)
