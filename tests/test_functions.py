"""Pipelines of functions."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import enum
import functools
import inspect
import io
import math
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, Protocol, TypedDict, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray
from typing_extensions import TypeAliasType

from splitiot.errors import CutError, LocalProtocolError, StepError
from splitiot.functions import Task, task, tasks
from splitiot.pipeline import DROP, Drop, Tier
from splitiot.runner import Runner
from tests.pipelines import SizedPipeline
from tests.session.support import add_one, double, minus_three, numbers

T = TypeVar("T")
Number = NewType("Number", int)
Sealed = NewType("Sealed", set[int])
Alias = TypeAliasType("Alias", list[int])
S = TypeVar("S")
Table = TypeAliasType("Table", dict[str, tuple[S, list[T]]], type_params=(T, S))


class Pair(NamedTuple):
    a: int
    b: int


class Options(TypedDict):
    size: int


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: int


class Readable(Protocol):
    def read(self) -> bytes: ...


def test_decorated() -> None:
    @task(tier="device", name="twice")
    def double(x: int) -> int:
        return 2 * x

    @task()
    def increment(x: int) -> int:
        return x + 1

    assert (double.name, double.tier, double(4)) == ("twice", Tier.DEVICE, 8)
    pipeline = tasks([double, increment])
    assert [step.name for step in pipeline.steps] == ["twice", "increment"]
    assert pipeline.run(20) == 41
    assert pipeline.digest == tasks([task(double.function, name="twice", tier="device"), increment.function]).digest
    with pytest.raises(CutError, match="timeout_s"):
        task(timeout_s=-1.0)(abs)


def test_an_isolated_task_must_be_importable() -> None:
    local = task(lambda x: x, name="local", isolated=True)
    with pytest.raises(CutError, match="can't run in a process of its own"):
        tasks([local])


def test_head_and_tail_are_the_whole_at_every_cut() -> None:
    pipeline = numbers()
    assert (pipeline.n, pipeline.cuts, pipeline.stateful) == (3, (0, 1, 2, 3), False)
    assert [step.name for step in pipeline.steps] == ["add_one", "double", "minus_three"]
    for cut in pipeline.cuts:
        sent, kept = pipeline.divide(cut, pipeline.part(0, cut).run(pipeline.bind(20)))
        back = pipeline.part(cut, 3).run(sent) if cut < 3 else None
        assert pipeline.join(kept, back) == pipeline.run(20) == 39


@pytest.mark.parametrize("result", [None, 0, False, (), {}])
def test_results_that_look_like_nothing(result: Any) -> None:
    pipeline = tasks([task(lambda x: x, name="pass"), task(lambda x: result, name="result")])
    for cut in pipeline.cuts:
        sent, kept = pipeline.divide(cut, pipeline.part(0, cut).run(1))
        back = pipeline.part(cut, 2).run(sent) if cut < 2 else None
        got = pipeline.join(kept, back)
        assert got == result
        assert type(got) is type(result)


def test_the_digest_names_functions_version_and_pins() -> None:
    digests = [
        numbers().digest,
        tasks([add_one, double, minus_three], version="2").digest,
        tasks([add_one, minus_three, double]).digest,
        tasks([add_one, double]).digest,
        tasks([task(add_one, tier="device"), double, minus_three]).digest,
        tasks([task(add_one, name="add_two"), double, minus_three]).digest,
        tasks([task(add_one, name="add_one\n'double'"), minus_three]).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert numbers().digest == numbers().digest == numbers(sink="edge").digest
    assert all(len(d) == 64 for d in digests)


def test_tasks_that_have_no_name() -> None:
    with pytest.raises(CutError, match="name"):
        tasks([lambda x: x])
    with pytest.raises(CutError, match="name"):
        tasks([functools.partial(add_one)])
    assert tasks([task(functools.partial(add_one), name="one")]).run(1) == 2


def test_senseless_tasks_are_refused() -> None:
    with pytest.raises(CutError, match="at least one"):
        tasks([])
    with pytest.raises(CutError, match="two tasks are called double"):
        tasks([double, add_one, double])
    with pytest.raises(TypeError, match="a task is a function, got the int 5"):
        tasks([5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="moon"):
        task(add_one, tier="moon")


def test_pins() -> None:
    pipeline = tasks([task(add_one, tier="device"), double, task(minus_three, tier=Tier.EDGE)])
    assert isinstance(pipeline.tasks[0], Task)
    assert pipeline.cuts == (1, 2)
    assert "add_one" in pipeline.refused[0]
    assert "minus_three" in pipeline.refused[3]
    assert tasks([task(add_one, tier="edge"), task(double, tier="device")]).cuts == ()


def test_boundaries_are_untyped_and_nothing_crosses_when_all_is_local() -> None:
    pipeline = numbers()
    assert pipeline.boundary(1).tensors is None
    assert pipeline.boundary(1).nbytes is None
    assert pipeline.boundary(3).tensors == ()
    assert pipeline.returned(3).tensors == ()
    turned = pipeline.with_sink("edge")
    assert turned.boundary(3).tensors is None
    assert turned.returned(1).tensors == ()
    assert turned.with_sink("edge") is turned
    assert turned.with_sink("device").digest == pipeline.digest
    with pytest.raises(CutError):
        pipeline.boundary(4)
    with pytest.raises(CutError):
        pipeline.part(2, 1)


# how many values a task takes


def whole(function: Callable[..., Any], *values: Any) -> Any:
    """What a task gives for what the one before gives: one value as it is, several as a tuple, none as None."""
    given = None if not values else values[0] if len(values) == 1 else values
    return tasks([task(function, name="f")]).run(given)


def pair(a: Any, b: Any) -> Any:
    return a, b


class Adder:
    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, x: Any) -> Any:
        return x + self.by

    def both(self, a: Any, b: Any) -> Any:
        return a, b, self.by


def test_one_parameter_takes_the_value_as_it_is() -> None:
    value = (1, 2)
    assert tasks([task(lambda x: x, name="f")]).run(value) == value
    assert tasks([task(lambda x, y=5: (x, y), name="f")]).run(value) == (value, 5)
    assert tasks([task(lambda x=7: x, name="f")]).run(value) == value
    assert tasks([task(lambda x=7: x, name="f")]).run(None) is None
    assert tasks([task(lambda *xs: xs, name="f")]).run(value) == (value,)
    assert tasks([task(lambda x, *xs: (x, xs), name="f")]).run(value) == (value, ())
    assert tasks([task(lambda x, *, y=2, **more: (x, y, more), name="f")]).run(value) == (value, 2, {})


def test_several_parameters_take_the_items_of_a_tuple() -> None:
    assert whole(pair, 1, 2) == (1, 2)
    assert whole(lambda a, b, c=3: (a, b, c), 1, 2) == (1, 2, 3)
    assert whole(lambda a, b, c=3: (a, b, c), 1, 2, 4) == (1, 2, 4)
    assert whole(lambda a, b, *rest: (a, b, rest), 1, 2, 3, 4) == (1, 2, (3, 4))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ((1, 2, 3), "takes 2 values, and was given 3"),
        ((1,), "takes 2 values, and was given 1"),
        ([1, 2], "takes several values, and was given a list, not a tuple"),
        (None, "NoneType"),
        (np.zeros(2), "ndarray"),
    ],
)
def test_another_number_of_values(value: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words) as caught:
        tasks([pair]).run(value)
    assert "in task 'pair'" in getattr(caught.value, "__notes__", []) or "'pair'" in str(caught.value)


def test_bounds_of_the_number_in_words() -> None:
    with pytest.raises(TypeError, match="takes 2 to 3 values, and was given 4"):
        whole(lambda a, b, c=3: a, 1, 2, 3, 4)
    with pytest.raises(TypeError, match="takes 2 or more values, and was given 1"):
        tasks([task(lambda a, b, *c: a, name="f")]).run((1,))


def test_no_parameter_takes_nothing() -> None:
    assert whole(lambda: 5) == 5
    with pytest.raises(TypeError, match="task 'f' takes nothing, and was given a int"):
        whole(lambda: 5, 1)
    assert tasks([task(lambda x: None, name="swallow"), task(lambda: 5, name="five")]).run(1) == 5


def test_other_things_that_can_be_called() -> None:
    assert whole(Adder(2), 5) == 7
    assert whole(Adder(3).both, 1, 2) == (1, 2, 3)
    assert whole(functools.partial(pair, b=3), 1) == (1, 3)
    assert whole(functools.partial(pair, 3), 1) == (3, 1)
    assert whole(len, "abc") == 3
    assert tasks([max]).run((3, 5)) == 5  # C without a signature: the value as it is
    assert tasks([np.sqrt]).run(4.0) == 2.0
    assert tasks([int]).run("5") == 5
    assert tasks([math.hypot]).run(3) == 3.0

    @functools.wraps(pair)
    def wrapped(*args: Any) -> Any:
        return pair(*args)

    assert tasks([wrapped]).run((1, 2)) == (1, 2)


async def later(x: Any) -> Any:
    await asyncio.sleep(0)
    return x + 1


class Later:
    async def __call__(self, x: Any) -> Any:
        return await later(x)


def test_coroutines_are_awaited() -> None:
    assert tasks([later]).run(1) == 2
    assert tasks([later, double, task(Later(), name="again")]).run(1) == 5
    assert tasks([task(lambda x: later(x), name="makes")]).run(1) == 2

    async def both(a: Any, b: Any) -> Any:
        return a - b

    assert whole(both, 5, 3) == 2


def test_coroutines_are_awaited_where_a_loop_runs() -> None:
    async def inside() -> Any:
        return tasks([later]).run(1)

    assert asyncio.run(inside()) == 2


def test_what_a_coroutine_raises() -> None:
    async def fail(x: Any) -> Any:
        raise KeyError(x)

    with pytest.raises(KeyError) as caught:
        tasks([fail]).run("a")
    assert caught.value.__notes__ == ["in task 'fail'"]

    async def leave(x: Any) -> Any:
        sys.exit(x)

    with pytest.raises(SystemExit) as left:
        tasks([leave]).run(3)
    assert left.value.code == 3
    assert tasks([later]).run(1) == 2, "the loop has outlived that"

    async def cancelled(x: Any) -> Any:
        raise asyncio.CancelledError

    with pytest.raises(concurrent.futures.CancelledError):
        tasks([cancelled]).run(1)


def test_a_coroutine_that_waits_for_its_own_loop_is_told() -> None:
    async def nested(x: Any) -> Any:
        return tasks([later]).run(x)

    with pytest.raises(LocalProtocolError, match="await them there"):
        tasks([nested]).run(1)


# what is refused when a pipeline is made


def test_tasks_that_could_never_run() -> None:
    def generator(x: Any) -> Any:
        yield x

    async def stream(x: Any) -> Any:
        yield x

    class Generating:
        def __call__(self, x: Any) -> Any:
            yield x

    for function in (generator, stream, functools.partial(generator), Generating()):
        with pytest.raises(CutError, match="'g' is a generator"):
            task(function, name="g")

    def keyword(x: Any, *, scale: float) -> Any:
        return x * scale

    with pytest.raises(CutError, match=r"'keyword' needs the keyword argument 'scale'.*partial"):
        task(keyword)
    assert whole(functools.partial(keyword, scale=2.0), 3) == 6.0
    with pytest.raises(CutError, match="'f' has a resource, but takes no argument"):
        task(lambda: 1, name="f", resource=contextlib.nullcontext)
    for wrong, words in (
        ({"state": "some"}, "the state of task 'add_one' is"),
        ({"timeout_s": 0.0}, "timeout_s of task 'add_one'"),
        ({"timeout_s": math.inf}, "timeout_s of task 'add_one'"),
        ({"timeout_s": math.nan}, "timeout_s of task 'add_one'"),
        ({"max_bytes": 5}, "max_bytes of task 'add_one' is for isolated"),
        ({"isolated": True, "state": "own"}, "'add_one' remembers something, so it can't be isolated"),
    ):
        with pytest.raises(CutError, match=words):
            task(add_one, **wrong)  # type: ignore[arg-type]


def returning(hint: Any, result: Any = None, name: str = "gives") -> Task:
    def gives(x):  # type: ignore[no-untyped-def]
        return result

    gives.__annotations__ = {"return": hint}
    return task(gives, name=name)


def taking(*hints: Any) -> Task:
    """A task with so many parameters, annotated."""
    parameters = [
        inspect.Parameter(f"p{index}", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=hint)
        for index, hint in enumerate(hints)
    ]

    def takes(*args):  # type: ignore[no-untyped-def]
        return args

    takes.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    takes.__annotations__ = {p.name: p.annotation for p in parameters}
    return task(takes)


@pytest.mark.parametrize(
    ("hint", "takes", "words"),
    [
        (tuple[int, int], 3, "it takes 3 values"),
        (tuple[int, int, int], 2, "it takes 2 values"),
        (int, 2, "it takes 2 values"),
        (list[int], 2, "it takes 2 values"),
        (NDArray[np.float32], 2, "it takes 2 values"),
        (None, 2, "it takes 2 values"),
        (tuple[int, int] | tuple[int], 3, "it takes 3 values"),
        (tuple[int] | Drop, 3, "it takes 3 values"),
        (int, 0, "it takes nothing"),
        (int | str, 0, "it takes nothing"),
    ],
)
def test_what_the_one_before_returns_does_not_fit(hint: Any, takes: int, words: str) -> None:
    with pytest.raises(CutError, match=f"task 'takes' can't take what 'gives' returns: {words}"):
        tasks([returning(hint), taking(*[int] * takes)])


@pytest.mark.parametrize(
    ("hint", "takes"),
    [
        (tuple[int, int], 2),
        (tuple[int, ...], 2),
        (tuple, 2),
        (tuple[int, int] | tuple[int, int, int], 2),
        (tuple[int, int] | None, 2),
        (Any, 2),
        (object, 0),
        (Drop, 2),
        (Sequence[int], 2),
        (Pair, 2),
        (None, 0),
        (int | None, 0),
        (tuple[int, int], 1),
    ],
)
def test_what_may_fit_is_left_to_the_run(hint: Any, takes: int) -> None:
    assert tasks([returning(hint), taking(*[int] * takes)]).n == 2


def test_a_number_of_values_that_is_not_fixed() -> None:
    def loose(a: int, b: int, c: int = 0) -> int:
        return a + b + c

    def endless(a: int, b: int, *c: int) -> int:
        return a + b + sum(c)

    assert tasks([returning(tuple[int, int, int], (1, 2, 3)), loose]).run(0) == 6
    assert tasks([returning(tuple[int, int, int, int], (1, 2, 3, 4)), endless]).run(0) == 10
    with pytest.raises(CutError, match="it takes 2 to 3 values"):
        tasks([returning(tuple[int, int, int, int]), loose])
    with pytest.raises(CutError, match="it takes 2 values or more"):
        tasks([returning(tuple[int]), endless])


# what annotations say of cuts

CROSS: list[Any] = [
    None,
    bool,
    int,
    float,
    str,
    bytes,
    list,
    tuple,
    dict,
    list[int],
    tuple[int, ...],
    tuple[int, list[str]],
    dict[str, bytes],
    dict[Any, int],
    dict[Literal["a", "b"], int],
    Any,
    object,
    T,
    Drop,
    int | Drop,
    set[int] | None,
    int | set[int],
    Optional[Pair],  # noqa: UP045  (the old spelling is the case)
    Number,
    Alias,
    Table[int, str],
    Literal["a", 2, None],
    Annotated[int, "so"],
    Options,
    Sequence[int],
    Mapping[str, int],
    Iterable[int],
    Readable,
    np.ndarray,
    NDArray[np.float32],
    NDArray[Any],
    np.float32,
    np.integer,
    "int",
    "a name that only a type checker knows",
]

STAY: list[tuple[Any, str]] = [
    (set, "a set"),
    (set[int], "a set"),
    (frozenset[int], "a frozenset"),
    (bytearray, "a bytearray"),
    (complex, "a complex"),
    (Pair, "a Pair"),
    (Colour, "a Colour"),
    (Level, "a Level"),
    (Point, "a Point"),
    (Literal[Colour.RED], "a Colour"),
    (Sealed, "a set"),
    (set[int] | Pair, "a set"),
    (Table[int, set[int]], "a set"),
    (Table[Pair, int], "a Pair"),
    (set[int] | Drop, "a set"),
    (list[set[int]], "a set"),
    (tuple[int, set[int]], "a set"),
    (tuple[Pair, ...], "a Pair"),
    (dict[str, set[int]], "a set"),
    (dict[int, str], "a dict with keys that are no strings"),
    (list[dict[str, list[Point]]], "a Point"),
    (Annotated[set[int], "so"], "a set"),
    (Iterator[int], "a Iterator"),
    (Callable[[int], int], "a Callable"),
    (type[int], "a type"),
    (io.BytesIO, "a BytesIO"),
    (np.ma.MaskedArray, "a masked array"),
    (NDArray[np.object_], "a object_"),
    (NDArray[np.str_], "a str_"),
    (np.datetime64, "a datetime64"),
    ("set[int]", "a set"),
    (Path, "a Path"),
]


@pytest.mark.parametrize("hint", CROSS, ids=str)
def test_annotations_that_leave_all_cuts(hint: Any) -> None:
    assert tasks([returning(hint), add_one]).refused == {}
    assert tasks([add_one, taking(hint)]).refused == {}
    assert tasks([returning(hint)], sink="edge").refused == {}


@pytest.mark.parametrize(("hint", "words"), STAY, ids=lambda value: value if isinstance(value, str) else str(value))
def test_annotations_that_refuse_cuts(hint: Any, words: str) -> None:
    between = tasks([add_one, returning(hint), double])
    assert between.refused == {2: f"task 'gives' returns {words}, which can't cross"}
    assert between.cuts == (0, 1, 3)
    taken = tasks([add_one, taking(hint), double])
    assert taken.refused == {1: f"task 'takes' takes {words}, which can't cross"}
    first = tasks([taking(hint), double])
    assert first.cuts == (1, 2), "the first input"
    result = tasks([add_one, returning(hint)])
    assert result.refused == dict.fromkeys(range(2), f"task 'gives' returns {words}, which can't cross")
    assert result.cuts == (2,), "nothing but all local: its result is wanted here"
    turned = result.with_sink("edge")
    assert turned.cuts == (0, 1), "where it is wanted on the edge, it must be made there"
    assert turned.with_sink("device").cuts == (2,)


@pytest.mark.parametrize("kind", [Awaitable, Coroutine])
def test_annotations_of_what_is_awaited(kind: Any) -> None:
    def hint(inner: Any) -> Any:
        return kind[inner] if kind is Awaitable else kind[Any, Any, inner]

    assert tasks([returning(hint(int)), add_one]).refused == {}
    assert tasks([returning(hint(set[int])), add_one]).refused.keys() == {1}
    assert tasks([returning(asyncio.Future[set[int]]), add_one]).refused == {}, "nobody knows"


def test_several_values_are_all_looked_at() -> None:
    assert tasks([add_one, taking(int, set[int])]).refused == {1: "task 'takes' takes a set, which can't cross"}
    held = task(lambda resource, x: x, name="held", resource=contextlib.nullcontext)
    assert tasks([add_one, held]).refused == {}

    def hold(resource: io.BytesIO, x: int) -> int:
        return x

    assert tasks([add_one, task(hold, resource=io.BytesIO)]).refused == {}, "what a set-up gives never crosses"


def test_annotations_of_methods_partials_and_objects() -> None:
    class Giver:
        def __call__(self, x: int) -> set[int]:
            return {x}

        def method(self, x: int) -> set[int]:
            return {x}

    def general(x: int, scale: int) -> set[int]:
        return {x * scale}

    async def coroutine(x: int) -> set[int]:
        return {x}

    for function in (Giver(), Giver().method, functools.partial(general, scale=2), coroutine):
        assert tasks([task(function, name="f"), add_one]).cuts == (0, 2), function


def test_annotations_refuse_cuts_for_every_reason_at_once() -> None:
    pipeline = tasks([task(add_one, tier="device"), returning(set[int]), double])
    assert pipeline.cuts == (1, 3)
    assert "must run on the device" in pipeline.refused[0]
    assert "can't cross" in pipeline.refused[2]


def test_no_cut_is_left() -> None:
    with pytest.raises(CutError, match=r"nothing may be placed anywhere: task 'gives' returns a set.*; step 0"):
        tasks([task(add_one, tier="edge"), returning(set[int])])
    with pytest.raises(CutError, match=r"nothing may be placed anywhere"):
        tasks([task(returning(set[int]).function, tier="device")], sink="edge")
    assert tasks([task(add_one, tier="device"), returning(set[int])]).cuts == (2,)


def test_a_chain_whose_result_can_not_come_back() -> None:
    chain = tasks([add_one]) + SizedPipeline([4, 6]) + tasks([double, returning(set[int])])
    assert chain.cuts == (4,)
    assert set(chain.refused) == {0, 1, 2, 3}
    assert chain.with_sink("edge").cuts == (0, 1, 2, 3)
    assert (chain + tasks([task(len, name="count")])).cuts == (0, 1, 2, 3, 5)


# what annotations say of results


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, [1, True, np.int8(1)], [1.0, "1", None, [1]]),
        (float, [1.0, 1, np.float32(1), np.int64(1)], ["1", None, np.zeros(2)]),
        (bool, [True, np.bool_(True)], [1, None]),
        (str, ["a"], [b"a", 1]),
        (bytes, [b"a"], ["a", bytearray(b"a")]),
        (None, [None], [0, False]),
        (list[int], [[1], ["a"]], [(1,), None]),
        (tuple[int, int], [(1, 2)], [[1, 2]]),
        (dict[str, int], [{"a": 1}], [[("a", 1)]]),
        (int | None, [1, None], ["a"]),
        (Literal["a", 1], ["b", 2], [b"a"]),
        (NDArray[np.float32], [np.zeros(2), np.zeros(2, np.uint8)], [[0.0], np.float32(0)]),
        (np.float32, [np.float32(1)], [1.0, np.float64(1)]),
        (int | set[int], [1, "anything"], []),
        (Options, [{"size": 1}, "anything"], []),
        (Number, [1], ["a"]),
        (int | Drop, [1], ["a"]),
        (Awaitable[int], [1], ["a"]),
    ],
    ids=str,
)
def test_results_are_what_the_annotation_says(hint: Any, good: list[Any], bad: list[Any]) -> None:
    for result in good:
        got = tasks([returning(hint, result)]).run(0)
        assert type(got) is type(result)
        assert np.array_equal(got, result)
    for result in bad:
        with pytest.raises(StepError, match="task 'gives' returned a "):
            tasks([returning(hint, result)]).run(0)
    assert tasks([returning(hint, DROP), add_one]).run(0) is DROP, "any task may drop"


def test_the_annotation_is_quoted() -> None:
    with pytest.raises(StepError, match=r"returned a str; its annotation says int$"):
        tasks([returning(int, "a")]).run(0)
    with pytest.raises(StepError, match=r"returned a str; its annotation says list\[int\]$"):
        tasks([returning(list[int], "a")]).run(0)


# DROP


def test_behind_a_drop_nothing_runs() -> None:
    ran: list[int] = []
    pipeline = tasks(
        [
            add_one,
            task(lambda x: DROP if x % 2 else x, name="even"),
            task(lambda x: ran.append(x) or x, name="note"),  # type: ignore[func-returns-value]
        ]
    )
    assert pipeline.run(1) == 2
    assert pipeline.run(2) is DROP
    assert ran == [2]
    assert repr(DROP) == "DROP"
    with Runner(pipeline) as runner:
        result, _, steps_s = runner.run_timed(0, 3, 2)
        assert (result, len(steps_s)) == (DROP, 2)


@pytest.mark.parametrize("at", range(4))
def test_a_drop_ends_a_chain_wherever_it_comes_from(at: int) -> None:
    functions = [task(lambda x, i=i: DROP if i == at else x, name=f"t{i}") for i in range(4)]
    chain = tasks(functions[:2]) + tasks(functions[2:3]) + tasks(functions[3:])
    assert chain.run(1) is DROP
    for cut in chain.cuts:
        head = chain.part(0, cut).run(1)
        assert (head is DROP) == (at < cut)


def test_a_network_does_not_see_what_was_dropped() -> None:
    network = SizedPipeline([4, 6, 3])
    chain = tasks([task(lambda x: DROP, name="drop")]) + network + tasks([task(lambda x: 1, name="one")])
    assert chain.run(1) is DROP


# digests


def test_the_digest_of_plain_pipelines_is_what_it_was() -> None:
    """A device of an earlier version and an edge of this one work together."""
    plain = tasks([task(add_one, tier="device"), double, minus_three], version="7")
    assert plain.digest == "b16a8f514d125f3db9b554cbe78489e5bfedd2f499b42ea359891efdd0981875"
    assert plain.digest == tasks([task(add_one, tier="device"), double, minus_three], version="7", sink="edge").digest
    held = tasks(
        [task(lambda r, x: x, name="add_one", tier="device", resource=contextlib.nullcontext), double, minus_three],
        version="7",
    )
    assert held.digest == plain.digest, "what a task holds is its own affair"


def test_state_stands_in_the_digest() -> None:
    digests = [tasks([task(add_one, state=state), double]).digest for state in ("none", "shared", "own")]
    digests += [tasks([task(add_one, state="own", tier=tier), double]).digest for tier in ("device", "edge")]
    digests += [tasks([task(add_one, name="add_one@!own"), double]).digest]
    assert len(set(digests)) == len(digests)


# state, as the pipeline tells it


def test_state_without_a_pin_fixes_the_cut() -> None:
    pipeline = tasks([add_one, task(double, state="own"), minus_three])
    assert pipeline.stateful
    assert pipeline.remembers
    assert pipeline.exclusive_parts == {}
    assert pipeline.cuts == (0, 1, 2, 3)
    shared = tasks([add_one, task(double, state="shared"), minus_three])
    assert shared.cuts == (0, 3)
    assert "task 'double' shares what it remembers" in shared.refused[1]
    assert shared.refused[1] == shared.refused[2]
    assert tasks([task(double, state="shared")]).cuts == (0, 1)


def test_state_with_a_pin_stays_there() -> None:
    pipeline = tasks([task(add_one, tier="device", state="own"), double, task(minus_three, tier="edge", state="own")])
    assert not pipeline.stateful
    assert pipeline.remembers
    assert pipeline.exclusive_parts == {(0, 1): True, (2, 3): True}
    assert pipeline.cuts == (1, 2)
    assert [pipeline.remembers_from(cut) for cut in range(4)] == [True, True, True, False]
    assert not tasks([add_one]).remembers
    assert not tasks([add_one]).remembers_from(0)


def test_neighbours_that_remember_on_two_tiers_are_two() -> None:
    pipeline = tasks([task(add_one, tier="device", state="own"), task(double, tier="edge", state="own")])
    assert pipeline.exclusive_parts == {(0, 1): True, (1, 2): True}
    with Runner(pipeline) as runner:
        assert runner.run(1, 2, runner.run(0, 1, 20, "device")[0], "edge")[0] == 42


def test_neighbours_that_remember_on_one_tier_are_one() -> None:
    def step(name: str, **more: Any) -> Task:
        return task(lambda x: x, name=name, **more)

    pipeline = tasks(
        [
            step("a", tier="device", state="shared"),
            step("b", tier="device", state="own"),
            step("c", tier="device"),
            step("d"),
            task(lambda r, x: x, name="e", resource=contextlib.nullcontext),
            task(lambda r, x: x, name="f", resource=contextlib.nullcontext),
            step("g", tier="edge", state="own"),
        ]
    )
    assert pipeline.exclusive_parts == {(0, 2): True, (4, 5): False, (5, 6): False, (6, 7): True}
    assert pipeline.cuts == (3, 4, 5, 6)
    chain = SizedPipeline([4, 6, 3]) + pipeline
    assert chain.exclusive_parts == {(2, 4): True, (6, 7): False, (7, 8): False, (8, 9): True}
    mixed = pipeline + tasks([step("h", state="own")])
    assert mixed.stateful


def test_where_steps_may_run() -> None:
    pipeline = tasks([task(add_one, tier="device"), double, task(minus_three, tier="edge")])
    for tier, start, stop, may in (
        (Tier.DEVICE, 0, 2, True),
        (Tier.DEVICE, 1, 3, False),
        (Tier.DEVICE, 3, 3, True),
        (Tier.EDGE, 1, 3, True),
        (Tier.EDGE, 0, 3, False),
    ):
        assert pipeline.runs_on(tier, start, stop) is may


def test_what_a_task_raises_comes_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        tasks([task(lambda x: 1 // x, name="invert")]).run(0)


def test_an_empty_part_passes_its_payload() -> None:
    with Runner(numbers()) as runner:
        for cut in range(4):
            assert runner.run(cut, cut, "as it is")[0] == "as it is"


def test_chains_of_functions_and_networks() -> None:
    inner = SizedPipeline([4, 6, 3])
    chain = (
        tasks([task(lambda x: np.full(4, x, np.uint8), name="fill")])
        + inner
        + tasks([task(lambda r: int(r["t2"].sum()), name="sum")])
    )
    assert chain.n == 4
    for cut in chain.cuts:
        sent, kept = chain.divide(cut, chain.part(0, cut).run(chain.bind(5)))
        assert cut == 4 or chain.boundary(cut).mismatch(sent) is None
        back = chain.part(cut, 4).run(sent) if cut < 4 else None
        assert chain.join(kept, back) == chain.run(5)
