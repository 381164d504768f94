"""Print constraints that hold the package's own dependencies to the lowest versions that pyproject.toml allows.

Usage: python tools/lowest.py > build/lowest.txt

All others are as new as those permit: whether theirs are too old is for their packages to say.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def lowest() -> dict[str, str]:
    """Return the lower bound of each dependency, those of extras included."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    requirements = [*project["dependencies"], *(each for extra in extras for each in extra)]
    bounds = (re.fullmatch(r"([\w.-]+)>=([\w.]+)", each) for each in requirements)
    return {bound[1]: bound[2] for bound in bounds if bound}


if __name__ == "__main__":
    for name, version in sorted(lowest().items()):
        print(f"{name}=={version}")
