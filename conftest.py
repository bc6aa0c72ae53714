"""Examples in docstrings and README.md write their files to a temporary folder."""

import pytest


@pytest.fixture(autouse=True)
def _examples_in_a_temporary_folder(request, tmp_path, monkeypatch):
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(tmp_path)
