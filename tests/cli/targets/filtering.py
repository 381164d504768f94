"""A pipeline that drops every third number, for the tests of streams."""

import splitiot as si


def every_third_is_dropped(x: int) -> int | si.Drop:
    return si.DROP if x % 3 == 0 else x


def negate(x: int) -> int:
    return -x


pipeline = si.tasks([every_third_is_dropped, negate])
sample = 1


def inputs():
    return range(12)


def score(values):
    return {"right": sum(got == (None if x % 3 == 0 else -x) for x, got in enumerate(values))}
