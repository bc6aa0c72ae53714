"""The oldest versions that the suite runs on are the oldest that pip would take."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def test_the_floors_of_pyproject_are_the_versions_in_oldest():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    oldest = {}
    for line in (ROOT / "tests" / "oldest.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            oldest[name] = Version(version)
    for extra in ("plot", "pictures", "dask", "test"):
        for text in [*project["dependencies"], *extras[extra]]:
            requirement = Requirement(text)
            (floor,) = requirement.specifier
            assert floor.operator == ">="
            assert oldest[requirement.name] == Version(floor.version), text
