"""
Denoising
=========

A ConvVAE fitted to clean images decodes noisy ones to clean ones: its few features have
no room for noise.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from skvae import ConvVAE

X_train, X_test = train_test_split(load_digits().images, random_state=0)
vae = ConvVAE(latent_dim=8, filters=32, hidden_layers=2, epochs=60, random_state=0)
vae.fit(X_train)

# %%
# Noise is added to the test images, whose values are 0 to 16. ConvVAE and PCA both
# encode the noisy images to 8 features and decode these.

rng = np.random.default_rng(0)
noisy = X_test + rng.normal(0, 4, X_test.shape)
denoised = vae.inverse_transform(vae.transform(noisy))

pca = PCA(8).fit(X_train.reshape(-1, 64))
rows = pca.inverse_transform(pca.transform(noisy.reshape(-1, 64)))
of_pca = rows.reshape(-1, 8, 8)

for name, images in (("noisy", noisy), ("PCA", of_pca), ("ConvVAE", denoised)):
    print(f"{name}: squared error {((images - X_test) ** 2).mean():.1f}")

# %%
# Each column has an image: with noise, denoised by both, and as it was.

figure, axes = plt.subplots(4, 10, figsize=(8, 3.6), layout="constrained")
parts = {"noisy": noisy, "PCA": of_pca, "ConvVAE": denoised, "original": X_test}
for row, (label, part) in zip(axes, parts.items(), strict=True):
    for ax, image in zip(row, part[:10], strict=True):
        ax.imshow(image, cmap="gray", vmin=0, vmax=16)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(label, rotation=0, ha="right", va="center")
