"""Pipelines of functions."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from splitiot.errors import CutError, LocalProtocolError
from splitiot.functions import Task, task, tasks
from splitiot.pipeline import Tier
from splitiot.runner import Runner
from tests.pipelines import SizedPipeline
from tests.session.support import add_one, double, minus_three, numbers


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
    with pytest.raises(TypeError, match="a task is a function, got int"):
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


def test_coroutines_are_refused() -> None:
    async def later(x: Any) -> Any:
        return x

    with pytest.raises(LocalProtocolError, match="coroutine"):
        tasks([later]).run(1)


def test_a_coroutine_in_the_middle_is_refused_too() -> None:
    async def later(x: Any) -> Any:
        return x

    for functions in ([later, add_one], [add_one, later, double]):
        with pytest.raises(LocalProtocolError, match="later"):
            tasks(functions).run(1)


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
