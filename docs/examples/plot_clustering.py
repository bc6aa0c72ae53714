"""
Clustering
==========

Clusters of latent features are groups of images that look alike. Here k-means finds
such groups among digits, in the pixels and in 8 features.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score

from skvae import ConvVAE, LatentSpaceDisplay

images, labels = load_digits().images, load_digits().target
vae = ConvVAE(latent_dim=8, filters=32, hidden_layers=2, epochs=60, random_state=0)
features = vae.fit_transform(images)

# %%
# The adjusted Rand index compares the clusters with the true digits. It is 1 if they
# agree, and about 0 for random clusters. Clusters of the 8 features agree as well as
# those of the 64 pixels.

pixels = images.reshape(len(images), -1)
kmeans = KMeans(10, n_init=10, random_state=0)
for name, X in (("pixels", pixels), ("features", features)):
    found = kmeans.fit_predict(X)
    print(f"{name}: adjusted Rand index {adjusted_rand_score(labels, found):.2f}")

# %%
# The centre of a cluster is a point in the latent space, which can be decoded.

centres = vae.inverse_transform(kmeans.cluster_centers_)
sizes = np.bincount(found, minlength=10)
figure, axes = plt.subplots(2, 5, figsize=(7, 3.4), layout="constrained")
for ax, centre, size in zip(axes.flat, centres, sizes, strict=True):
    ax.imshow(centre, cmap="gray", vmin=0, vmax=16)
    ax.set_title(f"{size} images", fontsize="small")
    ax.set_axis_off()

# %%
# The clusters, and the digits, in a plane in which neighbours stay neighbours:

from sklearn.manifold import TSNE

some = slice(None, None, 3)  # a third of the images
plane = TSNE(random_state=0).fit_transform(features[some])
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for ax, y, title in ((axes[0], found, "clusters"), (axes[1], labels, "digits")):
    LatentSpaceDisplay(plane, y[some]).plot(ax)
    ax.set(title=title, xticks=[], yticks=[])
