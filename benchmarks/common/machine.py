"""Description of the machine and versions, for the head of a csv file."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "skvae",
    "tensorflow",
    "keras",
    "onnxruntime",
    "scikit-learn",
    "numpy",
    "torch",
    "pythae",
)


def machine_lines() -> list[str]:
    """Date, processor and versions as comment lines "# name: value"."""
    return [
        f"# date: {datetime.now(UTC):%Y-%m-%d}",
        f"# processor: {processor()}",
        f"# cores: {os.cpu_count()}",
        *version_lines(),
    ]


def version_lines() -> list[str]:
    """Versions as comment lines."""
    lines = [f"# python: {platform.python_version()}"]
    for package in PACKAGES:
        # Not all benchmarks need all packages.
        with contextlib.suppress(PackageNotFoundError):
            lines.append(f"# {package}: {version(package)}")
    return lines


def processor() -> str:
    """Model of the processor; systems other than Linux give the architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    facts = dict(
        re.findall(r"^(model name|flags)\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE)
    )
    model = facts.get("model name", platform.machine())
    has_avx512 = "avx512f" in facts.get("flags", "").split()
    return f"{model}, {'with' if has_avx512 else 'without'} AVX-512"
