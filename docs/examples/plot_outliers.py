"""
Finding odd images
==================

``ConvVAEOutlierDetector`` finds images unlike those it was fitted to. It was told only
what is normal: here the digits 0 to 8. Error maps show what is odd in an image.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.metrics import RocCurveDisplay
from sklearn.model_selection import train_test_split

from skvae import ConvVAE, ConvVAEOutlierDetector, OutlierDisplay

images, labels = load_digits().images, load_digits().target
normal, nines = images[labels != 9], images[labels == 9]
X_train, X_normal = train_test_split(normal, random_state=0)

# %%
# The detector sets a part of the training images aside. Its threshold is the score
# below which ``contamination`` of these are.

vae = ConvVAE(
    latent_dim=8, filters=32, hidden_layers=2, epochs=150, early_stopping=True
)
detector = ConvVAEOutlierDetector(vae, contamination=0.05, random_state=0)
detector.fit(X_train)
for name, X in (("nines", nines), ("new images of 0 to 8", X_normal)):
    print(f"{name}: {np.mean(detector.predict(X) == -1):.0%} found")

# %%
# The oddest of all test images, each above its reconstruction and its error map:

X_test = np.concatenate([X_normal, nines])
_ = OutlierDisplay.from_estimator(detector, X_test, n_samples=12)

# %%
# The curve shows what other thresholds would find.

is_normal = np.repeat([1, 0], [len(X_normal), len(nines)])
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for name, X in (("0 to 8", X_normal), ("nines", nines)):
    axes[0].hist(detector.decision_function(X), bins=40, alpha=0.7, label=name)
axes[0].axvline(0, color="k", linestyle=":")
axes[0].set(xlabel="nats above the threshold", ylabel="images")
axes[0].legend()
_ = RocCurveDisplay.from_predictions(
    is_normal, detector.decision_function(X_test), ax=axes[1], name="detector"
)
