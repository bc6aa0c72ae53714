"""
Serving a saved model
=====================

A fitted ConvVAE is saved with joblib. To load and use it needs neither TensorFlow nor
Keras: ONNX Runtime computes its results. It starts in about a second, takes well below
a millisecond for a small image, and gives each image the same bits alone and among
others.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import joblib
import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from skvae import ConvVAE

images = load_digits().images
vae = ConvVAE(latent_dim=8, filters=32, hidden_layers=2, epochs=20, random_state=0)
vae.fit(images)
folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "vae.joblib"
joblib.dump(vae, path)
print(f"{path.stat().st_size / 1e6:.1f} MB")

# %%
# Another process loads the file, and never imports TensorFlow.

script = f"""
import sys
import joblib
from sklearn.datasets import load_digits

vae = joblib.load({str(path)!r})
print(vae.transform(load_digits().images[:1]).round(2))
print("tensorflow" in sys.modules)
"""
done = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, check=True
)
print(done.stdout)

# %%
# One image at a time gives the same bits as all at once.

served = joblib.load(path)
alone = np.concatenate([served.transform(image[np.newaxis]) for image in images])
print((alone == served.transform(images)).all())

# %%
# The time for one image falls as more come at once. These figures are of the machine
# that built this page.

numbers = [1, 3, 10, 30, 100, 300, 1000]
times = []
for number in numbers:
    turns = []
    for _ in range(20):
        start = perf_counter()
        served.transform(images[:number])
        turns.append(perf_counter() - start)
    times.append(median(turns) / number)

figure, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
ax.loglog(numbers, np.array(times) * 1e3, marker="o")
_ = ax.set(xlabel="images in a call", ylabel="milliseconds an image")
