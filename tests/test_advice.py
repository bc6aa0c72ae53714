"""Parameters to try first: what `fit` prints, and what the command takes."""

import joblib
import numpy as np
import pytest
from helpers import TINY

from skvae import ConvVAE
from skvae.__main__ import main
from skvae.advice import first_parameters

ADVISED = {"latent_dim": 8, "filters": 32, "hidden_layers": 2, "batch_size": 16}
# TINY sets the first four of the advised parameters, and no other.
UNSET = {k: v for k, v in TINY.items() if k not in ADVISED}


def advice_in(capsys):
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if "try" in line]


@pytest.mark.parametrize(
    ("shape", "n_images", "expected"),
    [
        ((8, 8, 1), 1347, (8, 32, 2, 64)),
        ((25, 25, 1), 75, (16, 16, 3, 16)),
        ((28, 28, 1), 60_000, (16, 16, 3, 64)),
        ((32, 32, 3), 400, (16, 16, 3, 64)),
        ((48, 64, 3), 299, (32, 16, 4, 16)),
        ((64, 64, 1), 5000, (32, 16, 4, 64)),
        ((1, 10, 1), 5000, (8, 32, 2, 64)),
    ],
)
def test_parameters_suit_the_size_and_number_of_images(shape, n_images, expected):
    parameters = first_parameters(shape, n_images)
    assert parameters.pop("early_stopping") is True
    assert tuple(parameters.values()) == expected


@pytest.mark.parametrize("verbose", [1, 2])
def test_fit_prints_first_what_it_would_try(images, capsys, verbose):
    X = np.concatenate([images] * 5)
    ConvVAE(**UNSET, verbose=verbose).fit(X)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "[ConvVAE] For 350 images of 8 x 8 pixels, try latent_dim=8, filters=32, "
        "hidden_layers=2, early_stopping=True."
    )
    assert all(line.startswith("[ConvVAE] epoch") for line in lines[1:])


def test_nothing_is_advised_to_who_chose_one_of_the_parameters(images, capsys):
    ConvVAE(3, **UNSET, verbose=1).fit(images)
    assert advice_in(capsys) == []


def test_nothing_is_advised_where_nothing_is_printed(images, capsys):
    ConvVAE(**UNSET).fit(images)
    assert capsys.readouterr().out == ""


def test_nothing_is_advised_if_all_is_as_advised(images, capsys):
    ConvVAE(**UNSET, **ADVISED, early_stopping=True, verbose=1).fit(images)
    assert advice_in(capsys) == []


def test_nothing_is_advised_when_training_continues(images, capsys):
    vae = ConvVAE(**UNSET, warm_start=True, verbose=1)
    vae.fit(images)
    assert len(advice_in(capsys)) == 1
    vae.fit(images)
    ConvVAE(**UNSET, verbose=1).partial_fit(images)
    assert advice_in(capsys) == []


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((40, 8, 8), [], (8, 32, 2, 16)),
        ((40, 784), [], (16, 16, 3, 16)),
        ((40, 640), ["--input-shape", "40", "16"], (32, 16, 4, 16)),
        ((1400, 6, 6), ["--latent-dim", "3"], (3, 32, 2, 64)),
        ((420, 6, 6), ["--filters", "4", "--batch-size", "50"], (8, 4, 2, 50)),
        ((40, 6, 6), ["--outliers", "0.2"], (8, 32, 2, 16)),
        ((350, 6, 6), ["--outliers", "0.1"], (8, 32, 2, 64)),
    ],
)
def test_the_command_takes_what_fit_would_try(
    tmp_path, monkeypatch, capsys, shape, options, expected
):
    monkeypatch.chdir(tmp_path)
    np.save("X.npy", np.random.default_rng(0).random(shape))
    main(["X.npy", "--epochs", "1", *options])
    fitted = joblib.load("skvae.joblib")
    vae = getattr(fitted, "estimator_", fitted)
    assert vae.early_stopping
    assert (
        vae.latent_dim,
        vae.filters,
        vae.hidden_layers,
        vae.batch_size,
    ) == expected
    assert advice_in(capsys) == []
