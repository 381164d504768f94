"""Two machines, each with something that the other one has not."""

from __future__ import annotations

import os

from splitiot import task, tasks

sample = 5


def there(thing: str) -> None:
    if thing not in os.environ.get("SPLITIOT_TEST_HARDWARE", ""):
        raise OSError(f"no {thing}")


@task(tier="device")
def camera(size: int) -> list[int]:
    there("camera")
    return list(range(size))


def double(values: list[int]) -> list[int]:
    return [2 * value for value in values]


@task(tier="edge")
def accelerator(values: list[int]) -> int:
    there("accelerator")
    return sum(values)


pipeline = tasks([camera, double, accelerator])
