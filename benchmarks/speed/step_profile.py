"""Where the time of a training step goes, by kind of operation.

TensorFlow's profiler gives the time of each operation of a fit. Operations that run at
the same time count in full, so their sum is more than the duration of a step.

Usage (about 1 minute on 2 cores):

    pip install -e '.[benchmarks]'
    python benchmarks/speed/step_profile.py

The script prints a table in Markdown. TF_NUM_INTRAOP_THREADS sets the threads per
operation, of which `fit` takes one by default.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.speed.sides.skvae_side import conv_vae
from benchmarks.speed.workloads import Training, make_images

# Size, hidden layers, images of a batch and of an epoch, epochs, and filters.
WORKLOADS = (
    Training(8, 2, 32, 2000, 2, filters=8),
    Training(8, 2, 32, 1500, 2, filters=32),
    Training(28, 3, 64, 640, 2, filters=8),
    Training(28, 3, 64, 320, 2, filters=32),
    Training(32, 2, 128, 1280, 2, filters=8),
    Training(64, 3, 64, 320, 2, filters=8),
    Training(64, 3, 64, 128, 2, filters=32),
    Training(128, 4, 64, 128, 2, filters=8),
    Training(128, 4, 64, 64, 2, filters=32),
)

# Rows of the table, and parts of the names of their operations.
KINDS = {
    "convolutions": ("Conv2D",),
    "matrix products": ("MatMul",),
    "adding biases": ("BiasAdd", "AddV2"),
    "gradient of relu": ("ReluGrad",),
    "sums": ("Sum",),
}

# They contain other operations.
CALLS = ("While", "If", "PartitionedCall")


def profile(workload: Training) -> Counter[str]:
    """Microseconds of each type of operation in a training step."""
    # After skvae, which enables oneDNN.
    import tensorflow as tf  # noqa: PLC0415
    from tensorflow.tsl.profiler.protobuf import xplane_pb2  # noqa: PLC0415

    images = make_images(workload)
    vae = conv_vae(workload, "float32")
    vae.set_params(epochs=workload.epochs, batch_size=workload.batch_size)
    vae.fit(images)  # compiles
    profiler = tf.profiler.experimental
    with TemporaryDirectory() as folder:
        options = profiler.ProfilerOptions(host_tracer_level=2, python_tracer_level=0)
        profiler.start(folder, options=options)
        vae.fit(images)
        profiler.stop()
        (path,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace()
        space.ParseFromString(path.read_bytes())
    times: Counter[str] = Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                # Operations have names such as "while/body/.../Conv2D:Conv2D".
                name = plane.event_metadata[event.metadata_id].name.partition("#")[0]
                place, _, kind = name.rpartition(":")
                if "/" in place and not kind.endswith(CALLS):
                    times[kind] += event.duration_ps / 1e6
    n_steps = workload.epochs * math.ceil(workload.n_images / workload.batch_size)
    return Counter({kind: time / n_steps for kind, time in times.items()})


def main() -> None:
    """Print a column for each workload."""
    table = [["", "microseconds a step", *KINDS]]
    for workload in WORKLOADS:
        times = profile(workload)
        total = times.total()
        size = workload.size
        column = [f"{size} x {size}, {workload.filters} filters", f"{total:,.0f}"]
        for parts in KINDS.values():
            of_kind = (t for kind, t in times.items() if any(p in kind for p in parts))
            column.append(f"{100 * sum(of_kind) / total:.0f}")
        table.append(column)
    for i, row in enumerate(zip(*table, strict=True)):
        print(f"| {' | '.join(row)} |")
        if i == 0:
            print(f"|{' --- |' * len(row)}")


if __name__ == "__main__":
    main()
