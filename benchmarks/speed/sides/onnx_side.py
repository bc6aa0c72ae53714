"""ONNX Runtime in the speed benchmark: the models of `to_onnx`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from benchmarks.common.measurement import fastest, seconds_per_call
from benchmarks.speed.sides.importance import importance_scores
from benchmarks.speed.workloads import architecture, make_inputs
from skvae.serving.export import onnx_models

if TYPE_CHECKING:
    from benchmarks.speed.workloads import Serving as ServingWorkload

_BATCH_SIZES = (32, 256, 1024)


class Serving:
    """Sessions with default options, called batch by batch."""

    def __init__(self, workload: ServingWorkload) -> None:
        self._workload = workload
        self._inputs = make_inputs(workload)
        if workload.task != "decode":
            self._inputs = self._inputs[..., None]  # (n, H, W, 1)

    def check(self, weights: dict[str, np.ndarray]) -> np.ndarray:
        """Set the weights and return the result of one call."""
        models = onnx_models(architecture(self._workload), weights, (0.0, 1.0))
        self._encoder, self._decoder = (
            onnxruntime.InferenceSession(model.SerializeToString()) for model in models
        )
        return self._compute(_BATCH_SIZES[0])

    def forms(self) -> dict[str, str]:
        """Select the fastest batch size."""
        batch_sizes = [1] if len(self._inputs) == 1 else _BATCH_SIZES
        self._batch_size = fastest(batch_sizes, self._seconds)
        return {"ONNX Runtime": f"batch_size={self._batch_size}"}

    def serve(self, _: str) -> float:
        """Measure seconds per call."""
        return self._seconds(self._batch_size)

    def _seconds(self, batch_size: int) -> float:
        return seconds_per_call(lambda: self._compute(batch_size))

    def _compute(self, batch_size: int) -> np.ndarray:
        starts = range(0, len(self._inputs), batch_size)
        batches = [self._inputs[start : start + batch_size] for start in starts]
        if self._workload.task == "encode":
            return np.concatenate([self._encode(x)[0] for x in batches])
        if self._workload.task == "decode":
            return np.concatenate([self._decode(z) for z in batches])[..., 0]
        return importance_scores(self._inputs, self._encode, self._decode, batch_size)

    def _encode(self, images: np.ndarray) -> list[np.ndarray]:
        return self._encoder.run(None, {"images": images})

    def _decode(self, z: np.ndarray) -> np.ndarray:
        return self._decoder.run(None, {"z": z})[0]
