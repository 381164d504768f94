"""A pipeline whose last step fails on large numbers: for the tests of the command line."""

import numpy as np

import splitiot as si


def same(x):
    return x


def choosy(x):
    if x.max() > 5:
        raise ArithmeticError("too much on purpose")
    return x


pipeline = si.tasks([same, choosy])
sample = np.arange(4.0)
