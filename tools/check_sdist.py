"""Unpack the sdist and check that the wheel built from it is, file by file, the one built from the checkout.

Usage: python tools/check_sdist.py build/sdist build/wheels

The unpacked sdist is left in build/sdist/unpacked, for tests to be run in it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path


def contents(wheel: Path) -> dict[str, bytes]:
    """Return what a wheel holds."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def main() -> None:
    folder, wheels = Path(sys.argv[1]), Path(sys.argv[2])
    (sdist,) = folder.glob("*.tar.gz")
    (expected,) = wheels.glob("*.whl")
    unpacked = folder / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (root,) = unpacked.iterdir()
    built = folder.resolve() / "wheel"
    shutil.rmtree(built, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", built], cwd=root, check=True)
    (wheel,) = built.glob("*.whl")
    of_sdist, of_checkout = contents(wheel), contents(expected)
    differing = {name for name in of_sdist.keys() | of_checkout.keys() if of_sdist.get(name) != of_checkout.get(name)}
    if differing:
        sys.exit(f"The wheel built from {sdist} is another one than {expected}: {', '.join(sorted(differing))}")
    print(f"{sdist}: its wheel has the same {len(of_sdist)} files as the checkout's")


if __name__ == "__main__":
    main()
