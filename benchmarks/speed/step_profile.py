"""Where the time of a training step goes, by kind of operation.

TensorFlow's profiler gives the time of each operation of a fit. Operations that run at
the same time count in full, so their sum is more than the duration of a step.

Usage (about 1 minute on 2 cores):

    pip install -e '.[benchmarks]'
    python benchmarks/speed/step_profile.py [--one-thread]

The script prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import skvae
from skvae import ConvVAE
from skvae.exceptions import PosteriorCollapseWarning

# Size, filters, hidden layers, images of an epoch and of a batch.
CASES = (
    (8, 8, 2, 2000, 32),
    (8, 32, 2, 1500, 32),
    (28, 8, 3, 640, 64),
    (28, 32, 3, 320, 64),
    (32, 8, 2, 1280, 128),
    (64, 8, 3, 320, 64),
    (64, 32, 3, 128, 64),
    (128, 8, 4, 128, 64),
    (128, 32, 4, 64, 64),
)
EPOCHS = 2

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


def profile(size: int, filters: int, layers: int, n: int, batch: int) -> Counter[str]:
    """Microseconds of each type of operation in a training step."""
    # After skvae, which enables oneDNN, and after `configure_threads`.
    import tensorflow as tf  # noqa: PLC0415
    from tensorflow.tsl.profiler.protobuf import xplane_pb2  # noqa: PLC0415

    images = np.random.default_rng(0).random((n, size, size), np.float32)
    vae = ConvVAE(
        filters=filters,
        hidden_layers=layers,
        batch_size=batch,
        epochs=EPOCHS,
        random_state=0,
    )
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
    n_steps = EPOCHS * math.ceil(n / batch)
    return Counter({kind: time / n_steps for kind, time in times.items()})


def main() -> None:
    """Print a column for each case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--one-thread", action="store_true", help="one thread per operation"
    )
    if parser.parse_args().one_thread:
        skvae.configure_threads()
    warnings.simplefilter("ignore", PosteriorCollapseWarning)
    table = [["", "microseconds a step", *KINDS]]
    for case in CASES:
        times = profile(*case)
        total = times.total()
        column = [f"{case[0]} x {case[0]}, {case[1]} filters", f"{total:,.0f}"]
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
