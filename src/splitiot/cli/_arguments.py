"""Arguments that several commands have, and what their values may be."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from splitiot.pipeline import Runtime

__all__ = [
    "TARGET",
    "add_kernels_argument",
    "add_model_arguments",
    "add_runtime_arguments",
    "at_least",
    "not_negative",
    "positive",
    "runtime_of",
]

TARGET = (
    "a .tflite file, the folder of a bundle, or file.py:NAME or package.module:NAME of a pipeline "
    "(NAME: pipeline, unless given)"
)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --signature and --sink."""
    parser.add_argument("--signature", metavar="NAME", help="which of the model's signatures")
    parser.add_argument("--sink", choices=("device", "edge"), help="where the results are wanted (default: device)")


def add_runtime_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --runtime, --kernels and --threads."""
    parser.add_argument(
        "--runtime",
        default="auto",
        choices=("auto", "litert", "tflite-runtime", "tensorflow"),
        help="what models are run with (default: the first of these that works)",
    )
    add_kernels_argument(parser)
    parser.add_argument("--threads", type=at_least(1), default=1, metavar="N", help="of the interpreter (default: 1)")


def add_kernels_argument(parser: argparse.ArgumentParser) -> None:
    """Add --kernels, on which it depends where a network can be cut."""
    parser.add_argument(
        "--kernels", default="default", choices=("default", "no-delegate", "reference"), help="default: %(default)s"
    )


def runtime_of(arguments: argparse.Namespace) -> Runtime:
    """Return the runtime that `add_runtime_arguments` asked for."""
    return Runtime(arguments.runtime, arguments.kernels, arguments.threads)


def at_least(least: int) -> Callable[[str], int]:
    """Make a converter for whole numbers that are not less."""

    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        return value

    return integer


def positive(text: str) -> float:
    """Convert a number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
    return value


def not_negative(text: str) -> float:
    """Convert a number of at least 0."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text}")
    return value
