"""The tour of the gallery as a notebook, as sphinx-gallery writes it."""

import json
import shutil

import pytest
from pages import ROOT

from skvae.documentation import CLASS_ADDRESS

pytestmark = pytest.mark.slow

CODE = """
import json
import nbclient
import nbformat
from sphinx_gallery.notebook import python_to_jupyter_cli

python_to_jupyter_cli(["plot_a_tour.py"])
notebook = nbformat.read("plot_a_tour.ipynb", 4)
nbclient.NotebookClient(notebook, timeout=300).execute()
cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
print(json.dumps([output for cell in cells for output in cell.outputs]))
"""


def test_the_tour_runs_as_a_notebook(run_python, tmp_path):
    shutil.copy(ROOT / "docs" / "examples" / "plot_a_tour.py", tmp_path)
    outputs = json.loads(run_python(CODE).splitlines()[-1])
    shown = [output["data"] for output in outputs if "data" in output]
    assert sum("image/png" in data for data in shown) == 5
    # The fitted estimator, with a link to its page.
    views = [data["text/html"] for data in shown if "text/html" in data]
    assert any(CLASS_ADDRESS.format(estimator_name="ConvVAE") in v for v in views)
    printed = "".join(each["text"] for each in outputs if each.get("name") == "stdout")
    assert "(450, 8) (450, 8, 8)" in printed
