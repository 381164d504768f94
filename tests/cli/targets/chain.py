"""A pipeline of functions, for the tests of the command line."""

import numpy as np

import splitiot as si


def spread(x):
    return np.repeat(x, 8)


def gather(x):
    return x.reshape(-1, 8).sum(axis=1)


def squares(x):
    return x * x


pipeline = si.tasks([spread, gather, squares])
pinned = si.tasks([si.task(spread, tier="device"), gather, si.task(squares, tier="edge")])
no_pipeline = 3


def sample():
    return np.arange(64, dtype=np.float64)
