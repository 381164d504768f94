"""Write examples/ball_tracking/table.jpg from the photograph `coffee` that ships in the wheel of scikit-image.

    python -m venv .venv-photo
    .venv-photo/bin/pip install scikit-image Pillow
    .venv-photo/bin/python tools/make_table_photo.py

Nothing is downloaded but the packages. The photograph is by Rachel Michetti, courtesy of Pikolo Espresso Bar; she
gave it away as CC0, as the docstring of `skimage.data.coffee` says. ATTRIBUTION.md beside it repeats that.
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from skimage import data

TARGET = Path(__file__).parents[1] / "examples" / "ball_tracking" / "table.jpg"
WIDTH, HEIGHT = 600, 352
TOP = 24
MAX_BYTES = 40_000


def main() -> None:
    picture = Image.fromarray(data.coffee()).crop((0, TOP, WIDTH, TOP + HEIGHT))
    for quality in range(90, 30, -2):  # the best one that stays small
        written = io.BytesIO()
        picture.save(written, "JPEG", quality=quality, optimize=True, progressive=True)
        if written.tell() <= MAX_BYTES:
            break
    TARGET.write_bytes(written.getvalue())
    print(f"{TARGET.name}: {WIDTH} x {HEIGHT}, quality {quality}, {written.tell()} bytes")


if __name__ == "__main__":
    main()
