"""skvae is a guest: the host's settings and seeds are neither changed nor relied on."""

import numpy as np
import pytest

USE_ALL = """
import numpy as np
from skvae import ConvVAE
X = np.random.default_rng(0).random((40, 7, 5, 3))
def use():
    vae = ConvVAE(2, filters=2, epochs=2, random_state=0).fit(X)
    ConvVAE(2, filters=2, epochs=1).fit(X)  # random_state=None
    models = vae.to_keras()
    return (vae.transform(X), vae.sample(3), vae.score_samples(X),
            models.decoder(vae.transform(X)).numpy())
"""

HOST_SETTINGS = {
    "mixed_float16": "keras.config.set_dtype_policy('mixed_float16')",
    "float64": "keras.config.set_floatx('float64')",
    "channels_first": "keras.config.set_image_data_format('channels_first')",
    "float16": "keras.config.set_floatx('float16')",
    "seeds": "keras.utils.set_random_seed(3)",
    "epsilon": "keras.config.set_epsilon(1e-2)",
    "no_progress": "keras.config.disable_interactive_logging()",
}


@pytest.mark.slow
def test_what_the_host_has_set_changes_nothing(run_python, tmp_path):
    # One import of Keras; forks, as TensorFlow has not started.
    settings = {"plain": "", **HOST_SETTINGS}
    run_python(
        f"""
import os
import keras
for name, setting in {settings!r}.items():
    if os.fork() == 0:
        exec(setting)
        exec({USE_ALL!r})
        np.savez(name + ".npz", *use())
        os._exit(0)
    assert os.wait()[1] == 0, name
"""
    )
    plain = np.load(tmp_path / "plain.npz")
    for setting in HOST_SETTINGS:
        host = np.load(tmp_path / f"{setting}.npz")
        for name in plain.files:
            np.testing.assert_array_equal(plain[name], host[name], err_msg=setting)


@pytest.mark.slow
def test_name_scopes_of_the_host_change_nothing(run_python):
    run_python(
        """
import keras
import numpy as np
from skvae import ConvVAE
X = np.random.default_rng(0).random((20, 8, 8))
with keras.name_scope("host"):
    vae = ConvVAE(2, filters=2, epochs=1, random_state=0, warm_start=True).fit(X)
    models = vae.to_keras()
vae.fit(X)
other = ConvVAE(2, filters=2, epochs=2, random_state=0).fit(X)
assert other.history_ == vae.history_
"""
    )


def test_seeds_and_settings_of_the_host_stay(run_python):
    run_python(
        """
import os, random, warnings
import keras, numpy as np, tensorflow as tf
def state():
    return (random.getstate(), str(np.random.get_state()), keras.config.floatx(),
            keras.config.dtype_policy().name, keras.config.image_data_format(),
            keras.config.epsilon(), keras.config.is_interactive_logging_enabled(),
            tf.config.threading.get_intra_op_parallelism_threads(),
            tf.config.threading.get_inter_op_parallelism_threads(),
            tf.config.functions_run_eagerly(), tuple(warnings.filters),
            dict(os.environ), np.geterr())
random.seed(1); np.random.seed(2); tf.random.set_seed(3)
tf.random.uniform(()); keras.random.uniform(())
"""
        + USE_ALL
        + """
before = state()
use()
assert state() == before
# The next numbers of TensorFlow's and Keras's global streams are the same, too.
def drawn(between):
    keras.utils.clear_session()  # old versions of Keras go on with their stream
    keras.utils.set_random_seed(5)
    tf.random.uniform(()), keras.random.uniform(()), keras.layers.Dense(1).build((1, 1))
    between()
    layer = keras.layers.Dense(1)
    layer.build((1, 1))
    return (float(tf.random.uniform(())), float(keras.random.uniform(())),
            random.random(), np.random.random(), float(layer.kernel.numpy()[0, 0]))
assert drawn(lambda: None) == drawn(use)
"""
    )


@pytest.mark.parametrize(
    ("setting", "before", "read", "after"),
    [
        (None, "", "1", None),
        pytest.param("0", "", "0", "0", marks=pytest.mark.slow),
        pytest.param("1", "", "1", "1", marks=pytest.mark.slow),
        pytest.param(None, "import tensorflow", None, None, marks=pytest.mark.slow),
    ],
)
def test_onednn_is_on_unless_the_host_has_chosen(
    run_python, monkeypatch, setting, before, read, after
):
    """TensorFlow reads the variable when it is loaded."""
    variable = "TF_ENABLE_ONEDNN_OPTS"
    monkeypatch.delenv(variable, raising=False)
    printed = run_python(
        f"""
import os, sys
class Recorder:
    @staticmethod
    def find_spec(name, *_):
        if name == "tensorflow":
            print(os.environ.get({variable!r}))
sys.meta_path.insert(0, Recorder)
{before}
import skvae.network.backend
print(os.environ.get({variable!r}))
""",
        **({variable: setting} if setting else {}),
    )
    assert printed.split() == [str(read), str(after)]


def test_import_loads_neither_tensorflow_nor_matplotlib(run_python):
    printed = run_python(
        """
import sys
import skvae
print("tensorflow" in sys.modules, "keras" in sys.modules, "matplotlib" in sys.modules)
"""
    )
    assert printed.split() == ["False"] * 3


def test_import_takes_little_more_than_scikit_learns_base(run_python):
    """The added modules are those of skvae and a few of scikit-learn.

    scikit-learn's pipelines import its callbacks, and these rich, if it is there.
    """
    printed = run_python(
        """
import sys
import contextlib
import sklearn.base
with contextlib.suppress(ImportError):
    import sklearn.callback
before = set(sys.modules)
import skvae
added = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(added - set(sys.stdlib_module_names)))
"""
    )
    assert set(printed.split()) <= {"sklearn", "skvae"}


@pytest.mark.parametrize("backend", ["jax", "torch", "nonsense"])
def test_another_keras_backend_is_an_error_that_names_the_variable(run_python, backend):
    printed = run_python(
        """
import numpy as np
from skvae import ConvVAE
try:
    ConvVAE().fit(np.zeros((3, 4)))
except ImportError as error:
    print(error)
""",
        KERAS_BACKEND=backend,
    )
    assert "KERAS_BACKEND" in printed
    assert backend in printed


def test_a_keras_loaded_with_another_backend_is_an_error(run_python):
    """The backend may also come from Keras's own configuration file."""
    printed = run_python(
        """
import keras
keras.backend.backend = lambda: "jax"
import numpy as np
from skvae import ConvVAE
try:
    ConvVAE().fit(np.zeros((3, 4)))
except ImportError as error:
    print(error)
"""
    )
    assert "KERAS_BACKEND" in printed
