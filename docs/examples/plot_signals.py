"""
Signals
=======

A row of any number of values that is no square is a strip of 1 x n pixels, so a ConvVAE
takes signals as they are. Here it learns heartbeats that are simulated: a sum of bumps
whose widths, heights and places vary.
"""

import numpy as np
from matplotlib import pyplot as plt

from skvae import ConvVAE, ConvVAEOutlierDetector

rng = np.random.default_rng(0)
times = np.linspace(-0.35, 0.45, 150)  # seconds


def heartbeats(n, st_shift=0.0):
    """Simulate n heartbeats of 150 values, in millivolts."""
    beats = 0.02 * rng.standard_normal((n, len(times)))
    for place, width, height in (
        (-0.17, 0.025, 0.15),  # P
        (-0.03, 0.010, -0.15),  # Q
        (0.00, 0.012, 1.20),  # R
        (0.03, 0.010, -0.25),  # S
        (0.25, 0.045, 0.35),  # T
    ):
        at = place * rng.normal(1, 0.08, (n, 1))
        wide = width * rng.normal(1, 0.12, (n, 1))
        beats += (
            height
            * rng.normal(1, 0.15, (n, 1))
            * np.exp(-(((times - at) / wide) ** 2) / 2)
        )
    is_raised = (times > 0.06) & (times < 0.2)
    return beats + st_shift * is_raised


X = heartbeats(2500)
X.shape

# %%
# Decoded signals are smooth: noise is not in the features.

vae = ConvVAE(latent_dim=8, filters=16, hidden_layers=3, epochs=60, early_stopping=True)
detector = ConvVAEOutlierDetector(vae, contamination=0.02, random_state=0).fit(X)
fitted = detector.estimator_
new = heartbeats(200)
decoded = fitted.inverse_transform(fitted.transform(new))

figure, axes = plt.subplots(1, 4, figsize=(10, 2.6), sharey=True, layout="constrained")
for ax, signal, smooth in zip(axes, new, decoded, strict=False):
    ax.plot(times, signal, color="0.7")
    ax.plot(times, smooth)
    ax.set_xlabel("seconds")
_ = axes[0].set_ylabel("millivolts")

# %%
# Heartbeats with a raised segment were not among those fitted, and the detector finds
# them. The error map shows where they differ.

raised = heartbeats(200, st_shift=0.15)
for name, signals in (("usual", new), ("raised", raised)):
    print(f"{name}: {np.mean(detector.predict(signals) == -1):.0%} found")

figure, ax = plt.subplots(figsize=(6.4, 3), layout="constrained")
ax.plot(times, detector.error_map(new).mean(axis=0), label="usual")
ax.plot(times, detector.error_map(raised).mean(axis=0), label="raised")
ax.set(xlabel="seconds", ylabel="squared error / noise variance")
_ = ax.legend()
