"""Where examples in docstrings and pages write, and what needs a newer version."""

import sys

import pytest

from skvae.training.callbacks import HAS_CALLBACKS


@pytest.fixture(autouse=True)
def _examples_in_a_temporary_folder(request, tmp_path, monkeypatch):
    is_example = isinstance(request.node, pytest.DoctestItem)
    if is_example:
        monkeypatch.chdir(tmp_path)
    yield
    if is_example and "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def pytest_collection_modifyitems(config, items):
    """Leave out what this scikit-learn or this system does not have.

    scikit-learn has callbacks from 1.9 on.
    """
    left_out = [
        item
        for item in items
        if (not HAS_CALLBACKS and _needs_callbacks(item))
        or (sys.platform != "linux" and item.get_closest_marker("linux"))
    ]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _needs_callbacks(item):
    is_example = isinstance(item, pytest.DoctestItem)
    return item.get_closest_marker("callbacks") or (
        is_example and item.name.startswith(("skvae.checkpoint.", "callbacks.md"))
    )
