"""Output of `verbose`."""

import re

import pytest
from helpers import TINY

from skvae import ConvVAE
from skvae.training import loop as training
from skvae.training import report as progress


@pytest.fixture(autouse=True)
def _graph_calls_as_long_as_they_may_be(monkeypatch):
    """On however slow a machine."""
    monkeypatch.setattr(training, "_CALL_SECONDS", 1e9)


@pytest.fixture
def on_terminal(monkeypatch):
    """Tell that output goes to a terminal, of so many columns."""

    def on_terminal(n_columns=80):
        # Of the object that captures output: another one for each phase of a test.
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(n_columns))

    return on_terminal


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when it is told to."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_nothing_is_printed_unless_asked_for(images, capsys):
    ConvVAE(**TINY).fit(images)
    assert capsys.readouterr().out == ""


def test_a_line_an_epoch_has_what_history_has(images, capsys):
    vae = ConvVAE(**TINY, verbose=2, early_stopping=True).fit(images)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for i, line in enumerate(lines):
        assert line.startswith(f"[ConvVAE] epoch {i + 1}/3, ")
        for name in ("loss", "val_loss"):
            assert f", {name} {vae.history_[name][i]:.4g}" in line


def test_a_line_each_tenth_of_a_fit(images, capsys):
    ConvVAE(**{**TINY, "epochs": 20}, verbose=1).fit(images)
    lines = capsys.readouterr().out.splitlines()
    numbers = [re.match(r"\[ConvVAE\] epoch (\d+)/20, ", line)[1] for line in lines]
    assert numbers == [str(n) for n in range(2, 21, 2)]


def test_lines_within_a_long_epoch(images, capsys, monkeypatch):
    """One graph call a batch of 16 of 70 images."""
    monkeypatch.setattr(training, "_CALL_PIXELS", 16 * 64)
    vae = ConvVAE(**{**TINY, "epochs": 1}, verbose=1).fit(images)
    lines = capsys.readouterr().out.splitlines()
    parts = [re.search(r"\((\d+)%\)", line) for line in lines]
    assert [part[1] for part in parts[:-1]] == ["22", "45", "68", "91"]
    assert lines[-1].startswith("[ConvVAE] epoch 1/1, loss ")
    assert lines[-1].endswith(f"loss {vae.history_['loss'][0]:.4g}")


def test_the_last_line_is_printed_when_training_ends_early(images, capsys):
    params = {**TINY, "epochs": 100, "n_iter_no_change": 1, "tol": 1e9, "batch_size": 1}
    vae = ConvVAE(**params, early_stopping=True, verbose=1).fit(images)
    lines = capsys.readouterr().out.splitlines()
    assert vae.n_iter_ == 2
    loss, val_loss = (vae.history_[name][-1] for name in ("loss", "val_loss"))
    # And no time is left.
    assert lines == [f"[ConvVAE] epoch 2/100, loss {loss:.4g}, val_loss {val_loss:.4g}"]


def test_epochs_are_counted_on_with_warm_start(images, capsys, on_terminal):
    on_terminal()
    vae = ConvVAE(**TINY, warm_start=True).fit(images).set_params(verbose=1)
    vae.fit(images)
    assert re.findall(r"epoch \d/\d", capsys.readouterr().out) == [
        f"epoch {n}/6" for n in (4, 5, 6, 6)
    ]


def test_a_bar_on_a_terminal(images, capsys, on_terminal):
    on_terminal()
    vae = ConvVAE(**TINY, verbose=1).fit(images)
    out = capsys.readouterr().out
    # The last is drawn once more when no time is left.
    first, second, _, third = out.split("\r")[1:]
    assert first.startswith("[########..................] epoch 1/3, loss ")
    assert second.startswith("[#################.........] epoch 2/3, ")
    loss = vae.history_["loss"][2]
    assert third == f"[{'#' * 26}] epoch 3/3, loss {loss:.4g}\033[K\n"


@pytest.mark.parametrize("n_columns", [10, 40, 200])
def test_a_bar_is_no_wider_than_the_terminal(images, capsys, on_terminal, n_columns):
    on_terminal(n_columns)
    ConvVAE(**TINY, early_stopping=True, verbose=1).fit(images)
    bars = capsys.readouterr().out.replace("\033[K", "").strip().split("\r")
    assert len(bars) == 4
    assert all(len(bar) < n_columns for bar in bars)
    assert all(bar.startswith("[") for bar in bars)


def test_the_bar_moves_within_an_epoch(images, capsys, on_terminal, monkeypatch):
    on_terminal()
    monkeypatch.setattr(training, "_CALL_PIXELS", 16 * 64)
    ConvVAE(**{**TINY, "epochs": 2}, verbose=1).fit(images)
    bars = capsys.readouterr().out.split("\r")[1:-1]
    filled = [bar.count("#") for bar in bars]
    assert filled == [
        int(26 * n / 140) for n in (16, 32, 48, 64, 70, 86, 102, 118, 134, 140)
    ]
    assert " epoch 2/2 (22%), " in bars[5]


def test_time_left_is_that_of_the_rate_after_the_first_call(capsys, clock):
    with progress.Report(2, 4, 0) as report:
        clock.now += 60  # the graph is traced
        report.update(1, {"loss": 1.0})
        for n_epochs, seconds in ((2, 10), (3, 5000), (4, 1)):
            clock.now += seconds
            report.update(n_epochs, {"loss": 1.0})
    assert capsys.readouterr().out.splitlines() == [
        "[ConvVAE] epoch 1/4, loss 1",
        "[ConvVAE] epoch 2/4, 20 s left, loss 1",
        "[ConvVAE] epoch 3/4, 42 min left, loss 1",
        "[ConvVAE] epoch 4/4, loss 1",
    ]


def test_an_error_ends_the_bar(images, capsys, on_terminal, monkeypatch):
    """Later output starts on a new line."""
    on_terminal()
    monkeypatch.setattr(training, "_CALL_PIXELS", 16 * 64)
    vae = ConvVAE(**TINY, verbose=1, learning_rate=1e30, optimizer="sgd")
    with pytest.raises(ValueError, match="diverged"):
        vae.fit(images)
    assert re.search(r"epoch 1/3.*\n\Z", capsys.readouterr().out)
