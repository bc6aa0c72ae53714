"""Keras in the speed benchmark: `fit`, `predict` and `predict_on_batch`."""

from __future__ import annotations

from itertools import product, starmap
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from benchmarks.common.measurement import fastest, seconds_per_call
from benchmarks.networks.keras_vae import (
    TrainStepVAE,
    build_decoder,
    build_encoder,
    kl_divergence,
    load_weights,
    squared_error,
    with_added_loss,
)
from benchmarks.speed.sides.importance import importance_scores
from benchmarks.speed.workloads import (
    KERNEL_SIZE,
    LATENT_DIM,
    LEARNING_RATE,
    make_images,
    make_inputs,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.speed.workloads import Serving as ServingWorkload
    from benchmarks.speed.workloads import Training as TrainingWorkload

    _Predict = Callable[[keras.Model, np.ndarray, int], np.ndarray]

_NETWORK = {"latent_dim": LATENT_DIM, "kernel_size": KERNEL_SIZE}
_MODELS = {"train_step": TrainStepVAE, "add_loss": with_added_loss}
_STEPS_PER_EXECUTION = (8, 32)
_BATCH_SIZES = (32, 256, 1024)


class _Form(NamedTuple):
    model: str
    feed: str
    steps_per_execution: int = 1
    jit_compile: bool = False

    def __str__(self) -> str:
        xla = ", jit_compile" if self.jit_compile else ""
        steps = f"steps_per_execution={self.steps_per_execution}"
        return f"{self.model}, {self.feed}, {steps}{xla}"

    @property
    def compiled(self) -> _Form:
        """Part of the form that a compiled model depends on."""
        return self._replace(feed="")


class Training:
    """Calls of `fit`, each from the same weights and initial optimizer state."""

    def __init__(self, workload: TrainingWorkload) -> None:
        self._workload = workload
        self._images = make_images(workload)[..., None]  # (n, H, W, 1)
        dataset = tf.data.Dataset.from_tensor_slices(self._images)
        # With autotuning, the end of an epoch can wait for the tuning thread for as
        # long as the epoch took: in TensorFlow 2.21 this thread wakes up after 10 ms,
        # 30 ms, 70 ms and so on.
        untuned = tf.data.Options()
        untuned.autotune.enabled = False
        # Input pipelines, as arguments of `fit`.
        self._feeds: dict[str, dict[str, Any]] = {
            "array": {"x": self._images, "batch_size": workload.batch_size},
            "tf.data": self._batches(dataset),
            "tf.data cached": self._batches(dataset.cache()),
            "tf.data without autotune": self._batches(dataset.with_options(untuned)),
        }
        self._models: dict[_Form, keras.Model] = {}
        self._optimizer_starts: dict[_Form, list[np.ndarray]] = {}
        self._chosen: dict[str, _Form] = {}

    def check(self, weights: dict[str, np.ndarray], n_images: int) -> tuple[int, float]:
        """Return the number of weights, and the loss of the first images at z_mean."""
        self._weights = weights
        encoder, decoder = self._networks()
        variables = [*encoder.trainable_variables, *decoder.trainable_variables]
        images = self._images[:n_images]
        z_mean, z_log_var, _ = encoder(images)
        errors = squared_error(images, decoder(z_mean))
        loss = keras.ops.mean(errors + kl_divergence(z_mean, z_log_var))
        return sum(int(np.prod(v.shape)) for v in variables), float(loss)

    def forms(self) -> dict[str, str]:
        """Select the fastest forms: plain, several steps per execution, and XLA.

        XLA, which Keras does not use on CPUs by default, is included only if it is
        faster.
        """

        def seconds(form: _Form) -> float:
            return self._train(form, epochs=1)[0]

        plain = fastest(starmap(_Form, product(_MODELS, self._feeds)), seconds)
        several = fastest(
            [plain._replace(steps_per_execution=n) for n in _STEPS_PER_EXECUTION],
            seconds,
        )
        with_xla = [several._replace(model=m, jit_compile=True) for m in _MODELS]
        best = fastest([several, *with_xla], seconds)
        self._chosen = {"Keras fit": plain, "Keras fit, several steps": several}
        if best.jit_compile:
            self._chosen["Keras fit, XLA"] = best
        return {name: str(form) for name, form in self._chosen.items()}

    def train(self, name: str) -> tuple[float, float]:
        """Return the seconds of a fit and the mean loss of its last epoch."""
        return self._train(self._chosen[name], self._workload.epochs)

    def _train(self, form: _Form, epochs: int) -> tuple[float, float]:
        key = form.compiled
        if key not in self._models:
            self._compile(key)
        model = self._models[key]
        load_weights(
            [model.get_layer("encoder"), model.get_layer("decoder")], self._weights
        )
        variables = model.optimizer.variables
        for variable, start in zip(variables, self._optimizer_starts[key], strict=True):
            variable.assign(start)
        start = perf_counter()
        history = model.fit(**self._feeds[form.feed], epochs=epochs, verbose=0)
        return perf_counter() - start, history.history["loss"][-1]

    def _compile(self, key: _Form) -> None:
        model = _MODELS[key.model](*self._networks())
        model.compile(
            optimizer=keras.optimizers.Adam(LEARNING_RATE),
            steps_per_execution=key.steps_per_execution,
            jit_compile=key.jit_compile,
        )
        model.optimizer.build(model.trainable_variables)
        self._models[key] = model
        self._optimizer_starts[key] = [
            np.array(variable) for variable in model.optimizer.variables
        ]

    def _networks(self) -> tuple[keras.Model, keras.Model]:
        network = {
            **_NETWORK,
            "filters": self._workload.filters,
            "hidden_layers": self._workload.hidden_layers,
        }
        encoder = build_encoder(self._workload.size, **network)
        decoder = build_decoder(self._workload.size, **network)
        load_weights([encoder, decoder], self._weights)
        return encoder, decoder

    def _batches(self, dataset: tf.data.Dataset) -> dict[str, Any]:
        shuffled = dataset.shuffle(self._workload.n_images)
        batches = shuffled.batch(self._workload.batch_size)
        # With shuffle=True, Keras would warn that it does not shuffle datasets.
        return {"x": batches.prefetch(tf.data.AUTOTUNE), "shuffle": False}


class Serving:
    """Calls of encoder and decoder."""

    def __init__(self, workload: ServingWorkload) -> None:
        self._task = workload.task
        self._inputs = make_inputs(workload)
        if workload.task != "decode":
            self._inputs = self._inputs[..., None]  # (n, H, W, 1)
        network = {
            "latent_dim": workload.latent_dim,
            "filters": workload.filters,
            "hidden_layers": workload.hidden_layers,
            "kernel_size": KERNEL_SIZE,
        }
        self._sampling_encoder = build_encoder(workload.size, **network)
        self._decoder = build_decoder(workload.size, **network)
        inputs, outputs = self._sampling_encoder.inputs, self._sampling_encoder.outputs
        self._encoder = keras.Model(inputs, outputs[0])
        self._posterior = keras.Model(inputs, outputs[:2])
        self._functions = {
            "Keras predict": _predict,
            "Keras predict_on_batch": _predict_on_batches,
        }
        self._batch_sizes: dict[str, int] = {}

    def check(self, weights: dict[str, np.ndarray]) -> np.ndarray:
        """Set the weights and return the result of one call."""
        load_weights([self._sampling_encoder, self._decoder], weights)
        return self._compute(_predict, _BATCH_SIZES[0])

    def forms(self) -> dict[str, str]:
        """Select the fastest batch size of both prediction methods."""
        batch_sizes = [1] if len(self._inputs) == 1 else _BATCH_SIZES
        for name in self._functions:
            self._batch_sizes[name] = fastest(
                batch_sizes, lambda size, name=name: self._seconds(name, size)
            )
        return {name: f"batch_size={size}" for name, size in self._batch_sizes.items()}

    def serve(self, name: str) -> float:
        """Measure seconds per call."""
        return self._seconds(name, self._batch_sizes[name])

    def _seconds(self, name: str, batch_size: int) -> float:
        predict = self._functions[name]
        return seconds_per_call(lambda: self._compute(predict, batch_size))

    def _compute(self, predict: _Predict, batch_size: int) -> np.ndarray:
        if self._task == "encode":
            return predict(self._encoder, self._inputs, batch_size)
        if self._task == "decode":
            return predict(self._decoder, self._inputs, batch_size)[..., 0]
        return importance_scores(
            self._inputs,
            self._posterior.predict_on_batch,
            lambda z: predict(self._decoder, z, batch_size),
            batch_size,
        )


def _predict(model: keras.Model, inputs: np.ndarray, batch_size: int) -> np.ndarray:
    return model.predict(inputs, batch_size=batch_size, verbose=0)


def _predict_on_batches(
    model: keras.Model, inputs: np.ndarray, batch_size: int
) -> np.ndarray:
    starts = range(0, len(inputs), batch_size)
    batches = [inputs[start : start + batch_size] for start in starts]
    return np.concatenate([model.predict_on_batch(x) for x in batches])
