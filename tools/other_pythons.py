"""Run the tests without extras on every other Python 3.12 and 3.13 that this machine has.

Usage: python tools/other_pythons.py --wheels build/wheels --requirements tools/requirements/test.txt
       --constraints tools/requirements/locks/main.txt

Looks on PATH and where pyenv, uv and a source build put interpreters. Each is tried by running it, since
a name proves little (a pyenv shim may stand for nothing). One environment a version, in .venv-pythons/.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path

VERSIONS = ("3.12", "3.13")
ENVIRONMENTS = Path(".venv-pythons")
PROBE = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"


def candidates(version: str) -> list[Path]:
    """List the places where a Python of this version may be, each once."""
    name = f"python{version}"
    home = Path.home()
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local/share/uv/python"))
    pyenv = Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions"
    found = [Path(folder) / name for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    found += sorted(pyenv.glob(f"*/bin/{name}"))
    found += sorted(uv.glob(f"*/bin/{name}"))
    found += [Path("/usr/local/bin") / name, Path("/usr/bin") / name]
    return [path for path in dict.fromkeys(found) if path.is_file()]


def works(python: Path, version: str) -> bool:
    """Whether it runs, is what its name says, and can make an environment."""
    try:
        done = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def prepare(python: Path, version: str, wheel: Path, requirements: Path, constraints: Path | None) -> Path:
    """Return the Python of an environment with the wheel and the test tools in it."""
    environment = ENVIRONMENTS / version
    inside = environment / "bin" / "python"
    stamp = environment / "made-from"
    pins = constraints.read_bytes() if constraints else b""
    wanted = hashlib.sha256(wheel.read_bytes() + requirements.read_bytes() + pins + str(python).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return inside
    if not inside.exists():
        subprocess.run([python, "-m", "venv", "--clear", environment], check=True)
    pip = [inside, "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
    subprocess.run([*pip, "--no-deps", "--force-reinstall", wheel], check=True)
    pinned = ["-c", constraints] if constraints else []
    subprocess.run([*pip, wheel, "-r", requirements, *pinned], check=True)
    stamp.write_text(wanted)
    return inside


def test(python: Path) -> int:
    """Run the tests that need no extra; returns pytest's exit code."""
    environment = os.environ | {"SPLITIOT_TEST_INSTALLED": "1", "SPLITIOT_TEST_EXTRAS": ""}
    pytest = [python, "-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", "-rfE"]
    return subprocess.run(
        [*pytest, "tests", "--doctest-modules", "--pyargs", "splitiot"], env=environment, check=False
    ).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, required=True, help="the folder that holds the one wheel")
    parser.add_argument("--requirements", type=Path, required=True, help="what the tests need")
    parser.add_argument("--constraints", type=Path, help="the versions to install; without it the newest")
    arguments = parser.parse_args()
    (wheel,) = arguments.wheels.glob("*.whl")

    failed = []
    for version in VERSIONS:
        if sys.version.startswith(f"{version}."):
            continue  # the main run has it
        python = next((path for path in candidates(version) if works(path, version)), None)
        if python is None:
            print(f"Python {version}: none found that works", flush=True)
            continue
        print(f"Python {version}: {python}", flush=True)
        if test(prepare(python, version, wheel, arguments.requirements, arguments.constraints)) != 0:
            failed.append(version)
    if failed:
        print(f"The tests failed on Python {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
