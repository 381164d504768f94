"""A pipeline without a sample: for the tests of the command line."""

import splitiot as si


def same(x):
    return x


pipeline = si.tasks([same])
