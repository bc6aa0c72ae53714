"""TrainingDisplay: lines, the best epoch and the axes."""

import numpy as np
import pytest
from helpers import TINY
from scipy.stats import norm

from skvae import ConvVAE, TrainingDisplay


def test_lines_are_the_history(images):
    vae = ConvVAE(**TINY, early_stopping=True).fit(images)
    display = TrainingDisplay.from_estimator(vae)
    assert display.lines_.keys() == vae.history_.keys()
    for name, line in display.lines_.items():
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
        np.testing.assert_array_equal(line.get_ydata(), vae.history_[name])
        assert line.axes is display.axes_[int(name == "kl")]
    assert display.best_epoch == np.argmin(vae.history_["val_loss"]) + 1


def test_best_epoch_has_the_lowest_validation_loss(images):
    vae = ConvVAE(**TINY, warm_start=True).fit(images)
    assert TrainingDisplay.from_estimator(vae).best_epoch is None
    vae.set_params(early_stopping=True).fit(images)
    vae.history_["val_loss"] = [np.nan] * 3 + [2.0, 1.0, 3.0]
    display = TrainingDisplay.from_estimator(vae)
    assert display.best_epoch == 5
    assert display.axes_[1].get_xlabel() == "epoch (best: 5)"


def test_best_epoch_is_after_the_warm_up(images):
    params = {**TINY, "early_stopping": True}
    vae = ConvVAE(**params, kl_warmup_epochs=2).fit(images)
    vae.history_["val_loss"] = [2.0, 1.0, 3.0]
    assert TrainingDisplay.from_estimator(vae).best_epoch == 3
    vae = ConvVAE(**params, kl_warmup_epochs=3).fit(images)
    assert TrainingDisplay.from_estimator(vae).best_epoch is None


def test_validation_loss_of_mse_is_comparable_with_the_loss(images):
    """A sum of squared errors is a Gaussian with variance 1/2, without its constant."""
    params = {"likelihood": "mse", "early_stopping": True}
    vae = ConvVAE(**TINY, **params).fit(images * 255)
    low, high = vae.value_range_
    at_mean = norm.logpdf(0, scale=np.sqrt(0.5) * (high - low))
    expected = vae.history_["val_loss"] + 64 * at_mean
    for likelihood in ("mse", "gaussian", "bernoulli"):
        # The parameter may change after the fit.
        vae.set_params(likelihood=likelihood)
        line = TrainingDisplay.from_estimator(vae).lines_["val_loss"]
        np.testing.assert_allclose(line.get_ydata(), expected)


@pytest.mark.parametrize(
    "parameters", [{}, {"noise_type": "diag"}, {"likelihood": "bernoulli"}]
)
def test_validation_loss_of_other_likelihoods_is_not_changed(images, parameters):
    vae = ConvVAE(**TINY, **parameters, early_stopping=True).fit(images)
    vae.set_params(likelihood="mse")
    line = TrainingDisplay.from_estimator(vae).lines_["val_loss"]
    np.testing.assert_array_equal(line.get_ydata(), vae.history_["val_loss"])


def test_single_epoch_is_plotted_as_a_marker_with_a_tick(images):
    vae = ConvVAE(**{**TINY, "epochs": 1}).fit(images)
    display = TrainingDisplay.from_estimator(vae)
    display.figure_.canvas.draw()
    lower = display.axes_[1]
    left, right = lower.get_xlim()
    assert [tick for tick in lower.get_xticks() if left < tick < right] == [1]
    assert display.lines_["loss"].get_marker() == "."


def test_two_displays_share_axes(fitted):
    first = TrainingDisplay.from_estimator(fitted)
    second = TrainingDisplay.from_estimator(fitted, ax=first.axes_)
    assert list(second.axes_) == list(first.axes_)
    assert len(first.axes_[1].lines) == 2


def test_invalid_axes_raise(fitted):
    display = TrainingDisplay.from_estimator(fitted)
    with pytest.raises(ValueError, match=r"ax=display\.axes_"):
        TrainingDisplay.from_estimator(fitted, ax=display.bounding_ax_)
    three = [*display.axes_, display.bounding_ax_]
    with pytest.raises(ValueError, match="one or two matplotlib Axes, got 3"):
        TrainingDisplay.from_estimator(fitted, ax=three)


def test_line_kwargs_are_passed_to_plot(fitted):
    display = TrainingDisplay.from_estimator(fitted, line_kwargs={"linewidth": 7})
    assert {line.get_linewidth() for line in display.lines_.values()} == {7}
