"""``python -m splitiot``: the same as the command ``splitiot``."""

from __future__ import annotations

import sys

from splitiot.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
