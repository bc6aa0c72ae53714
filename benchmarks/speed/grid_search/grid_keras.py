"""Grid search with Keras: `python grid_keras.py`.

The search is a loop, as `keras.wrappers.SKLearnTransformer` does not work here with
GridSearchCV: it rejects images as targets, also as rows ("y should be a 1d array"), and
models whose whole loss is added by a layer, and its clones lose `fit_kwargs`.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from benchmarks.networks.keras_vae import build_decoder, build_encoder, with_added_loss
from benchmarks.speed.grid_search.grid import (
    BATCH_SIZE,
    EPOCHS,
    HIDDEN_LAYERS,
    load_images,
    search,
)
from benchmarks.speed.workloads import KERNEL_SIZE, LEARNING_RATE


def losses(
    train: np.ndarray, test: np.ndarray, latent_dim: int, filters: int
) -> tuple[float, float]:
    """Train and return the losses of the last epoch and of the held-out images."""
    network = {
        "latent_dim": latent_dim,
        "filters": filters,
        "hidden_layers": HIDDEN_LAYERS,
        "kernel_size": KERNEL_SIZE,
    }
    size = train.shape[1]
    vae = with_added_loss(
        build_encoder(size, **network), build_decoder(size, **network)
    )
    vae.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE))
    shuffled = batches(train, is_shuffled=True)
    history = vae.fit(shuffled, epochs=EPOCHS, shuffle=False, verbose=0)
    held_out = vae.evaluate(batches(test, is_shuffled=False), verbose=0)
    return history.history["loss"][-1], held_out


def batches(images: np.ndarray, *, is_shuffled: bool) -> tf.data.Dataset:
    """Build a dataset without autotuning, which is faster here (see keras_side.py)."""
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = tf.data.Dataset.from_tensor_slices(images).with_options(options)
    if is_shuffled:
        dataset = dataset.shuffle(len(images))
    return dataset.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


def main() -> None:
    """Run the search and print the outcome."""
    search(losses, load_images()[..., None])


if __name__ == "__main__":
    main()
