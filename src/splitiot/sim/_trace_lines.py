"""Lines of a trace: what may stand in them, and how they become values."""

from __future__ import annotations

import functools
import itertools
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from splitiot.cost import Power
from splitiot.errors import TraceError
from splitiot.observation import Observation
from splitiot.sim.trace import Event, Header, ObservationEvent, PlanEvent, ProfileEvent
from splitiot.topology import Link, TierProfile

__all__ = ["FORMAT", "Line", "decode", "event", "header", "live", "plain", "plain_values"]

FORMAT: Final = 1
"""A reader takes its own only."""

_MAX_ROWS: Final = 100_000
_TOKENS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


# between values and what JSON can hold ----------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: structs by names, without what is at its default; no NaN and no inf."""
    if isinstance(value, float | np.floating):
        number = float(value)
        return number if math.isfinite(number) else "NaN" if number != number else f"{'-' * (number < 0)}Infinity"
    if isinstance(value, msgspec.Struct):
        fields = {}
        for name, default in _defaults(type(value)):
            held = getattr(value, name)
            if held is not default and held != default:
                fields[name] = plain(held)
        return fields
    return value


def plain_values(telemetry: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return telemetry as JSON can hold it."""
    return None if telemetry is None else {name: plain(value) for name, value in telemetry.items()}


@functools.cache
def _defaults(kind: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    """Return the names of a struct's fields with their defaults; what has no plain one equals nothing."""
    return tuple((f.name, f.default) for f in msgspec.structs.fields(kind))


def _number(value: float | str) -> float:
    return _TOKENS[value] if isinstance(value, str) else value


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[msgspec.structs.FieldInfo, type[msgspec.Struct] | None], ...]:
    """Return a struct's fields, each with the struct that it may hold."""
    hints = typing.get_type_hints(kind)
    return tuple((f, _struct_in(hints[f.name])) for f in msgspec.structs.fields(kind))


def _struct_in(hint: Any) -> type[msgspec.Struct] | None:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, msgspec.Struct)), None)


def live(data: dict[str, Any], kind: type[msgspec.Struct]) -> list[Any]:
    """Return what `plain` made of a struct that is an array, as `msgspec.convert` takes it."""
    values = []
    for f, inner in _fields(kind):
        value = data.get(f.name, f.default)
        if value is msgspec.NODEFAULT:
            if f.default_factory is msgspec.NODEFAULT:
                raise TypeError(f"{kind.__name__} without {f.name}")
            value = f.default_factory()
        elif isinstance(value, dict) and inner is not None:
            value = live(value, inner)
        elif isinstance(value, str):
            value = _TOKENS.get(value, value)
        values.append(value)
    return values


# lines ------------------------------------------------------------------------------------------------------

# What a line may hold. Unknown names are passed over: a later splitiot may say more.
_Number: TypeAlias = float | Literal["NaN", "Infinity", "-Infinity"]
_Numbers: TypeAlias = Annotated[list[_Number], Meta(max_length=_MAX_ROWS)]
_Word: TypeAlias = Annotated[str, Meta(max_length=100_000)]
_Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**62)]
_Sizes: TypeAlias = Annotated[list[_Count | None], Meta(max_length=_MAX_ROWS)]


class _Header(msgspec.Struct):
    splitiot: _Word
    run: _Word
    digest: _Word
    n: Annotated[int, Meta(ge=1, le=_MAX_ROWS)]
    cuts: Annotated[list[_Count], Meta(min_length=1, max_length=_MAX_ROWS)]
    sent_bytes: _Sizes
    returned_bytes: _Sizes
    sink: Literal["device", "edge"]
    stateful: bool
    tiers: Annotated[list[dict[str, Any]], Meta(min_length=2, max_length=2)]
    link: Annotated[list[_Number], Meta(min_length=3, max_length=3)]
    objective: _Word
    power: Annotated[list[float], Meta(min_length=4, max_length=4)] | None
    policy: _Word
    state: dict[str, Any]


class _Plan(msgspec.Struct):
    id: _Count
    now_s: _Number
    row: _Count
    cut: _Count
    why: _Word
    probe: bool
    propensity: _Number
    objective: _Word
    latency_s: _Number
    costs: _Numbers
    mask: Annotated[list[bool], Meta(max_length=_MAX_ROWS)] | None
    beliefs: _Numbers
    deadline_s: _Number | None
    telemetry: dict[str, bool | int | float | str | None] | None
    edge_up: bool


class _Observation(msgspec.Struct):
    now_s: _Number
    seen: dict[str, Any]


class _Profile(msgspec.Struct):
    tier_index: Literal[0, 1]
    profile: dict[str, Any]


class Line(msgspec.Struct):
    """One of these."""

    header: dict[str, Any] | None = None
    plan: _Plan | None = None
    observation: _Observation | None = None
    profile: _Profile | None = None


decode: Final = msgspec.json.Decoder(Line).decode
"""Bytes to `Line`."""


def header(peek: dict[str, Any]) -> Header:
    """Make a header of what its line holds."""
    if peek.get("format") != FORMAT:
        raise TraceError(
            f"this trace has format {peek.get('format')!r} (of splitiot {peek.get('splitiot')}), this version reads "
            f"{FORMAT}: read it with the version that wrote it, or record again"
        )
    h = msgspec.convert(peek, _Header)
    rows = len(h.cuts)
    ascending = all(a < b for a, b in itertools.pairwise(h.cuts))
    if not ascending or h.cuts[-1] > h.n or rows != len(h.sent_bytes) or rows != len(h.returned_bytes):
        raise ValueError("cuts must ascend within 0..n, with one number of bytes each")
    device, edge = map(TierProfile.from_dict, h.tiers)
    for tier in (device, edge):
        if tier.digest != h.digest or tier.n != h.n:
            raise ValueError("a profile is of another pipeline")
    return Header(
        splitiot=h.splitiot,
        run=h.run,
        digest=h.digest,
        n=h.n,
        cuts=tuple(h.cuts),
        sent_bytes=tuple(h.sent_bytes),
        returned_bytes=tuple(h.returned_bytes),
        sink=h.sink,
        stateful=h.stateful,
        tiers=(device, edge),
        link=Link(*map(_number, h.link)),
        objective=h.objective,
        power=None if h.power is None else Power(*h.power),
        policy=h.policy,
        state=h.state,
    )


def _planned(p: _Plan, header: Header) -> PlanEvent:
    rows = len(header.cuts)
    if len(p.costs) != rows or (p.mask is not None and len(p.mask) != rows):
        raise ValueError(f"a plan has {len(p.costs)} candidates, the header {rows} cuts")
    if p.row >= rows or header.cuts[p.row] != p.cut:
        raise ValueError(f"row {p.row} is not that of cut {p.cut}")
    mask = np.ones(rows, dtype=np.bool_) if p.mask is None else np.array(p.mask, dtype=np.bool_)
    telemetry = p.telemetry
    if telemetry is not None:
        telemetry = {k: _TOKENS.get(v, v) if isinstance(v, str) else v for k, v in telemetry.items()}
    return PlanEvent(
        id=p.id,
        now_s=_number(p.now_s),
        row=p.row,
        cut=p.cut,
        why=p.why,
        probe=p.probe,
        propensity=_number(p.propensity),
        objective=p.objective,
        latency_s=_number(p.latency_s),
        costs=_numbers(p.costs),
        mask=mask,
        beliefs=_numbers(p.beliefs),
        deadline_s=None if p.deadline_s is None else _number(p.deadline_s),
        telemetry=telemetry,
        edge_up=p.edge_up,
    )


def _numbers(values: Iterable[float | str]) -> NDArray[np.float64]:
    array = np.array([_number(v) for v in values], dtype=np.float64)
    array.flags.writeable = False
    return array


def event(line: Line, header: Header) -> Event:
    """Make the event of a line, under its file's header."""
    if line.plan is not None:
        return _planned(line.plan, header)
    if line.observation is not None:
        observation = msgspec.convert(live(line.observation.seen, Observation), Observation)
        return ObservationEvent(observation, _number(line.observation.now_s))
    if line.profile is not None:
        profile = TierProfile.from_dict(line.profile.profile)
        if profile.digest != header.digest or profile.n != header.n:
            raise ValueError("a profile is of another pipeline")
        return ProfileEvent(line.profile.tier_index, profile)
    raise ValueError("neither a plan nor an observation nor a profile")
