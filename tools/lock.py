"""Write the versions that pip would install now, as constraints: with them a run of CI can be repeated.

Usage: python tools/lock.py tools/requirements/locks/river.txt "build/wheels/splitiot-0.5.0-py3-none-any.whl"
       -r tools/requirements/test.txt -r tools/requirements/river.txt

What follows the file's name is handed to pip, which resolves it and installs nothing. Run it with the oldest Python
that splitiot supports: what that one can install, later ones can install too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HEAD = "# What CI tested. Written by `make lock`; a constraints file for Python 3.11 and newer.\n"


def resolve(requirements: list[str]) -> dict[str, str]:
    """Return the version of each distribution that pip would install into an empty environment."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-qq", "--dry-run"]
        subprocess.run([*pip, "--ignore-installed", "--report", report, *requirements], check=True)
        installed = json.loads(report.read_text("utf-8"))["install"]
    return {each["metadata"]["name"].lower(): each["metadata"]["version"] for each in installed}


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    versions = resolve(sys.argv[2:])
    del versions["splitiot"]
    lock = Path(sys.argv[1])
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text(HEAD + "".join(f"{name}=={version}\n" for name, version in sorted(versions.items())), "utf-8")
    print(f"{lock}: {len(versions)} distributions")


if __name__ == "__main__":
    main()
