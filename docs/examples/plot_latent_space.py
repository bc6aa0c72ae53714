"""
A map of the latent space
=========================

With two latent features, every image is a point of a plane, and every point of the
plane decodes to an image.
"""

from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from skvae import ConvVAE, LatentSpaceDisplay, ManifoldDisplay

images, labels = load_digits().images, load_digits().target
vae = ConvVAE(latent_dim=2, filters=32, hidden_layers=2, epochs=60, random_state=0)
vae.fit(images)

# %%
# Images of the same digit lie together, although the labels were not used to fit. The
# axes say how many nats each feature carries.

_ = LatentSpaceDisplay.from_estimator(vae, images, labels)

# %%
# The manifold is a grid of points of the same plane, decoded. It shows what the regions
# of the map look like, and how one digit turns into another between them.

figure, ax = plt.subplots(figsize=(6.4, 6.4), layout="constrained")
_ = ManifoldDisplay.from_estimator(vae, n_steps=15, ax=ax)

# %%
# With more features, the map has the two that carry most, or what another transformer
# makes of all, and the manifold has a row for each feature.

from sklearn.decomposition import PCA

vae.set_params(latent_dim=8, epochs=40).fit(images)
figure, axes = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
LatentSpaceDisplay.from_estimator(vae, images, labels, projection=PCA(2), ax=axes[0])
_ = ManifoldDisplay.from_estimator(vae, n_steps=11, ax=axes[1])
