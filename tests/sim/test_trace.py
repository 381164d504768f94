"""Logs: what is written is what is read, whatever happens to the files between."""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import splitiot as si
from splitiot.cost import Costs, Power
from splitiot.errors import TraceError
from splitiot.observation import EdgeTimes, Observation
from splitiot.plan import Plan
from splitiot.policies import Decision, Fixed, LeastLatency
from splitiot.recorder import Recorder
from splitiot.sim import Trace, TraceWriter, load_trace
from splitiot.sim._trace_lines import live, plain
from splitiot.sim.trace import ObservationEvent, PlanEvent
from splitiot.topology import Link, TierProfile, Topology
from tests.sim.logs import logged, texts, wander
from tests.test_planner import make, run

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
MAYBE = st.none() | NUMBERS
TIMES = st.builds(EdgeTimes, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
IDS = st.integers(0, 2**62)
OBSERVATIONS = st.builds(
    Observation,
    plan_id=IDS,
    cut=st.integers(0, 3),
    head_s=MAYBE,
    tail_s=MAYBE,
    local_s=MAYBE,
    edge=st.none() | TIMES,
    round_trip_s=MAYBE,
    sent_bytes=st.integers(-5, 2**40),
    received_bytes=st.integers(0, 2**40),
    censored=st.booleans(),
    retransmitted=st.booleans(),
    probe=st.booleans(),
)
VALUES = st.booleans() | st.integers(-(2**53), 2**53) | NUMBERS
TELEMETRY = st.none() | st.dictionaries(st.text(max_size=5), VALUES, max_size=3)


class Heard(Recorder):
    """Keeps what it is told, and hands it on to a writer."""

    def __init__(self, writer: TraceWriter) -> None:
        self.writer = writer
        self.plans: list[tuple[Plan, float, dict[str, Any]]] = []
        self.observations: list[tuple[Observation, float]] = []

    def began(self, planner: Any) -> None:
        self.writer.began(planner)

    def planned(self, plan: Plan, now_s: float, **asked: Any) -> None:
        self.plans.append((plan, now_s, asked))
        self.writer.planned(plan, now_s, **asked)

    def observed(self, observation: Observation, now_s: float) -> None:
        self.observations.append((observation, now_s))
        self.writer.observed(observation, now_s)


def same(a: object, b: object) -> bool:
    """Equal, where NaN equals NaN and 1 does not equal True; a zero's sign says nothing about times."""
    one, other = (repr(msgspec.to_builtins(x)).replace("-0.0", "0.0") for x in (a, b))
    return one == other


def assert_same_plan(read: PlanEvent, plan: Plan, now_s: float, asked: dict[str, Any]) -> None:
    assert (read.id, read.now_s, read.row, read.cut) == (plan.id, now_s, plan.row, plan.cut)
    assert (read.why, read.probe) == (plan.why, plan.probe)
    assert same(read.propensity, plan.propensity)
    assert same(read.latency_s, plan.latency_s)
    assert read.costs.tobytes() == plan.costs.values(plan.objective).tobytes()
    assert read.mask.tolist() == plan.costs.mask.tolist()
    assert read.beliefs.tolist() == plan.costs.beliefs.tolist()
    assert same(read.deadline_s, asked["deadline_s"])
    assert same(read.telemetry, asked["telemetry"])
    assert read.edge_up == asked["edge_up"]


@given(st.lists(st.tuples(OBSERVATIONS, NUMBERS), max_size=5))
def test_observations_are_read_as_they_were_given(given: list[tuple[Observation, float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        with TraceWriter(path) as writer:
            writer.began(make())
            for observation, now_s in given:
                writer.observed(observation, now_s)
        read = load_trace(path)
        json.loads(path.read_text().splitlines()[-1], parse_constant=pytest.fail)  # no NaN that JSON does not have
    assert same([(o.observation, o.now_s) for o in read.observations], given)
    assert read.plans == ()


@given(TELEMETRY, MAYBE, NUMBERS, st.text(max_size=20), st.booleans(), NUMBERS)
def test_plans_are_read_as_they_were_made(
    telemetry: Any, deadline_s: Any, now_s: float, why: str, probe: bool, propensity: float
) -> None:
    def odd(costs: Costs) -> Any:
        return np.array([math.nan, math.inf, -math.inf, 1.5])

    planner = make(mbit_per_s=20)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        with TraceWriter(path) as writer:
            writer.began(planner)
            asked = {"deadline_s": deadline_s, "telemetry": telemetry, "edge_up": False}
            plan = Plan(5, Decision(2, why, probe, propensity), planner.costs, odd)
            writer.planned(plan, now_s, **asked)
        (read,) = load_trace(path).plans
    assert read.objective == "odd"
    assert same(read.now_s, now_s)
    assert_same_plan(read, plan, read.now_s, asked)


def test_a_run_is_read_in_its_order(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t") as writer:
        heard = Heard(writer)
        wander(make(mbit_per_s=20, recorder=heard), 40)
    read = load_trace(tmp_path / "t")
    assert read.dropped == 0
    assert len(read.plans) == 40
    for plan, told in zip(read.plans, heard.plans, strict=True):
        assert_same_plan(plan, *told)
    assert [(o.observation, o.now_s) for o in read.observations] == heard.observations
    assert {mask for plan in read.plans for mask in plan.mask.tolist()} == {True, False}  # the edge was down at times
    kinds = [type(e) for e in read.events]
    assert kinds.index(PlanEvent) < kinds.index(ObservationEvent) or read.observations[0].observation.probe


def test_the_header_has_all_that_the_planner_had(tmp_path: Path) -> None:
    power = Power(2.0, 1.0, 0.5, 0.1)
    planner = make(LeastLatency(), objective="energy_j", power=power, seed=7, sink="edge", refused={1: "no"})
    with TraceWriter(tmp_path / "t") as writer:
        writer.began(planner)
    h = load_trace(tmp_path / "t").header
    assert (h.splitiot, h.digest, h.n, h.cuts) == (si.__version__, planner.pipeline.digest, 3, (0, 2, 3))
    assert h.sent_bytes == (100_000, 5_000, 100)
    assert h.returned_bytes == (0, 0, 0)
    assert (h.sink, h.stateful, h.objective, h.power, h.policy) == ("edge", False, "energy_j", power, "LeastLatency()")
    assert h.link == planner.topology.links[0]
    assert [t.to_dict() for t in h.tiers] == [t.to_dict() for t in planner.topology.tiers]
    assert h.state == planner.snapshot()


def test_bytes_that_only_profiles_know_and_links_without_end(tmp_path: Path) -> None:
    pipeline = si.tasks([abs])
    profile = TierProfile.from_steps(pipeline.digest, [0.5], sent_bytes=[10.5, 0], returned_bytes=[0, 0])
    topology = Topology(tiers=[profile, profile], links=[Link(0.0, math.inf, math.inf)])
    with TraceWriter(tmp_path / "t") as writer:
        si.Planner(pipeline, topology, recorder=writer).decide(0.0)
    read = load_trace(tmp_path / "t")
    assert read.header.sent_bytes == (None, 0)
    assert read.header.link == Link(0.0, math.inf, math.inf)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t") as writer:
        planner = make(recorder=writer)
        telemetry: Any = {"a": np.float32(0.5), "b": np.int64(3), "c": np.float32("nan"), "d": np.bool_(True)}
        planner.decide(np.float64(1.5), telemetry=telemetry, deadline_s=np.float64(0.25))
        planner.observe(Observation(plan_id=1, cut=1, head_s=np.float64(0.125)), now_s=np.float64(2.0))
    read = load_trace(tmp_path / "t")
    assert (read.plans[0].now_s, read.plans[0].deadline_s) == (1.5, 0.25)
    assert repr(read.plans[0].telemetry) == "{'a': 0.5, 'b': 3, 'c': nan, 'd': True}"
    assert read.observations[0].observation.head_s == 0.125


class Inner(msgspec.Struct, frozen=True, array_like=True):
    a: float = 0.0
    b: list[int] = msgspec.field(default_factory=list)


class Later(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """As an Observation may look some day."""

    plan_id: int
    inner: Inner | None = None
    words: str = ""
    many: dict[str, float] = msgspec.field(default_factory=dict)


def test_fields_that_observations_may_get() -> None:
    for value in (Later(plan_id=1), Later(plan_id=2, inner=Inner(math.inf, [1]), words="w", many={"x": 1.5})):
        data = json.loads(json.dumps(plain(value), allow_nan=False))
        assert msgspec.convert(live(data, Later), Later) == value
        assert msgspec.convert(live({**data, "unheard of": 1}, Later), Later) == value
    with pytest.raises(TypeError, match="without plan_id"):
        live({}, Later)


# files ----------------------------------------------------------------------------------------------------------


def test_files_are_rotated_and_each_begins_with_a_header(tmp_path: Path) -> None:
    path = tmp_path / "t"
    with TraceWriter(path, max_bytes=3000, keep=100) as writer:
        heard = Heard(writer)
        wander(make(mbit_per_s=20, recorder=heard), 30)
    files = sorted(tmp_path.iterdir())
    assert len(files) > 5
    for file in files:
        first, *rest = file.read_bytes().splitlines()
        assert json.loads(first).keys() == {"header"}
        assert all(json.loads(line).keys() & {"plan", "observation"} for line in rest)
        assert sum(len(line) + 1 for line in [first, *rest[:-1]]) <= max(3000, len(first) + 1)
    read = load_trace(path)
    assert [p.id for p in read.plans] == list(range(1, 31))
    assert [o.observation for o in read.observations] == [o for o, _ in heard.observations]
    assert read.header.state["next_id"] == 1


def test_old_files_are_deleted_and_the_rest_is_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "t"
    with TraceWriter(path, max_bytes=6000, keep=2) as writer:
        wander(make(mbit_per_s=20, recorder=writer), 30)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["t", "t.1", "t.2"]
    ids = [p.id for p in load_trace(path).plans]
    assert 2 < len(ids) < 30
    assert ids == list(range(31 - len(ids), 31))


def test_what_was_there_is_kept_and_is_another_trace(tmp_path: Path) -> None:
    path = tmp_path / "t"
    for requests in (3, 5):
        with TraceWriter(path) as writer:
            wander(make(recorder=writer), requests)
    assert len(load_trace(path).plans) == 5
    assert len(load_trace(tmp_path / "t.1").plans) == 3
    TraceWriter(path).close()  # nothing follows
    TraceWriter(path).close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["t", "t.1", "t.2"]


def test_a_planner_restored_before_its_first_plan(tmp_path: Path) -> None:
    before = make(mbit_per_s=20)
    wander(before, 10)
    with TraceWriter(tmp_path / "t") as writer:
        planner = make(mbit_per_s=20, recorder=writer)
        planner.restore(before.snapshot())
        planner.decide(100.0)
    assert [file.name for file in tmp_path.iterdir()] == ["t"]
    read = load_trace(tmp_path / "t")
    assert read.header.state["next_id"] == 11
    assert [p.id for p in read.plans] == [11]


def test_a_planner_restored_in_mid_run_begins_another_trace(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t") as writer:
        planner = make(mbit_per_s=20, recorder=writer)
        wander(planner, 3)
        planner.restore(planner.snapshot())
        wander(planner, 2, start_s=9.0)
    assert [p.id for p in load_trace(tmp_path / "t").plans] == [4, 5]
    assert [p.id for p in load_trace(tmp_path / "t.1").plans] == [1, 2, 3]


def test_one_writer_serves_one_planner(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with TraceWriter(tmp_path / "t") as writer:
        first = make(recorder=writer)
        second = make(recorder=writer)
        second.decide(0.0)
        first.decide(0.0)
    assert len(load_trace(tmp_path / "t").plans) == 1
    assert "of one planner" in caplog.text


def test_a_closed_writer_ends_the_recording_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = TraceWriter(tmp_path / "t")
    planner = make(recorder=writer)
    planner.decide(0.0)
    writer.close()
    writer.close()
    with caplog.at_level(logging.WARNING):
        assert [planner.decide(float(i)).id for i in range(3)] == [2, 3, 4]
    assert len(caplog.records) == 1
    assert len(load_trace(tmp_path / "t").plans) == 1


def test_what_can_t_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OSError, match="no_such_folder"):
        TraceWriter(tmp_path / "no_such_folder" / "t")
    for options in ({"max_bytes": 0}, {"keep": 0}):
        with pytest.raises(ValueError, match="must be >= 1"):
            TraceWriter(tmp_path / "t", **options)
    assert list(tmp_path.iterdir()) == []
    with TraceWriter(tmp_path / "t") as writer:
        planner = make(recorder=writer)
        assert planner.decide(0.0, telemetry={"battery": object()}).id == 1  # type: ignore[dict-item]
        assert "object has no place in a trace" in caplog.text


def test_every_line_is_there_at_once(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t") as writer:
        planner = make(recorder=writer)
        for i in range(4):
            planner.decide(float(i))
            assert len(load_trace(tmp_path / "t").plans) == i + 1


# what a crash leaves ------------------------------------------------------------------------------------------


def test_a_torn_last_line_is_dropped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    logged(tmp_path, requests=4)
    data = path.read_bytes()
    whole = load_trace(path)
    start = data.rindex(b"\n", 0, -1) + 1
    for end in [*range(start + 1, len(data) - 1, 5), len(data) - 2]:
        path.write_bytes(data[:end])
        read = load_trace(path)
        assert (read.dropped, len(read.events)) == (1, len(whole.events) - 1)
    for end in (len(data) - 1, len(data)):  # only the end of the line is missing; nothing is
        path.write_bytes(data[:end])
        assert (load_trace(path).dropped, len(load_trace(path).events)) == (0, len(whole.events))
    path.write_bytes(data + bytes(500))  # what some file systems leave after a power cut
    assert (load_trace(path).dropped, len(load_trace(path).events)) == (1, len(whole.events))


def test_a_torn_header_leaves_the_older_files(tmp_path: Path) -> None:
    path = tmp_path / "t"
    with TraceWriter(path, max_bytes=3000, keep=100) as writer:
        wander(make(recorder=writer), 10)
    newest = len(path.read_bytes().splitlines()) - 1
    whole = len(load_trace(path).events)
    path.write_bytes(path.read_bytes()[:40])
    read = load_trace(path)
    assert (read.dropped, len(read.events)) == (1, whole - newest)


def test_a_broken_line_elsewhere_is_refused_with_its_number(tmp_path: Path) -> None:
    logged(tmp_path, requests=4)
    path = tmp_path / "trace.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:3], lines[3][:-9], *lines[4:]]) + b"\n")
    with pytest.raises(TraceError, match=r"trace.jsonl, line 4 is no line of a trace"):
        load_trace(path)


def edited(path: Path, number: int, edit: Callable[[dict[str, Any]], object]) -> None:
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    edit(lines[number])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_says_what_to_do(tmp_path: Path, version: object) -> None:
    logged(tmp_path, requests=1)
    path = tmp_path / "trace.jsonl"
    edited(path, 0, lambda line: line["header"].update(format=version, splitiot="9.9", what_is_this=1))
    with pytest.raises(TraceError, match=r"of splitiot 9\.9.*this version reads 1: read it with the version that"):
        load_trace(path)


WRONG: dict[str, tuple[int, Callable[[dict[str, Any]], object]]] = {
    "no profile": (0, lambda line: line["header"]["tiers"].pop()),
    "a broken profile": (0, lambda line: line["header"]["tiers"][0].update(heads_s=[0, -1])),
    "another profile": (0, lambda line: line["header"].update(digest="ab")),
    "n": (0, lambda line: line["header"].update(n=4)),
    "no steps": (0, lambda line: line["header"].update(n=0)),
    "cuts in no order": (0, lambda line: line["header"].update(cuts=[0, 2, 1, 3])),
    "cuts beyond n": (0, lambda line: line["header"].update(cuts=[0, 1, 2, 9])),
    "no cuts": (0, lambda line: line["header"].update(cuts=[], sent_bytes=[], returned_bytes=[])),
    "bytes of other cuts": (0, lambda line: line["header"]["sent_bytes"].pop()),
    "negative bytes": (0, lambda line: line["header"].update(sent_bytes=[-1, 0, 0, 0])),
    "a link that is none": (0, lambda line: line["header"].update(link=[0.1, 0.0, 1.0])),
    "a sink": (0, lambda line: line["header"].update(sink="cloud")),
    "power": (0, lambda line: line["header"].update(power=[1, 2, 3, -1])),
    "costs of other rows": (1, lambda line: line["plan"]["costs"].pop()),
    "a mask of other rows": (1, lambda line: line["plan"].update(mask=[True])),
    "a row that is not there": (1, lambda line: line["plan"].update(row=9)),
    "another cut": (1, lambda line: line["plan"].update(cut=1, row=0)),
    "words for numbers": (1, lambda line: line["plan"]["costs"].__setitem__(0, "nan")),
    "a number for a bool": (1, lambda line: line["plan"].update(probe=1)),
    "telemetry in depth": (1, lambda line: line["plan"].update(telemetry={"a": [1]})),
    "a time that is none": (1, lambda line: line["plan"].update(now_s=None)),
    "a huge id": (1, lambda line: line["plan"].update(id=2**63)),
    "observed nothing": (2, lambda line: line["observation"].update(seen={})),
    "observed words": (2, lambda line: line["observation"]["seen"].update(head_s="long")),
    "observed in depth": (2, lambda line: line["observation"]["seen"].update(edge={"queue_s": [1]})),
    "another kind": (2, lambda line: (line.clear(), line.update(news=1))),
    "a header again": (2, lambda line: (line.clear(), line.update(header={}))),
    "a profile of no tier": (2, lambda line: (line.clear(), line.update(profile={"tier_index": 2, "profile": {}}))),
    "no profile later": (2, lambda line: (line.clear(), line.update(profile={"tier_index": 1, "profile": {}}))),
    "a list": (2, lambda line: (line.clear(), line.update(plan=[]))),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_line_is_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "t"
    with TraceWriter(path) as writer:
        planner = make(recorder=writer)
        planner.observe(run(planner, planner.decide(0.0).id, 2, mbit_per_s=1.0), now_s=1.0)
    number, edit = WRONG[case]
    edited(path, number, edit)
    with pytest.raises(TraceError, match=rf"line {number + 1} "):
        load_trace(path)


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    logged(tmp_path, requests=1)
    path = tmp_path / "trace.jsonl"
    deep = b'{"observation": {"now_s": 1, "seen": {"plan_id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}}\n"
    path.write_bytes(path.read_bytes() + deep + b"{}\n")
    with pytest.raises(TraceError):
        load_trace(path)


@pytest.mark.parametrize("contents", [b"", b"\n", b"{}\n", b"hello\n", b'{"plan": null}\n', b"\x00\x01", b"[1]\n"])
def test_what_is_no_trace_is_refused(tmp_path: Path, contents: bytes) -> None:
    (path := tmp_path / "t").write_bytes(contents)
    with pytest.raises(TraceError):
        load_trace(path)


def test_lengths_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged(tmp_path, requests=10)
    path = tmp_path / "trace.jsonl"
    count = len(load_trace(path).events)
    assert len(load_trace(path, max_lines=count).events) == count
    with pytest.raises(TraceError, match="max_lines"):
        load_trace(path, max_lines=count - 1)
    monkeypatch.setattr("splitiot.sim.trace_reader.MAX_LINE_BYTES", len(texts(path)[0]) - 1)
    with pytest.raises(TraceError, match="line 1 is longer"):
        load_trace(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_trace(tmp_path / "nowhere")


# tables -------------------------------------------------------------------------------------------------------


def rows_of(path: Path, *observations: Observation, cut: int, sink: si.pipeline.Sink = "device") -> dict[str, Any]:
    with TraceWriter(path) as writer:
        planner = make(Fixed(cut), mbit_per_s=20, sink=sink, recorder=writer)
        planner.decide(1.0)
        planner.observe(*observations, now_s=2.0)
    (row,) = load_trace(path).to_rows()
    return row


def test_rows_join_plans_and_what_was_measured(tmp_path: Path) -> None:
    times = EdgeTimes(residence_s=0.25, compute_s=0.2)
    late = Observation(plan_id=1, cut=2, edge=times, tail_s=0.2, round_trip_s=0.75, sent_bytes=10, received_bytes=4)
    head = Observation(plan_id=1, cut=2, head_s=0.5)
    other = Observation(plan_id=8, cut=2, head_s=99.0)
    probe = Observation(plan_id=1, cut=2, head_s=99.0, probe=True)
    row = rows_of(tmp_path / "t", other, probe, head, late, cut=2)
    predicted = make(Fixed(2), mbit_per_s=20).decide(0.0).latency_s
    assert row == {
        "plan_id": 1,
        "now_s": 1.0,
        "cut": 2,
        "why": "fixed at cut 2",
        "probe": False,
        "propensity": 1.0,
        "edge_up": True,
        "deadline_s": None,
        "predicted_s": predicted,
        "head_s": 0.5,
        "local_s": None,
        "tail_s": 0.2,
        "network_s": 0.5,
        "total_s": 1.25,
        "sent_bytes": 10,
        "received_bytes": 4,
    }


EXCHANGE = Observation(plan_id=1, cut=2, head_s=0.5, round_trip_s=0.25, edge=EdgeTimes())
BOUND = Observation(plan_id=1, cut=2, round_trip_s=2.0, censored=True)
FINISHED = Observation(plan_id=1, cut=2, head_s=0.5, local_s=1.0)
TOTALS: dict[str, tuple[list[Observation], float | None]] = {
    "nothing": ([], None),
    "an exchange": ([EXCHANGE], 0.75),
    "a bound alone": ([BOUND], None),
    "a bound, then the answer": ([BOUND, EXCHANGE], 0.75),
    "the answer, then a bound": ([EXCHANGE, BOUND], 0.75),
    "waited in vain, finished here": ([BOUND, FINISHED], 3.5),
    "refused at once, finished here": ([FINISHED], 1.5),
    "a hedge was first, the answer is late": ([BOUND, FINISHED, EXCHANGE], 0.75),
    "no head": ([Observation(plan_id=1, cut=2, round_trip_s=0.25)], None),
    "no number": ([Observation(plan_id=1, cut=2, head_s=math.nan, round_trip_s=0.25)], None),
    "never": ([Observation(plan_id=1, cut=2, head_s=0.5, round_trip_s=math.inf)], None),
    "backwards": ([Observation(plan_id=1, cut=2, head_s=0.5, round_trip_s=-0.25)], None),
}


@pytest.mark.parametrize("case", TOTALS)
def test_what_a_plan_took_in_all(tmp_path: Path, case: str) -> None:
    observations, total_s = TOTALS[case]
    assert rows_of(tmp_path / "t", *observations, cut=2)["total_s"] == total_s


def test_what_a_local_plan_took_in_all(tmp_path: Path) -> None:
    seen = Observation(plan_id=1, cut=3, head_s=0.5)
    assert rows_of(tmp_path / "t", seen, cut=3)["total_s"] == 0.5
    assert rows_of(tmp_path / "u", seen, cut=3, sink="edge")["total_s"] is None  # the results were to be sent
    edge = Observation(plan_id=1, cut=0, round_trip_s=0.25)
    assert rows_of(tmp_path / "v", edge, cut=0)["total_s"] == 0.25


def test_nothing_measured_is_none(tmp_path: Path) -> None:
    row = rows_of(tmp_path / "t", cut=2)
    names = ("head_s", "local_s", "tail_s", "network_s", "total_s", "sent_bytes")
    assert [row[name] for name in names] == [None] * len(names)


def test_a_trace_is_reachable_without_a_further_import() -> None:
    assert si.sim.Trace is Trace
