"""A fit that is cut short goes on from its checkpoint as if nothing had happened."""

import json

import joblib
import numpy as np
import pytest
from helpers import TINY, Hooks, assert_same_fit
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skvae import Checkpoint, ConvVAE

pytestmark = pytest.mark.callbacks


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vae.joblib"


class Cut(Hooks):
    """Ends a fit with an error after some epochs."""

    def __init__(self, n_epochs):
        self.n_epochs = n_epochs

    def on_fit_task_begin(self, estimator, context):
        if context.task_name == "epoch" and context.task_id == self.n_epochs:
            raise MemoryError


def cut_fit(vae, images, path, n_epochs, every=1):
    """Estimator in the file after an interrupted fit."""
    vae.set_callbacks(Checkpoint(path, every=every), Cut(n_epochs))
    with pytest.raises(MemoryError):
        vae.fit(images)
    return joblib.load(path)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"kl_warmup_epochs": 3},
        {"likelihood": "bernoulli", "optimizer": "rmsprop", "random_state": None},
        {"sampler": GaussianMixture(2), "random_state": np.random.RandomState(0)},
    ],
    ids=["plain", "warm-up", "unseeded", "sampler"],
)
def test_the_epochs_that_are_left_give_the_bits_of_a_whole_fit(images, path, extra):
    params = {**TINY, "epochs": 5, **extra}
    kept = cut_fit(ConvVAE(**params), images, path, 2)
    assert kept.n_iter_ == 2
    # Without a seed this is the one that the first part drew.
    expected = ConvVAE(**{**params, "random_state": kept._state_["seed"]}).fit(images)
    kept.set_params(warm_start=True, epochs=3).fit(images)
    assert_same_fit(kept, expected)
    np.testing.assert_array_equal(
        kept.sample(3, random_state=0), expected.sample(3, random_state=0)
    )


def test_early_stopping_goes_on_from_the_best_epoch(images, path):
    params = {**TINY, "early_stopping": True, "kl_warmup_epochs": 2}
    expected = ConvVAE(**{**params, "epochs": 3}).fit(images)
    kept = cut_fit(ConvVAE(**{**params, "epochs": 5}), images, path, 3)
    assert_same_fit(kept, expected)
    kept.set_params(warm_start=True, epochs=2).fit(images)
    expected.set_params(warm_start=True, epochs=2).fit(images)
    assert_same_fit(kept, expected)


@pytest.mark.parametrize(("every", "epoch"), [(1, 5), (2, 4), (3, 3), (5, 5)])
def test_every_few_epochs(images, path, every, epoch):
    vae = ConvVAE(**{**TINY, "epochs": 9})
    assert cut_fit(vae, images, path, 5, every).n_iter_ == epoch


class CountedMixture(GaussianMixture):
    n_fits = 0

    def fit(self, X, y=None):
        CountedMixture.n_fits += 1
        return super().fit(X, y)


def test_nothing_is_computed_for_epochs_that_are_not_due(images, path, monkeypatch):
    monkeypatch.setattr(CountedMixture, "n_fits", 0)
    vae = ConvVAE(**{**TINY, "epochs": 9}, sampler=CountedMixture(1))
    vae.set_callbacks(Checkpoint(path, every=4)).fit(images)
    # One is the check before training.
    assert CountedMixture.n_fits == 1 + 2 + 1


def test_large_images_have_samplers_too(path):
    """Few images describe the latents, but enough for a sampler."""
    images = np.random.default_rng(0).random((60, 64, 64))
    vae = ConvVAE(**{**TINY, "epochs": 1}, sampler=GaussianMixture(20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skvae.training.result._PART_PIXELS", 64 * 64)
        vae.set_callbacks(Checkpoint(path)).fit(images)
    assert joblib.load(path).sample(2).shape == (2, 64, 64)


def test_only_convvae_has_checkpoints(images, path):
    pipeline = make_pipeline(ConvVAE(**TINY)).set_callbacks(Checkpoint(path))
    with pytest.raises(TypeError, match="got Pipeline"):
        pipeline.fit(images)


def test_a_path_means_the_same_file_throughout(images, tmp_path, monkeypatch):
    """Wherever the process goes, and through a link."""
    for name in ("here", "there", "share"):
        (tmp_path / name).mkdir()
    (tmp_path / "here" / "latest").symlink_to(tmp_path / "share" / "vae.joblib")
    monkeypatch.chdir(tmp_path / "here")
    vae = ConvVAE(**TINY).set_callbacks(Checkpoint("latest"))
    monkeypatch.chdir(tmp_path / "there")
    vae.fit(images)
    assert joblib.load(tmp_path / "share" / "vae.joblib").n_iter_ == 3
    assert (tmp_path / "here" / "latest").is_symlink()


def test_the_end_of_a_fit_is_kept_too(images, path, monkeypatch):
    # Some images describe the latents until the fit has ended.
    monkeypatch.setattr("skvae.training.result._PART_PIXELS", 1)
    monkeypatch.setattr("skvae.training.result._MIN_RUN", 1)
    vae = ConvVAE(**TINY).set_callbacks(Checkpoint(path, every=2)).fit(images)
    assert_same_fit(joblib.load(path), vae)
    assert_same_fit(vae, ConvVAE(**TINY).fit(images))


def test_the_file_is_the_estimator_alone(images, path):
    """In a pipeline, too, and with what was set besides parameters."""
    vae = ConvVAE(**TINY).set_output(transform="pandas")
    vae.set_callbacks(Checkpoint(path))
    make_pipeline(FunctionTransformer(), vae).fit(images.reshape(70, 64))
    kept = joblib.load(path)
    vae.set_callbacks()
    assert vars(kept).keys() == vars(vae).keys()
    assert list(kept.transform(images.reshape(70, 64))) == ["convvae0", "convvae1"]


def test_an_earlier_fit_leaves_nothing_in_the_file(images, path):
    vae = ConvVAE(**TINY, sampler=GaussianMixture(2)).fit(images)
    vae.set_params(sampler=None, likelihood="bernoulli", epochs=5)
    kept = cut_fit(vae, images, path, 2)
    assert not hasattr(kept, "sampler_")
    assert not hasattr(kept, "noise_variance_")


def test_a_file_that_cannot_be_written_does_not_end_training(images, path, monkeypatch):
    dump = joblib.dump
    dumped = []

    def failing_dump(vae, file):
        dumped.append(vae.n_iter_)
        dump(vae, file)
        if vae.n_iter_ > 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("skvae.checkpoint.joblib.dump", failing_dump)
    vae = ConvVAE(**TINY).set_callbacks(Checkpoint(path))
    with pytest.warns(UserWarning, match="No space left.* is unchanged") as warned:
        vae.fit(images)
    messages = [str(each.message) for each in warned]
    # The last one when the fit ended.
    assert [n for n in (1, 2, 3) for m in messages if f"of epoch {n} " in m] == [
        2,
        3,
        3,
    ]
    assert dumped == [1, 2, 3, 3]
    assert_same_fit(vae, ConvVAE(**TINY).fit(images))
    assert joblib.load(path).n_iter_ == 1
    assert list(path.parent.iterdir()) == [path]


def test_a_place_that_cannot_hold_a_file_is_refused_before_training(images, tmp_path):
    for path in (tmp_path, tmp_path / "nowhere" / "vae.joblib"):
        vae = ConvVAE(**TINY).set_callbacks(Checkpoint(path))
        with pytest.raises(ValueError, match="in an existing folder, got"):
            vae.fit(images)
        assert not hasattr(vae, "weights_")


@pytest.mark.parametrize("every", [0, 1.5, "2"])
def test_every_is_a_positive_integer(path, every):
    with pytest.raises((TypeError, ValueError), match="every"):
        Checkpoint(path, every)


KILLED = """
import io, json, os, pickle, random, signal, sys, time, warnings
from pathlib import Path

import joblib
import numpy as np

# TensorFlow is imported once, but starts in the children alone.
import skvae.training.compiled
import skvae.checkpoint
from skvae import Checkpoint, ConvVAE

warnings.simplefilter("ignore")
PATH = Path("vae.joblib")
EPOCHS = 150
X = np.random.default_rng(0).random((70, 8, 8))
dump = joblib.dump


def new():
    return ConvVAE(2, filters=2, hidden_layers=2, batch_size=16, random_state=0)


def train(tell):
    '''Train for the epochs that are left, and tell what is written when.'''

    def slow_dump(vae, file):
        whole = io.BytesIO()
        dump(vae, whole)
        content = whole.getvalue()
        file.write(content[: len(content) // 2])
        file.flush()
        tell(f"writing {vae.n_iter_}")
        time.sleep(0.05)
        file.write(content[len(content) // 2 :])
        file.flush()

    class Tell(Checkpoint):
        def _write(self, vae):
            super()._write(vae)
            tell(f"written {vae.n_iter_}")

    skvae.checkpoint.joblib.dump = slow_dump
    vae = joblib.load(PATH).set_params(warm_start=True) if PATH.exists() else new()
    vae.set_params(epochs=EPOCHS - getattr(vae, "n_iter_", 0))
    vae.set_callbacks(Tell(PATH)).fit(X)


def killed(turn):
    '''The last epoch that was written, and whether one was being written.'''
    here, there = os.pipe()
    child = os.fork()
    if not child:
        os.close(here)
        train(lambda line: os.write(there, f"{line}\\n".encode()))
        os._exit(0)
    os.close(there)
    written, last = 0, ""
    with open(here) as lines:
        n_epochs = random.randrange(1, 4)
        for line in lines:
            what, epoch = last = line.split()
            if what == "written":
                written, n_epochs = int(epoch), n_epochs - 1
            # Every other one while it writes, the others at a random moment.
            if n_epochs == 0 and (turn % 2 or what == "writing"):
                time.sleep(random.random() * (0.1 if turn % 2 else 0.01))
                os.kill(child, signal.SIGKILL)
                break
        # What it had still said.
        for line in lines:
            what, epoch = last = line.split()
            if what == "written":
                written = int(epoch)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return written, last[0] == "writing"


random.seed(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
n_while_writing = 0
for turn in range(20):
    written, is_writing = killed(turn)
    n_while_writing += is_writing
    kept = joblib.load(PATH)  # whole
    # The file may be in its place while nobody has been told.
    assert written <= kept.n_iter_ <= written + 1, (written, kept.n_iter_)
n_parts = len(list(Path().glob("vae.joblib.*.part")))
train(lambda line: None)
vae, expected = joblib.load(PATH), new().set_params(epochs=EPOCHS).fit(X)
assert vae.history_ == expected.history_
for path, weight in expected.weights_.items():
    np.testing.assert_array_equal(vae.weights_[path], weight)
print(json.dumps([n_while_writing, n_parts, vae.n_iter_]))
"""


@pytest.mark.linux
@pytest.mark.slow
def test_a_killed_fit_loses_the_epochs_since_its_checkpoint_and_no_file(run_python):
    """Killed 20 times, and in the end as if it had never been."""
    n_while_writing, n_parts, n_epochs = json.loads(run_python(KILLED))
    assert n_while_writing >= 5
    assert n_parts >= 5
    assert n_epochs == 150
