"""A pipeline whose values are arrays with names: what a model and a bundle of its parts have in common."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import numpy as np

from splitiot.errors import CutError, LocalProtocolError, NotCuttable
from splitiot.models._random_input import random_payload
from splitiot.pipeline import Part, Payload, Pipeline, TensorSpec, foreign

__all__ = ["ArrayPipeline", "CuttablePipeline"]

P = TypeVar("P", bound=Part)


class ArrayPipeline(Pipeline):
    """Binds inputs, and divides and joins results, by name.

    Attributes
    ----------
    name : str
    inputs : tuple of TensorSpec
    results : tuple of str
        Names of the results' tensors; one may stand there twice.
    input_names, result_names : mapping of str to str
        What the file's signature calls inputs and results, with the names of their tensors; empty where it has none.
        `run` takes either names, and gives several results by these.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    results: tuple[str, ...]
    input_names: Mapping[str, str] = MappingProxyType({})
    result_names: Mapping[str, str] = MappingProxyType({})

    def _describe(
        self,
        name: str,
        inputs: Sequence[TensorSpec],
        results: Sequence[str],
        input_names: Mapping[str, str] = MappingProxyType({}),
        result_names: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Say what the inputs and the results are; the first thing to do."""
        self.name, self.inputs = name, tuple(inputs)
        self.results = tuple(results)
        alone = len(set(input_names.values())) == len(input_names)  # else one value of two would be dropped
        self.input_names = _sound_names([spec.name for spec in inputs], input_names if alone else {})
        self.result_names = _sound_names(results, result_names)
        # asked for on every request
        self._divisions: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._single_input = None
        if len(self.inputs) == 1 and self.inputs[0].dtype != "bytes":
            (spec,) = self.inputs
            self._single_input = spec.name, np.dtype(spec.dtype), spec.shape

    @property
    def index_limits(self) -> Mapping[str, int]:
        """Inputs that are used as indices, as far as that is known: what their values must be less than."""
        return {}

    def random_input(self, seed: int = 0) -> dict[str, Any]:
        """Make an input that can be run, of random numbers: for measuring and trying, not for judging results.

        Inputs that are used as indices (of words, say) get whole numbers in range, others numbers of their type.

        Parameters
        ----------
        seed : int

        Returns
        -------
        dict of str to array
            By input name, as `run` takes it.

        Raises
        ------
        ModelError
            There are no random values of an input's type (strings).
        """
        return random_payload(self.inputs, np.random.default_rng(seed), self.index_limits)

    @abc.abstractmethod
    def division(self, cut: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of what crosses and of what stays."""

    def bind(self, value: Any) -> Payload:
        """Check what a user gives, and make it a dict of arrays by input name.

        Parameters
        ----------
        value : array, or mapping of str to array
            By the names of the inputs' tensors, or by those that the file's signature has. A model with one input takes
            the array itself as well. Lists and scalars get the input's type; arrays must have it.

        Raises
        ------
        LocalProtocolError
            A name, a type or a shape is wrong.
        """
        if self._single_input is not None and type(value) is np.ndarray:
            name, dtype, shape = self._single_input
            if value.dtype == dtype and value.shape == shape and value.flags.c_contiguous:
                return {name: value}
        names = [spec.name for spec in self.inputs]
        if isinstance(value, Mapping):
            values = value
            if set(value) != set(names):
                if not value or set(value) != set(self.input_names):
                    known = list(self.input_names) or names
                    raise LocalProtocolError(f"{self.name} takes inputs {known}, got {sorted(map(str, value))}")
                values = {tensor: value[name] for name, tensor in self.input_names.items()}
        elif len(names) == 1:
            values = {names[0]: value}
        else:
            raise LocalProtocolError(f"{self.name} has {len(names)} inputs: give a dict with {names}")
        return {spec.name: self._as_array(spec, values[spec.name]) for spec in self.inputs}

    def _as_array(self, spec: TensorSpec, value: Any) -> Any:
        dtype = np.dtype(spec.dtype)
        given = isinstance(value, np.ndarray)
        if why := foreign(value):
            raise LocalProtocolError(f"input {spec.name!r} of {self.name}: {why}")
        if spec.dtype == "bytes":  # strings: as long as they are
            array = np.asarray(value)
            fits = array.dtype.kind in "SOU"
        else:
            try:
                array = value if given else np.asarray(value, dtype)
            except (TypeError, ValueError, OverflowError) as error:
                raise LocalProtocolError(f"input {spec.name!r} of {self.name}: {error}") from error
            fits = array.dtype.name == spec.dtype
        if not fits or array.shape != spec.shape:
            raise LocalProtocolError(
                f"input {spec.name!r} of {self.name} is {array.dtype.name}{list(array.shape)}, "
                f"expected {spec.dtype}{list(spec.shape)}"
            )
        return array if spec.dtype == "bytes" else np.asarray(array, dtype, order="C")

    def divide(self, cut: int, payload: Payload) -> tuple[Payload, Payload]:
        names = self._divisions.get(cut)
        if names is None:
            names = self._divisions[cut] = self.division(self.check_cut(cut))
        sent, kept = names
        if not kept and len(sent) == len(payload):
            return payload, {}
        return {name: payload[name] for name in sent}, {name: payload[name] for name in kept}

    def join(self, kept: Payload, returned: Payload) -> Any:
        results = {**kept, **returned} if kept and returned else kept or returned
        names = self.results
        if len(names) == 1:
            return results[names[0]]
        if self.result_names:
            return {name: results[tensor] for name, tensor in self.result_names.items()}
        return {name: results[name] for name in names}


class CuttablePipeline(ArrayPipeline, Generic[P]):
    """What `Model` and `LayerPipeline` are: pipelines whose parts are made as they are asked for.

    Attributes
    ----------
    warnings : tuple of str
        What to know before cutting.
    """

    warnings: tuple[str, ...] = ()

    def _checked_cut(self, cut: int) -> int:
        cut = self.check_cut(cut)
        if cut in self.refused:
            raise NotCuttable(f"{self.name} can't be cut at {cut}: {self.refused[cut]}")
        return cut

    def _checked_ends(self, start: int, stop: int) -> tuple[int, int]:
        """Check where a part begins and ends."""
        start, stop = self.check_cut(start), self.check_cut(stop)
        if stop < start:
            raise CutError(f"a part's stop {stop} lies before its start {start}")
        for cut in (start, stop):
            if 0 < cut < self.n:
                self._checked_cut(cut)
        return start, stop

    @abc.abstractmethod
    def part(self, start: int, stop: int) -> P:
        """Steps [start, stop).

        Raises
        ------
        CutError
            There is no such part.
        NotCuttable
            One end is neither 0 nor n nor a legal cut.
        """

    def split(self, cut: int) -> tuple[P, P]:
        """Cut in two: the head, steps [0, cut), and the tail, steps [cut, n)."""
        cut = self._checked_cut(cut)
        return self.part(0, cut), self.part(cut, self.n)


def _sound_names(tensors: Sequence[str], names: Mapping[str, str]) -> Mapping[str, str]:
    """Return the names, if they say which tensor is meant: each has one, and none is another one's."""
    sound = set(names.values()) == set(tensors) and all(
        name == tensor or name not in tensors for name, tensor in names.items()
    )
    return MappingProxyType(dict(names)) if sound else MappingProxyType({})
