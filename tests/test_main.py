"""The command line: its own output alone, its files, its errors."""

import subprocess
import sys
import warnings
from typing import NamedTuple

import joblib
import numpy as np
import pytest
from test_pictures import write_pictures

from skvae.__main__ import main

QUICK = ["--epochs", "2", "--filters", "4", "--latent-dim", "3"]


class Completed(NamedTuple):
    stdout: str
    stderr: str


@pytest.fixture
def skvae_command(tmp_path, capsys, monkeypatch):
    """Run the command in this process, where TensorFlow has started."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            main([str(argument) for argument in arguments])
        return Completed(*capsys.readouterr())

    return run


def warned(completed):
    """Lines on stderr, but for what two epochs deserve."""
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


def test_digits_are_fitted_compared_drawn_and_saved(tmp_path):
    completed = run_command(tmp_path, *QUICK)
    assert completed.returncode == 0
    assert warned(completed) == []
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
def test_ones_own_images(skvae_command, tmp_path, shape, dtype):
    X = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    np.save(tmp_path / "own.npy", X)
    np.savez(tmp_path / "own.npz", X=X, y=np.arange(40) % 2, other=np.zeros(3))
    for name, has_accuracy in [("own.npy", False), ("own.npz", True)]:
        completed = skvae_command(
            name, "--model", "m.joblib", "--picture", "p.png", *QUICK
        )
        assert warned(completed) == []
        assert ("accuracy" in completed.stdout) == has_accuracy
        vae = joblib.load(tmp_path / "m.joblib")
        assert vae.sample().shape == (1, *shape[1:])
        assert (tmp_path / "p.png").stat().st_size > 0


def test_rows_of_colour_images(skvae_command, tmp_path):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).random((40, 192)))
    completed = skvae_command("rows.npy", *QUICK)
    (line,) = warned(completed)
    assert line.startswith("skvae: X has 192 columns")
    completed = skvae_command("rows.npy", "--input-shape", 8, 8, 3, *QUICK)
    assert warned(completed) == []
    assert joblib.load(tmp_path / "skvae.joblib").input_shape_ == (8, 8, 3)


def test_a_folder_of_pictures(skvae_command, tmp_path):
    folder = tmp_path / "pictures"
    write_pictures(folder)
    (folder / "broken.png").write_bytes(b"no picture")
    completed = skvae_command(folder, "--size", 9, 12, *QUICK)
    (line,) = warned(completed)
    assert line.startswith(f"skvae: left out {folder / 'broken.png'}: ")
    assert "pictures, colour, 9 x 12 pixels, 15 images" in completed.stdout
    assert joblib.load(tmp_path / "skvae.joblib").input_shape_ == (9, 12, 3)
    completed = skvae_command(folder, "--grey", *QUICK)
    assert joblib.load(tmp_path / "skvae.joblib").input_shape_ == (64, 64, 1)


def test_mistakes_are_told(skvae_command, tmp_path):
    np.save(tmp_path / "nan.npy", np.full((9, 4), np.nan))
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "empty").mkdir()
    for arguments, message in [
        (["missing.npy"], "missing.npy"),
        (["nan.npy"], "NaN"),
        (["two.npz"], "name the one of the images X"),
        (["text.npy"], "text.npy"),
        (["empty"], "empty has no PNG or JPEG file"),
        (["--latent-dim", "0"], "latent_dim"),
        (["--picture", "no/such/folder.png", *QUICK], "no/such"),
        (["--picture", "p.xyz", *QUICK], "p.xyz"),
        (["--random-state", "-1", *QUICK], "random_state"),
    ]:
        with pytest.raises(SystemExit) as exit_info:
            skvae_command(*arguments)
        assert exit_info.value.code.startswith("skvae: ")
        assert message in exit_info.value.code


def test_a_mistake_ends_the_command(tmp_path):
    completed = run_command(tmp_path, "missing.npy")
    assert completed.returncode == 1
    (line,) = completed.stderr.splitlines()
    assert line.startswith("skvae: ")
    assert "missing.npy" in line


@pytest.mark.parametrize(
    ("n_images", "has_density"), [(4, False), (9, False), (30, True)]
)
def test_pca_of_few_images_has_no_density(
    skvae_command, tmp_path, n_images, has_density
):
    """As many components as images, or one fewer, leave no variance over."""
    np.save(tmp_path / "X.npy", np.random.default_rng(0).random((n_images, 6, 6)))
    arguments = ["--epochs", "1", "--filters", "2", "--latent-dim", "5"]
    completed = skvae_command("X.npy", *arguments)
    (line,) = (x for x in completed.stdout.splitlines() if "log-likelihood" in x)
    assert (line.split()[-1] != "-") == has_density
    assert warned(completed) == []
