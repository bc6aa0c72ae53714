"""
A tour
======

This tour fits a ConvVAE to digits, which it then compresses, decodes and scores.
"""

# %%
# scikit-learn's digits are grey images of 8 x 8 pixels, as an array of shape
# (n, 8, 8). The labels are used in pictures alone.

from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

images, labels = load_digits().images, load_digits().target
X_train, X_test, y_train, y_test = train_test_split(images, labels, random_state=0)
X_train.shape

# %%
# Fit
# ---
#
# Small images need few layers. Early stopping holds out a part of the training images,
# and stops when their likelihood no longer rises.

from skvae import ConvVAE

vae = ConvVAE(latent_dim=8, filters=32, hidden_layers=2, early_stopping=True)
vae.set_params(epochs=60, random_state=0).fit(X_train)

# %%
# The loss is in nats, and falls on the training images and those held out.

from skvae import TrainingDisplay

_ = TrainingDisplay.from_estimator(vae)

# %%
# Compress and decode
# -------------------
#
# ``transform`` gives 8 features for each image, and ``inverse_transform`` decodes them.

from skvae import ReconstructionDisplay

features = vae.transform(X_test)
decoded = vae.inverse_transform(features)
print(features.shape, decoded.shape)
_ = ReconstructionDisplay.from_estimator(vae, X_test, n_samples=12)

# %%
# Two of the features separate some of the digits already.

from skvae import LatentSpaceDisplay

_ = LatentSpaceDisplay.from_estimator(vae, X_test, y_test)

# %%
# Sample and score
# ----------------
#
# New images are decoded from random features.

from skvae import SampleDisplay

_ = SampleDisplay.from_estimator(vae, n_samples=48)

# %%
# ``score_samples`` estimates the log-likelihood of an image. Noise is far less likely
# than a digit.

import numpy as np

noise = np.random.default_rng(0).integers(0, 17, (450, 8, 8))
figure, ax = plt.subplots(figsize=(6.4, 3), layout="constrained")
ax.hist(vae.score_samples(X_test), bins=40, label="digits")
ax.hist(vae.score_samples(noise), bins=40, label="noise")
ax.set(xlabel="log-likelihood, nats", ylabel="images")
_ = ax.legend()
