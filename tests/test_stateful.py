"""Networks that remember: over sequences, from two devices at once, at every legal cut, like the uncut file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitiot import InMemory
from splitiot.device import Device
from splitiot.edge import EdgeService
from splitiot.errors import CutError, Overloaded, RemoteError, StateLost
from splitiot.limits import Limits
from splitiot.models import Model, load_model, open_interpreter
from splitiot.models._random_input import random_payload
from splitiot.policies import Fixed
from splitiot.runner import Runner
from tests import networks
from tests.session.support import profile_of, request_of

pytestmark = pytest.mark.extra("litert")

LENGTH = 50
OWN = {"svdf": networks.svdf, "counter": networks.counter}
SHARED = {"trained_lstm_int8": "trained_lstm_int8.tflite", "variable": "odd/variable.tflite"}


@pytest.fixture(params=[*OWN, *(pytest.param(name, marks=pytest.mark.models) for name in SHARED)])
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    if request.param in OWN:
        yield load_model(OWN[request.param]())
    else:
        folder: Path = request.getfixturevalue("models_dir")
        yield load_model(folder / SHARED[request.param])


def sequence(model: Model, seed: int, length: int = LENGTH) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    return [random_payload(model.inputs, random) for _ in range(length)]


def whole(model: Model, payloads: list[dict[str, Any]]) -> list[list[bytes]]:
    """What the file itself gives, in one interpreter."""
    interpreter = open_interpreter(model.to_bytes())
    answers = []
    for payload in payloads:
        for spec, set_ in zip(model.inputs, interpreter.setters, strict=True):
            set_(payload[spec.name])
        interpreter.invoke()
        answers.append([get().tobytes() for get in interpreter.getters])
    return answers


def plain(model: Model, value: Any) -> list[bytes]:
    return [v.tobytes() for v in value.values()] if isinstance(value, dict) else [value.tobytes()]


def device_of(model: Model, service: EdgeService, name: str, cut: int) -> Device:
    transport = InMemory(lambda frame: service.handle(frame, peer=name))
    return Device(model, transport, policy=Fixed(cut), profile=profile_of(model), cache=False)


def test_the_order_of_a_sequence_matters(model: Model) -> None:
    """Else the tests here would prove nothing."""
    payloads = sequence(model, 1)
    assert model.stateful
    again = payloads[-1:] * 2
    assert whole(model, payloads)[-1] != whole(model, again)[0]


def test_two_devices_at_once_over_one_service(model: Model) -> None:
    inputs = {"a": sequence(model, 1), "b": sequence(model, 2)}
    wanted = {name: whole(model, payloads) for name, payloads in inputs.items()}
    inner = [cut for cut in model.cuts if 0 < cut < model.n]
    assert inner, "a test of nothing"
    for cut in model.cuts:
        with EdgeService([model]) as service:
            devices = {name: device_of(model, service, name, cut) for name in inputs}
            for index in range(LENGTH):
                for name, device in devices.items():
                    outcome = device.run(inputs[name][index])
                    assert (outcome.plan and outcome.plan.cut) == cut
                    assert plain(model, outcome.unwrap()) == wanted[name][index], f"cut {cut}, {name}, {index}"
            for device in devices.values():
                device.close()


def test_verify_runs_the_sequence(model: Model) -> None:
    report = model.verify(samples=LENGTH)
    assert report.ok, str(report)
    assert report.samples == LENGTH


def test_a_state_that_gave_way_is_a_typed_failure_until_reset(model: Model) -> None:
    cut = next(cut for cut in model.cuts if 0 < cut < model.n)
    if not model.part(cut, model.n).stateful:
        cut = 0
    inputs = sequence(model, 3, 4)
    wanted = [*whole(model, inputs)]
    with EdgeService([model], limits=Limits(max_owners=1)) as service:
        first, second = (device_of(model, service, name, cut) for name in "ab")
        with first, second:
            assert plain(model, first.run(inputs[0]).unwrap()) == wanted[0]
            assert plain(model, second.run(inputs[0]).unwrap()) == wanted[0]  # takes the only place
            for index in (1, 2):
                outcome = first.run(inputs[index])
                assert not outcome.ok
                assert isinstance(outcome.error, RemoteError)
                assert outcome.error.code == "state-lost"
                assert "reset()" in str(outcome.error)
            assert plain(model, second.run(inputs[1]).unwrap()) == wanted[1], "who has the place goes on"
            first.reset()
            found = [plain(model, first.run(payload).unwrap()) for payload in inputs]
            assert found == wanted


def test_the_cut_moves_only_after_reset(model: Model) -> None:
    payload = sequence(model, 4, 1)[0]
    bound = model.bind(payload)
    with Runner(model) as runner:
        first = runner.run(0, model.n, bound, "a")[0]
        with pytest.raises(CutError, match=r"its cut can't move until reset\(\)"):
            runner.run(0, next(cut for cut in model.cuts if 0 < cut < model.n), bound, "a")
        runner.reset("a")
        again = runner.run(0, model.n, bound, "a")[0]
        assert [a.tobytes() for a in again.values()] == [a.tobytes() for a in first.values()]


def test_a_duplicate_does_not_run_again(model: Model) -> None:
    """A retry and a hedge are the same frame: it is answered, and the state goes on by one step only."""
    inputs = sequence(model, 5, 6)
    wanted = whole(model, inputs)
    runs = 0
    with EdgeService([model]) as service:

        def twice(frame: bytes) -> bytes:
            nonlocal runs
            runs += 1
            first = service.handle(frame, peer="a")
            assert service.handle(frame, peer="a") == first
            return first

        device = Device(model, InMemory(twice), policy=Fixed(0), profile=profile_of(model), cache=False)
        with device:
            assert [plain(model, device.run(payload).unwrap()) for payload in inputs] == wanted
    assert runs >= len(inputs)


def test_the_bound_on_owners() -> None:
    model = load_model(networks.svdf())
    bound = model.bind(sequence(model, 6, 1)[0])
    with pytest.raises(ValueError, match="max_owners must be >= 1"):
        Runner(model, max_owners=0)
    with Runner(model, max_owners=2) as runner:
        for owner in "abac":  # b was used longest ago
            runner.run(0, model.n, bound, owner)
            assert runner.opened <= 2
        with pytest.raises(StateLost, match="the state of 'b' was evicted: 2 owners may have one") as caught:
            runner.run(0, model.n, bound, "b")
        assert isinstance(caught.value, Overloaded)
        runner.run(0, model.n, bound, "a")
        runner.reset("b")
        runner.run(0, model.n, bound, "b")
        with pytest.raises(StateLost):
            runner.run(0, model.n, bound, "c")


def test_a_request_of_nobody_is_refused() -> None:
    """The protocol's own order: what comes without the requests before it has no state here."""
    model = load_model(networks.svdf())
    from tests.session.support import read

    with EdgeService([model]) as service:
        bound = model.bind(sequence(model, 7, 1)[0])
        answer = read(service.handle(request_of(model, 0, bound, sequence=5, order=4), peer="a"))
        assert answer.code == "state-lost"
