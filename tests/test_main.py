"""Command line: output, files and errors."""

import signal
import subprocess
import sys
import warnings
from typing import NamedTuple

import joblib
import numpy as np
import pytest
from pictures import write_pictures

from skvae.__main__ import main
from skvae.data.pictures import picture_paths, read_pictures

QUICK = ["--epochs", "2", "--filters", "4", "--latent-dim", "3"]


class Completed(NamedTuple):
    stdout: str
    stderr: str


@pytest.fixture
def skvae_command(tmp_path, capsys, monkeypatch):
    """Run the command in this process, to save the start of TensorFlow."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            main([str(argument) for argument in arguments])
        return Completed(*capsys.readouterr())

    return run


def warnings_of(completed):
    """Lines on stderr, without the warning of a collapsed posterior."""
    lines = completed.stderr.splitlines()
    return [x for x in lines if not x.startswith("skvae: The posterior has collapsed")]


def run_command(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "skvae", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_digits(tmp_path):
    completed = run_command(tmp_path, *QUICK)
    assert completed.returncode == 0
    assert warnings_of(completed) == []
    lines = completed.stdout.splitlines()
    assert "1347 images to train on, 450 held out" in lines[0]
    n_progress = sum(line.startswith("[ConvVAE] epoch ") for line in lines)
    assert n_progress >= 2
    assert [line[:10] for line in lines[1 + n_progress :]] == [
        "on held-ou",
        "log-likeli",
        "reconstruc",
        "accuracy o",
        "picture  s",
        "model    s",
    ]
    assert (tmp_path / "skvae.png").read_bytes().startswith(b"\x89PNG")
    assert joblib.load(tmp_path / "skvae.joblib").latent_dim == 3


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((40, 7, 5, 3), "uint8"), ((40, 9), "float64"), ((40, 10), "int32")],
)
def test_files_of_images(skvae_command, tmp_path, shape, dtype):
    X = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    np.save(tmp_path / "own.npy", X)
    np.savez(tmp_path / "own.npz", X=X, y=np.arange(40) % 2, other=np.zeros(3))
    for name, has_accuracy in [("own.npy", False), ("own.npz", True)]:
        completed = skvae_command(
            name, "--model", "m.joblib", "--picture", "p.png", *QUICK
        )
        assert warnings_of(completed) == []
        assert ("accuracy" in completed.stdout) == has_accuracy
        vae = joblib.load(tmp_path / "m.joblib")
        assert vae.sample().shape == (1, *shape[1:])
        assert (tmp_path / "p.png").stat().st_size > 0


def test_rows_of_colour_images(skvae_command, tmp_path):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).random((40, 192)))
    completed = skvae_command("rows.npy", *QUICK)
    (line,) = warnings_of(completed)
    assert line.startswith("skvae: X has 192 columns")
    completed = skvae_command("rows.npy", "--input-shape", 8, 8, 3, *QUICK)
    assert warnings_of(completed) == []
    assert joblib.load(tmp_path / "skvae.joblib").input_shape_ == (8, 8, 3)


def test_folder_of_pictures(skvae_command, tmp_path):
    folder = tmp_path / "pictures"
    write_pictures(folder)
    (folder / "broken.png").write_bytes(b"no picture")
    completed = skvae_command(folder, "--size", 9, 12, *QUICK)
    (line,) = warnings_of(completed)
    assert line.startswith(f"skvae: skipped {folder / 'broken.png'}: ")
    assert "pictures, colour, 9 x 12 pixels, 15 images" in completed.stdout
    assert joblib.load(tmp_path / "skvae.joblib").input_shape_ == (9, 12, 3)
    completed = skvae_command(folder, "--grey", *QUICK)
    assert joblib.load(tmp_path / "skvae.joblib").input_shape_ == (64, 64, 1)


def test_outliers_of_a_file_are_named(skvae_command, tmp_path):
    """One image of 40 is turned, the others differ by noise."""
    X = np.tile(np.linspace(0, 1, 8), (40, 8, 1))
    X[27] = X[27].T
    X += np.random.default_rng(0).normal(0, 0.05, X.shape)
    np.savez(tmp_path / "own.npz", X=X)
    completed = skvae_command("own.npz", "--outliers", 0.2, *QUICK, "--epochs", 30)
    assert warnings_of(completed) == []
    lines = completed.stdout.splitlines()
    assert lines[0].endswith("own.npz, 40 images")
    first = next(i for i, line in enumerate(lines) if line.startswith("oddest"))
    named = [line.split() for line in lines[first + 1 : first + 13]]
    assert named[0][:2] == ["row", "27"]
    scores = [float(line[2]) for line in named]
    assert scores == sorted(scores)
    detector = joblib.load(tmp_path / "skvae.joblib")
    assert detector.contamination == 0.2
    n_found = (detector.predict(X) == -1).sum()
    assert lines[first + 13].endswith(f": {n_found} images")
    above = [float(line[3]) for line in named]
    expected = np.sort(detector.decision_function(X))[:12]
    np.testing.assert_allclose(above, expected, atol=0.005)
    assert (tmp_path / "skvae.png").read_bytes().startswith(b"\x89PNG")
    assert "ConvVAEOutlierDetector" in lines[-1]


def test_outliers_of_a_folder_are_named_by_their_files(skvae_command, tmp_path):
    folder = tmp_path / "pictures"
    write_pictures(folder)
    (folder / "03.png").write_bytes(b"no picture")
    arguments = ["--grey", "--size", 8, 9, "--outliers", 0.05, *QUICK]
    lines = skvae_command(folder, *arguments).stdout.splitlines()
    files = [line.split()[0] for line in lines if line.startswith(str(folder))]
    assert len(set(files)) == 12
    images, _ = read_pictures(folder, (8, 9), is_grey=True)
    left = [path for path in picture_paths(folder) if path.name != "03.png"]
    detector = joblib.load(tmp_path / "skvae.joblib")
    expected = np.argsort(detector.score_samples(images))[:12]
    assert files == [str(left[i]) for i in expected]


@pytest.mark.parametrize("part", ["0", "0.6", "many"])
def test_an_invalid_part_of_outliers_is_refused(skvae_command, capsys, part):
    with pytest.raises(SystemExit):
        skvae_command("--outliers", part)
    message = f"'{part}' is not a number above 0 and at most 0.5"
    assert message in capsys.readouterr().err


def test_invalid_arguments_exit_with_a_message(skvae_command, tmp_path):
    np.save(tmp_path / "nan.npy", np.full((9, 4), np.nan))
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "two.npy", np.zeros((2, 8, 8)))
    np.save(tmp_path / "number.npy", np.zeros(()))
    (tmp_path / "empty").mkdir()
    for arguments, message in [
        (["missing.npy"], "missing.npy"),
        (["nan.npy"], "NaN"),
        (["two.npz"], "the images must be named X"),
        (["text.npy"], "text.npy"),
        (["empty"], "empty has no picture"),
        (["two.npy"], "at least 3 images are needed"),
        (["number.npy"], "at least 3 images are needed"),
        (["--latent-dim", "0"], "latent_dim"),
        (["--picture", "no/such/folder.png", *QUICK], "no/such"),
        (["--picture", "p.xyz", *QUICK], "p.xyz"),
        (["--random-state", "-1", *QUICK], "random_state"),
    ]:
        with pytest.raises(SystemExit) as exit_info:
            skvae_command(*arguments)
        assert exit_info.value.code.startswith("skvae: ")
        assert message in exit_info.value.code


def test_invalid_arguments_set_the_exit_status(tmp_path):
    completed = run_command(tmp_path, "missing.npy")
    assert completed.returncode == 1
    (line,) = completed.stderr.splitlines()
    assert line.startswith("skvae: ")
    assert "missing.npy" in line


@pytest.mark.linux
def test_ctrl_c_saves_what_was_trained(tmp_path):
    # Ctrl-C is ignored where the tests run in the background of a shell.
    code = """
import signal
from skvae.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main([])  # a line every 10 of 100 epochs
"""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if "epoch" in line:
            process.send_signal(signal.SIGINT)
            break
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Training was interrupted after" in stderr
    assert "Traceback" not in stderr
    assert joblib.load(tmp_path / "skvae.joblib").n_iter_ >= 1


@pytest.mark.parametrize(
    ("n_images", "has_density"), [(4, False), (9, False), (30, True)]
)
def test_pca_likelihood_needs_residual_variance(
    skvae_command, tmp_path, n_images, has_density
):
    """The components explain all variance if there are about as few images."""
    np.save(tmp_path / "X.npy", np.random.default_rng(0).random((n_images, 6, 6)))
    arguments = ["--epochs", "1", "--filters", "2", "--latent-dim", "5"]
    completed = skvae_command("X.npy", *arguments)
    (line,) = (x for x in completed.stdout.splitlines() if "log-likelihood" in x)
    assert (line.split()[-1] != "-") == has_density
    assert warnings_of(completed) == []
