"""The pages of the documentation are true: code, tables, links and names."""

import ast
import inspect
import re
import runpy

import pytest
from pages import PAGES, ROOT, scripts

import skvae
from skvae.data.pictures import picture_paths, read_pictures
from skvae.exceptions import PosteriorCollapseWarning

README = ROOT / "README.md"


def test_code_on_pages_is_an_example_or_is_run_by_a_test():
    """By test_dask, by test_distribution and below."""
    numbers = {page: len(scripts(page)) for page in PAGES}
    assert {page: number for page, number in numbers.items() if number} == {
        "docs/user_guide/clusters.md": 3,
        "docs/user_guide/speed.md": 1,
    }


@pytest.mark.slow
def test_threads_are_configured_as_the_guide_says(run_python):
    (script,) = scripts("docs/user_guide/speed.md")
    printed = run_python(
        f"{script}\n"
        "import tensorflow as tf\n"
        "print(tf.config.threading.get_intra_op_parallelism_threads())\n"
    )
    assert printed == "1\n"


def test_tables_are_those_of_the_committed_results():
    module = runpy.run_path(ROOT / "docs" / "tables.py")
    shown = set()
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        shown |= set(re.findall("<!-- table: (.*) -->", text))
        assert module["with_tables"](text) == text, page
    assert shown == set(module["TABLES"])


def test_pages_show_the_same_result_of_the_main_job():
    block = re.compile(r"```text\n(on held-out.*?)```\n.*?(changes.*?)\.\n", re.S)
    (readme,), (page,) = (
        block.findall((ROOT / name).read_text("utf-8"))
        for name in ("README.md", "docs/getting_started.md")
    )
    assert readme[0] == page[0]
    assert re.findall(r"[\d.]+", readme[1]) == re.findall(r"[\d.]+", page[1])


def test_readme_is_short():
    assert len(README.read_text("utf-8").splitlines()) <= 200


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_to_files_lead_somewhere(page):
    """Sphinx sees to the other pages."""
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, heading = target.partition("#")
        assert (ROOT / path).exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", (ROOT / path).read_text("utf-8"), re.M)
            assert heading in [title.lower().replace(" ", "-") for title in titles]


def test_the_reference_has_every_public_name_with_an_example():
    reference = (ROOT / "docs" / "api.md").read_text("utf-8")
    names = [name for name in skvae.__all__ if name != "__version__"]
    listed = re.findall(r"^   (\w[\w.]*)$", reference, re.M)
    others = {
        "data.pictures.picture_paths": picture_paths,
        "data.pictures.read_pictures": read_pictures,
        "exceptions.PosteriorCollapseWarning": PosteriorCollapseWarning,
    }
    assert sorted(listed) == sorted([*names, *others])
    for public in [*(getattr(skvae, name) for name in names), *others.values()]:
        assert ">>> " in inspect.getdoc(public), public


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "docs" / "examples").glob("plot_*.py")),
    ids=lambda path: path.stem,
)
def test_examples_of_the_gallery_are_short_and_have_a_picture(path):
    text = path.read_text("utf-8")
    assert 30 <= len(text.splitlines()) <= 80
    title = ast.get_docstring(ast.parse(text)).splitlines()
    assert title[1] == "=" * len(title[0])
    assert re.search(r"Display\.from_estimator\(|plt\.subplots\(", text)
