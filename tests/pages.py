"""Pages of the documentation, and the code on them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "user_guide").glob("*.md")),
]


def scripts(name):
    """Blocks of Python on a page that are no examples for doctest."""
    (page,) = (page for page in PAGES if page.name == name and page.name != "index.md")
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    return [block for block in blocks if ">>> " not in block]
