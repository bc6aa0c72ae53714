"""Searches and transforms on a Dask cluster: what one process gives, to the bit."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from pages import scripts

pytestmark = pytest.mark.slow

# skvae is to have nothing to warn of, but for what few epochs deserve.
WARNINGS = {"PYTHONWARNINGS": "error::UserWarning,ignore:The posterior has collapsed"}

CLUSTER = """
import sys
from dask.distributed import LocalCluster
with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""

# As many threads as skvae gives TensorFlow in each worker.
ONE_THREAD = """
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
"""

# After the search that the user guide shows.
SEARCHED = """
def threads():
    return (tf.config.threading.get_intra_op_parallelism_threads(),
            tf.config.threading.get_inter_op_parallelism_threads())
of_workers = list(client.run(threads).values())
"""

# After the transform that it shows.
TRANSFORMED = """
import json
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv
from sklearn.model_selection import HalvingGridSearchCV

def scores(search):
    return {name: values.tolist() for name, values in search.cv_results_.items()
            if name.startswith("split")}

def features_of(X):
    blocks = da.from_array(X, chunks=(40, *X.shape[1:]))
    vae = clone(best).fit(X)
    features = da.map_blocks(
        vae.transform,
        blocks,
        chunks=(blocks.chunks[0], (best.latent_dim,)),
        meta=np.empty((0, 0), np.float32),
        **({"drop_axis": (2, 3)} if X.ndim == 4 else {}),
    )
    return features.compute().tolist(), vae.transform(X).tolist()

halving = HalvingGridSearchCV(
    clone(vae).set_params(latent_dim=2), {"beta": [0.5, 1, 2, 4]}, cv=2, factor=2,
    resource="epochs", min_resources=1, max_resources=4, return_train_score=False,
    random_state=0,
)
with joblib.parallel_config(backend="dask"):
    halving.fit(images[:150])
alone = [clone(search).fit(images), clone(halving).fit(images[:150])]
print(json.dumps({
    "threads": of_workers,
    "grid": [scores(search), scores(alone[0])],
    "halving": [scores(halving), scores(alone[1])],
    "chunks": features.chunks,
    "dtypes": [str(features.dtype), str(features.compute().dtype)],
    "grey": [features.compute().tolist(), best.transform(images).tolist()],
    "rows": features_of(images[:150].reshape(150, 64)),
    "channels": features_of(images[:150, ..., np.newaxis]),
}))
client.close()
"""


@pytest.fixture(scope="module")
def address():
    """Of the scheduler of a cluster of two worker processes, which ends in time."""
    # It would tell the workers how many threads to have.
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env={**environment, **WARNINGS},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process.stdout.readline().strip()
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0


@pytest.fixture(scope="module")
def results(address):
    """Results of the code of the guide and some more, on the cluster and alone."""
    search, transform, _ = scripts("docs/user_guide/clusters.md")
    replacements = {
        '"tcp://127.0.0.1:8786"': repr(address),
        "load_digits().images": "load_digits().images[:600]",
        "epochs=20": "epochs=2",
    }
    for printed, quick in replacements.items():
        assert search.count(printed) == 1
        search = search.replace(printed, quick)
    code = ONE_THREAD + search + SEARCHED + transform + TRANSFORMED
    completed = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **WARNINGS},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout.splitlines()[-1])


def test_both_workers_search_on_the_cores_that_are_their_own(results):
    assert results["threads"] == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("search", "n_splits", "n_fits"),
    [("grid", 3, 2), ("halving", 2, 4 + 2 + 1)],
)
def test_searches_give_the_scores_of_one_process(results, search, n_splits, n_fits):
    on_cluster, alone = results[search]
    values = np.array(list(alone.values()))
    assert values.shape == (n_splits, n_fits)
    assert np.isfinite(values).all()
    assert on_cluster == alone


@pytest.mark.parametrize("layout", ["rows", "grey", "channels"])
def test_transform_over_a_cluster_equals_transform(results, layout):
    on_cluster, alone = results[layout]
    np.testing.assert_allclose(on_cluster, alone, rtol=1e-5, atol=1e-6)


def test_blocks_of_features_say_what_they_are(results):
    assert results["chunks"][0] == [500, 100]
    assert results["chunks"][1] == [len(results["grey"][1][0])]
    assert results["dtypes"] == ["float32", "float32"]
