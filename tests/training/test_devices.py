"""Device scopes of the host."""

import re


def test_fit_runs_on_the_device_in_scope(run_python):
    printed = run_python(
        """
import os
os.dup2(1, 2)  # TensorFlow logs where operations run
import numpy as np
import tensorflow as tf
from helpers import TINY, assert_same_fit
from skvae import ConvVAE

[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
X = np.random.default_rng(0).random((20, 8, 8))
tf.debugging.set_log_device_placement(True)
first = ConvVAE(**TINY).fit(X)
with tf.device("CPU:1"):
    second = ConvVAE(**TINY).fit(X)
assert_same_fit(second, first)
with tf.distribute.OneDeviceStrategy("GPU:0").scope():  # there is none
    third = ConvVAE(**TINY).fit(X)
assert_same_fit(third, first)

tf.config.set_soft_device_placement(False)
with tf.device("GPU:7"):
    try:
        ConvVAE(**TINY).fit(X)
    except tf.errors.InvalidArgumentError as error:
        assert "GPU:7" in str(error)
    else:
        raise AssertionError
""",
        TF_CPP_MIN_LOG_LEVEL="0",
    )
    calls = r"Executing op StatefulPartitionedCall in device \S*(CPU:\d)"
    devices = re.findall(calls, printed)
    # The first fit runs in a session.
    assert list(dict.fromkeys(devices)) == ["CPU:1", "CPU:0"]
