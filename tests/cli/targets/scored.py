"""A pipeline with inputs of its own and a score: for the tests of the command line."""

import splitiot as si


def double(x):
    return 2 * x


def picky(x):
    if x == 6:
        raise ArithmeticError("not six, on purpose")
    return x + 1


def inputs():
    yield from range(5)


def score(values):
    found = [value for value in values if value is not None]
    return {"sum": sum(found), "lost": values.index(None) if None in values else -1, "of": len(values)}


pipeline = si.tasks([double, picky])
