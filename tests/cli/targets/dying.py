"""A pipeline whose tail ends the edge at the second request: for the tests of the command line."""

import os
import sys

import splitiot as si


def same(x):
    return x


def deadly(x):
    if x == 2 and "serve" in sys.argv:
        os._exit(9)
    return x


inputs = [1, 2, 3, 4]
pipeline = si.tasks([same, deadly])
