"""Pages of the documentation, and the code on them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    *(
        path.relative_to(ROOT).as_posix()
        for folder in ("docs", "docs/user_guide")
        for path in sorted((ROOT / folder).glob("*.md"))
    ),
]


def scripts(page):
    """Blocks of Python on a page that are no examples for doctest."""
    text = (ROOT / page).read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    return [block for block in blocks if ">>> " not in block]
