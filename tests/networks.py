"""Small real networks as .tflite bytes, made with our own writer: no TensorFlow, no files.

Each function gives one network with something that splitting must get right or must refuse. Weights are seeded:
the same function gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from splitiot.models.tflite.schema import OPERATORS, TENSOR_TYPES
from splitiot.models.tflite.table import Table, TableType, table_type
from splitiot.models.tflite.writer import write_model

Shape = Sequence[int]
IMAGE = (1, 6, 6, 2)


class Net:
    """Builds one file. Tensors are numbers; operators are appended in the order of the calls."""

    def __init__(self, *, seed: int = 0, parent: Net | None = None, name: str = "main") -> None:
        self.random = np.random.default_rng(seed) if parent is None else parent.random
        self.root = parent or self
        self.tensors: list[Table] = []
        self.operators: list[Table] = []
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self.name = name
        if parent is None:
            self.graphs = [self]
            self.buffers = [Table("Buffer")]
            self.codes: dict[tuple[str, str | None], int] = {}
        else:
            parent.graphs.append(self)
        self.index = len(self.root.graphs) - 1

    def subgraph(self, name: str) -> Net:
        return Net(parent=self.root, name=name)

    def tensor(
        self,
        shape: Shape,
        kind: str = "FLOAT32",
        name: str | None = None,
        *,
        scale: float | Sequence[float] | None = None,
        zero_point: int = 0,
        axis: int = 0,
        data: np.ndarray[Any, Any] | bytes | None = None,
        **fields: Any,
    ) -> int:
        if name is None:
            name = f"t{len(self.tensors)}" if self is self.root else f"{self.name}_t{len(self.tensors)}"
        if data is not None:
            raw = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
            self.root.buffers.append(Table("Buffer", data=np.frombuffer(raw, np.uint8)))
            fields["buffer"] = len(self.root.buffers) - 1
        if scale is not None:
            scales = np.atleast_1d(np.array(scale, np.float32))
            fields["quantization"] = Table(
                "QuantizationParameters",
                scale=scales,
                zero_point=np.full(len(scales), zero_point, np.int64),
                quantized_dimension=axis,
            )
        made = Table(
            "Tensor",
            shape=np.array(shape, np.int32),
            type=TENSOR_TYPES.index(kind),
            has_rank=True,
            **({"name": name} if name else {}),
            **fields,
        )
        self.tensors.append(made)
        return len(self.tensors) - 1

    def input(self, shape: Shape, kind: str = "FLOAT32", name: str | None = None, **fields: Any) -> int:
        self.inputs.append(self.tensor(shape, kind, name or f"in{len(self.inputs)}", **fields))
        return self.inputs[-1]

    def constant(self, values: Any, kind: str = "FLOAT32", **fields: Any) -> int:
        types = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT32": np.int32, "INT8": np.int8, "INT64": np.int64}
        array = np.array(values, types[kind])
        return self.tensor(array.shape, kind, data=array, **fields)

    def weights(self, *shape: int) -> int:
        return self.constant(self.random.normal(0, 0.5, shape))

    def op(
        self,
        code: str,
        inputs: Iterable[int],
        shape: Shape,
        kind: str = "FLOAT32",
        *,
        options: Table | None = None,
        **fields: Any,
    ) -> int:
        output = self.tensor(shape, kind, **fields)
        self.raw_op(code, inputs, [output], options=options)
        return output

    def raw_op(
        self,
        code: str,
        inputs: Iterable[int],
        outputs: Iterable[int],
        *,
        options: Table | None = None,
        custom: str | None = None,
        version: int = 1,
        **fields: Any,
    ) -> None:
        index = self.root.codes.setdefault((code, custom), len(self.root.codes))
        if options is not None:
            fields["builtin_options"] = options
        self.operators.append(
            Table(
                "Operator",
                opcode_index=index,
                inputs=np.array(list(inputs), np.int32),
                outputs=np.array(list(outputs), np.int32),
                **fields,
            )
        )

    # the operators that many networks here need

    def unary(self, code: str, x: int) -> int:
        return self.op(code, [x], self.shape(x))

    def shape(self, x: int) -> tuple[int, ...]:
        return tuple(self.tensors[x]["shape"].tolist())

    def add(self, a: int, b: int) -> int:
        return self.op("ADD", [a, b], self.shape(a), options=Table("AddOptions"))

    def mul(self, a: int, b: int) -> int:
        return self.op("MUL", [a, b], self.shape(a), options=Table("MulOptions"))

    def conv(self, x: int, filters: int, size: int = 3, weights: int | None = None) -> int:
        *space, channels = self.shape(x)
        w = self.weights(filters, size, size, channels) if weights is None else weights
        options = Table("Conv2DOptions", stride_w=1, stride_h=1)  # SAME, no activation
        return self.op("CONV_2D", [x, w, self.weights(filters)], (*space, filters), options=options)

    def dense(self, x: int, units: int) -> int:
        w = self.weights(units, self.shape(x)[-1])
        return self.op("FULLY_CONNECTED", [x, w, -1], (1, units), options=Table("FullyConnectedOptions"))

    def concat(self, parts: Sequence[int], axis: int = 3) -> int:
        shape = list(self.shape(parts[0]))
        shape[axis] = sum(self.shape(p)[axis] for p in parts)
        return self.op("CONCATENATION", parts, shape, options=Table("ConcatenationOptions", axis=axis))

    def split(self, x: int, count: int, axis: int = 3) -> list[int]:
        shape = list(self.shape(x))
        shape[axis] //= count
        outputs = [self.tensor(shape) for _ in range(count)]
        self.raw_op(
            "SPLIT", [self.constant(axis, "INT32"), x], outputs, options=Table("SplitOptions", num_splits=count)
        )
        return outputs

    def half(self, shape: Shape) -> int:
        """Float16 weights behind DEQUANTIZE: an operator that only prepares a constant."""
        stored = self.constant(self.random.normal(0, 0.5, shape), "FLOAT16")
        return self.op("DEQUANTIZE", [stored], shape, options=Table("DequantizeOptions"))

    def table(self, *outputs: int) -> Table:
        self.outputs = list(outputs) or self.outputs
        codes = []
        for name, custom in self.codes:
            number = OPERATORS.index(name)
            fields = {"custom_code": custom} if custom else {}
            codes.append(
                Table(
                    "OperatorCode", deprecated_builtin_code=min(number, 127), builtin_code=number, version=1, **fields
                )
            )
        graphs = [
            Table(
                "SubGraph",
                tensors=g.tensors,
                inputs=np.array(g.inputs, np.int32),
                outputs=np.array(g.outputs, np.int32),
                operators=g.operators,
                name=g.name,
            )
            for g in self.graphs
        ]
        return Table("Model", version=3, operator_codes=codes, subgraphs=graphs, buffers=self.buffers)

    def write(self, *outputs: int) -> bytes:
        return write_model(self.table(*outputs))


# sound networks: every inner cut is legal, unless it says otherwise


def chain() -> bytes:
    """4 steps, one tensor at every cut."""
    net = Net()
    x = net.conv(net.input(IMAGE), 4)
    return net.write(net.unary("LOGISTIC", net.conv(net.unary("RELU", x), 3)))


def skip() -> bytes:
    """5 steps; two tensors cross while the skip is open (cuts 2 and 3)."""
    net = Net()
    a = net.conv(net.input(IMAGE), 4)
    b = net.conv(net.unary("RELU", a), 4)
    return net.write(net.unary("TANH", net.add(b, a)))


def concatenation() -> bytes:
    """5 steps; two branches."""
    net = Net()
    x = net.input(IMAGE)
    a, b = net.conv(x, 3), net.conv(x, 2)
    return net.write(net.conv(net.concat([a, net.unary("RELU", b)]), 2))


def splitting() -> bytes:
    """4 steps, one of which gives two tensors."""
    net = Net()
    a, b = net.split(net.conv(net.input(IMAGE), 4), 2)
    return net.write(net.mul(net.unary("TANH", a), b))


def early_output() -> bytes:
    """5 steps and two results; the first exists from cut 2 on, and is used on."""
    net = Net()
    a = net.unary("TANH", net.conv(net.input(IMAGE), 4))
    b = net.conv(net.unary("RELU", a), 2)
    return net.write(a, net.unary("LOGISTIC", b))


def constant_operator() -> bytes:
    """4 steps of 6 operators: two float16 weights behind DEQUANTIZE, one of them used on both sides."""
    net = Net()
    shared, own = net.half((2, 3, 3, 2)), net.half((2, 3, 3, 2))
    x = net.conv(net.input(IMAGE), 2, weights=shared)
    x = net.conv(net.unary("RELU", x), 2, weights=own)
    return net.write(net.conv(x, 2, weights=shared))


def constant_result() -> bytes:
    """2 steps and two results, one of which no step makes."""
    net = Net()
    x = net.conv(net.input(IMAGE), 2)
    prepared = net.op("CAST", [net.constant([1, 2, 3], "INT32")], (3,), options=Table("CastOptions", in_data_type=2))
    return net.write(prepared, net.unary("RELU", x))


def input_result() -> bytes:
    """2 steps and two results, one of which is the input."""
    net = Net()
    x = net.input(IMAGE)
    return net.write(x, net.unary("RELU", net.conv(x, 2)))


def lookup(*, shift: bool = False, rows: int = 5) -> bytes:
    """Word numbers come as floats and point into a table; with `shift` only those from 100 on are in range."""
    net = Net()
    x = net.input((1, 4), name="words")
    moved = net.add(x, net.constant(np.full((1, 4), -100.0))) if shift else x
    cast = Table("CastOptions", in_data_type=TENSOR_TYPES.index("FLOAT32"), out_data_type=TENSOR_TYPES.index("INT32"))
    flat = net.op("RESHAPE", [moved, net.constant([4], "INT32")], (4,), options=Table("ReshapeOptions", new_shape=[4]))
    found = net.op("CAST", [flat], (4,), "INT32", options=cast)
    y = net.op("GATHER", [net.weights(rows, 3), found], (4, 3), options=Table("GatherOptions", axis=0))
    return net.write(net.unary("LOGISTIC", y))


def two_inputs() -> bytes:
    """4 steps; the second input is needed by the last."""
    net = Net()
    x, y = net.input(IMAGE, name="left"), net.input((1, 6, 6, 3), name="right")
    return net.write(net.add(net.unary("TANH", net.unary("RELU", net.conv(x, 3))), y))


def passthrough() -> bytes:
    """4 steps; the input is needed by the last."""
    net = Net()
    x = net.input(IMAGE)
    return net.write(net.add(net.conv(net.unary("RELU", net.conv(x, 3)), 2), x))


def branches() -> bytes:
    """5 steps; IF with two subgraphs, and a scalar and a bool that cross."""
    net = Net()
    x = net.input((1, 4))
    total = net.op("SUM", [x, net.constant([0, 1], "INT32")], (), options=Table("ReducerOptions"))
    sign = net.op("GREATER", [total, net.constant(0.0)], (), "BOOL", options=Table("GreaterOptions"))
    graphs = []
    for name, code in (("then", "ADD"), ("else", "MUL")):
        sub = net.subgraph(name)
        y = sub.input((1, 4), name=f"{name}_in")
        sub.outputs = [(sub.add if code == "ADD" else sub.mul)(y, sub.constant([[1.0, 2.0, 3.0, 4.0]]))]
        graphs.append(sub.index)
    options = Table("IfOptions", then_subgraph_index=graphs[0], else_subgraph_index=graphs[1])
    chosen = net.op("IF", [sign, net.unary("TANH", x)], (1, 4), options=options)
    return net.write(net.unary("RELU", chosen))


def loop() -> bytes:
    """3 steps; WHILE with two subgraphs."""
    net = Net()
    x = net.unary("TANH", net.input((1, 4)))
    condition, body = net.subgraph("condition"), net.subgraph("body")
    i, _ = condition.input((), "INT32", "ci"), condition.input((1, 4), name="cx")
    condition.outputs = [
        condition.op("LESS", [i, condition.constant(5, "INT32")], (), "BOOL", options=Table("LessOptions"))
    ]
    i, y = body.input((), "INT32", "bi"), body.input((1, 4), name="bx")
    following = body.op("ADD", [i, body.constant(1, "INT32")], (), "INT32", options=Table("AddOptions"))
    body.outputs = [following, body.add(body.mul(y, body.constant(0.5)), body.constant(0.25))]
    i, y = net.tensor((), "INT32"), net.tensor((1, 4))
    options = Table("WhileOptions", cond_subgraph_index=condition.index, body_subgraph_index=body.index)
    net.raw_op("WHILE", [net.constant(0, "INT32"), x], [i, y], options=options)
    return net.write(net.unary("RELU", y))


def bool_mid() -> bytes:
    """3 steps; a BOOL crosses at cut 2, and the input with it."""
    net = Net()
    x = net.input((1, 8))
    half = net.unary("TANH", x)
    mask = net.op("GREATER", [half, net.constant(0.1)], (1, 8), "BOOL", options=Table("GreaterOptions"))
    return net.write(net.op("SELECT_V2", [mask, x, half], (1, 8), options=Table("SelectV2Options")))


def spectrum() -> bytes:
    """3 steps; COMPLEX64 crosses at cut 2."""
    net = Net()
    x = net.unary("TANH", net.input((1, 8, 8)))
    size = net.constant([8, 8], "INT32")
    f = net.op("RFFT2D", [x, size], (1, 8, 5), "COMPLEX64", options=Table("Rfft2dOptions"))
    return net.write(net.op("COMPLEX_ABS", [f], (1, 8, 5)))


def quantised() -> bytes:
    """3 steps of full int8, weights by channel."""
    net = Net()
    x = net.input(IMAGE, "INT8", scale=0.05, zero_point=-3)
    for filters, scale, out in ((4, 0.05, 0.1), (3, 0.1, 0.2)):
        channels = net.shape(x)[-1]
        scales = 0.01 + 0.01 * np.arange(filters)
        values = net.random.integers(-127, 128, (filters, 3, 3, channels))
        w = net.constant(values, "INT8", scale=scales)
        b = net.constant(net.random.integers(-500, 500, filters), "INT32", scale=scale * scales)
        options = Table("Conv2DOptions", stride_w=1, stride_h=1, fused_activation_function=1)
        shape = (*IMAGE[:3], filters)
        x = net.op("CONV_2D", [x, w, b], shape, "INT8", options=options, scale=out, zero_point=-128)
    pool = Table("Pool2DOptions", stride_w=2, stride_h=2, filter_width=2, filter_height=2, padding=1)
    return net.write(net.op("AVERAGE_POOL_2D", [x], (1, 3, 3, 3), "INT8", options=pool, scale=0.2, zero_point=-128))


def hybrid() -> bytes:
    """4 steps; int8 weights, float32 activations."""
    net = Net()
    x = net.input(IMAGE)
    values = net.random.integers(-127, 128, (4, 3, 3, 2))
    w = net.constant(values, "INT8", scale=0.005 + 0.001 * np.arange(4))
    options = Table("Conv2DOptions", stride_w=1, stride_h=1)
    x = net.op("CONV_2D", [x, w, net.weights(4)], (1, 6, 6, 4), options=options)
    x = net.op("RESHAPE", [x, net.constant([1, 144], "INT32")], (1, 144), options=Table("ReshapeOptions"))
    for units, width in ((16, 144), (4, 16)):
        w = net.constant(net.random.integers(-127, 128, (units, width)), "INT8", scale=0.004)
        options = Table("FullyConnectedOptions", asymmetric_quantize_inputs=True)
        x = net.op("FULLY_CONNECTED", [x, w, net.weights(units)], (1, units), options=options)
    return net.write(x)


def sparse() -> bytes:
    """2 steps of 3 operators: weights with their zeros left out, behind DENSIFY."""
    net = Net()
    x = net.input((1, 4))
    values = np.array([1.5, -2.0, 0.5], np.float32)  # [[1.5, 0, 0, 0], [0, 0, -2, 0.5]]
    rows = Table("DimensionMetadata", dense_size=2)
    columns = Table(
        "DimensionMetadata",
        format=1,
        array_segments=Table("Int32Vector", values=np.array([0, 1, 3], np.int32)),
        array_indices=Table("Int32Vector", values=np.array([0, 2, 3], np.int32)),
    )
    sparsity = Table("SparsityParameters", traversal_order=np.array([0, 1], np.int32), dim_metadata=[rows, columns])
    stored = net.tensor((2, 4), data=values, sparsity=sparsity)
    w = net.op("DENSIFY", [stored], (2, 4), options=Table("DensifyOptions"))
    y = net.op("FULLY_CONNECTED", [x, w, -1], (1, 2), options=Table("FullyConnectedOptions"))
    return net.write(net.unary("TANH", y))


def unnamed() -> bytes:
    """3 steps; no tensor has a name."""
    net = Net()
    net.conv(net.input(IMAGE), 3)
    y = net.unary("TANH", net.unary("RELU", len(net.tensors) - 1))
    for tensor in net.tensors:
        del tensor.fields["name"]
    return net.write(y)


def namesakes() -> bytes:
    """3 steps; the two tensors that cross at cut 2 have one name."""
    net = Net()
    x = net.input(IMAGE)
    a, b = net.unary("TANH", x), net.unary("RELU", x)
    for index in (a, b):
        net.tensors[index].fields["name"] = "same"
    return net.write(net.mul(a, b))


def random() -> bytes:
    """3 steps; draws numbers, from a constant shape."""
    net = Net()
    x = net.unary("TANH", net.input((1, 4)))
    options = Table("RandomOptions", seed=7, seed2=11)
    noise = net.op("RANDOM_UNIFORM", [net.constant([1, 4], "INT32")], (1, 4), options=options)
    return net.write(net.add(x, noise))


def batch() -> bytes:
    """5 steps; the batch is open everywhere (-1), and stored as 1."""
    net = Net()
    x = net.conv(net.input(IMAGE), 3)
    shape = net.constant([-1, 108], "INT32")
    y = net.op("RESHAPE", [net.unary("RELU", x), shape], (1, 108), options=Table("ReshapeOptions"))
    y = net.unary("SOFTMAX", net.dense(y, 4))
    net.operators[-1].fields["builtin_options"] = Table("SoftmaxOptions", beta=1.0)
    for tensor in net.tensors:
        if "buffer" not in tensor.fields:
            tensor.fields["shape_signature"] = np.array([-1, *tensor["shape"][1:]], np.int32)
    return net.write(y)


def open_input() -> bytes:
    """3 steps; height and width are open: only an interpreter knows what 6 x 6 becomes."""
    net = Net()
    x = net.input(IMAGE, shape_signature=np.array([1, -1, -1, 2], np.int32))
    pool = Table("Pool2DOptions", stride_w=2, stride_h=2, filter_width=2, filter_height=2, padding=1)
    free = np.array([1, -1, -1, 2], np.int32)
    y = net.op("MAX_POOL_2D", [x], (1, 1, 1, 2), options=pool, shape_signature=free)
    y = net.op("ABS", [y], (1, 1, 1, 2), shape_signature=free)
    return net.write(net.op("TANH", [y], (1, 1, 1, 2), shape_signature=free))


# state: cut, but the cut can't move


def svdf() -> bytes:
    """3 steps; an SVDF remembers in a variable tensor."""
    net = Net()
    x = net.unary("TANH", net.input((1, 4)))
    state = net.tensor((1, 3 * 2), is_variable=True)
    options = Table("SVDFOptions", rank=1)
    y = net.op("SVDF", [x, net.weights(3, 4), net.weights(3, 2), net.weights(3), state], (1, 3), options=options)
    return net.write(net.unary("RELU", y))


def counter() -> bytes:
    """7 steps; a variable, initialised once. Legal: 0, 6, 7."""
    net = Net()
    once = net.subgraph("once")
    handle = Table("VarHandleOptions", container="", shared_name="count")
    resource = once.op("VAR_HANDLE", [], (), "RESOURCE", options=handle)
    once.raw_op(
        "ASSIGN_VARIABLE", [resource, once.constant([[0.0, 0.0, 0.0, 0.0]])], [], options=Table("AssignVariableOptions")
    )
    x = net.input((1, 4))
    net.raw_op("CALL_ONCE", [], [], options=Table("CallOnceOptions", init_subgraph_index=once.index))
    resource = net.op("VAR_HANDLE", [], (), "RESOURCE", options=handle)
    before = net.op("READ_VARIABLE", [resource], (1, 4), options=Table("ReadVariableOptions"))
    after = net.add(before, net.unary("TANH", x))
    net.raw_op("ASSIGN_VARIABLE", [resource, after], [], options=Table("AssignVariableOptions"))
    return net.write(net.unary("RELU", after))


# networks with cuts that must be refused


def where() -> bytes:
    """4 steps; the third's size depends on the data. Legal: 0, 1, 2, 4."""
    net = Net()
    x = net.unary("TANH", net.input((16,)))
    mask = net.op("GREATER", [x, net.constant(0.1)], (16,), "BOOL", options=Table("GreaterOptions"))
    found = net.op(
        "WHERE", [mask], (1, 1), "INT64", options=Table("WhereOptions"), shape_signature=np.array([-1, 1], np.int32)
    )
    total = net.op("SUM", [found, net.constant([0], "INT32")], (1,), "INT64", options=Table("ReducerOptions"))
    return net.write(total)


def int4_mid() -> bytes:
    """3 steps; an INT4 tensor at cut 1, an input that passes beside it."""
    net = Net()
    x = net.input((1, 4))
    packed = net.op("QUANTIZE", [x], (1, 4), "INT4", options=Table("QuantizeOptions"), scale=0.1)
    y = net.op("DEQUANTIZE", [packed], (1, 4), options=Table("DequantizeOptions"))
    return net.write(net.add(y, x))


def string_input() -> bytes:
    """2 steps; strings go in."""
    net = Net()
    x = net.input((3,), "STRING")
    y = net.op("GATHER", [x, net.constant([0, 2], "INT32")], (2,), "STRING", options=Table("GatherOptions"))
    return net.write(net.op("SHAPE", [y], (1,), "INT32", options=Table("ShapeOptions", out_type=2)))


def resource_mid() -> bytes:
    """4 steps around a variable that is only read. Legal: 0, 3 (the variable stays on one side), 4."""
    net = Net()
    once = net.subgraph("once")
    handle = Table("VarHandleOptions", shared_name="v")
    resource = once.op("VAR_HANDLE", [], (), "RESOURCE", options=handle)
    once.raw_op("ASSIGN_VARIABLE", [resource, once.weights(1, 4)], [], options=Table("AssignVariableOptions"))
    x = net.input((1, 4))
    net.raw_op("CALL_ONCE", [], [], options=Table("CallOnceOptions", init_subgraph_index=once.index))
    resource = net.op("VAR_HANDLE", [], (), "RESOURCE", options=handle)
    value = net.op("READ_VARIABLE", [resource], (1, 4), options=Table("ReadVariableOptions"))
    return net.write(net.add(value, x))


def custom() -> bytes:
    """3 steps; one is a custom operator: it can be cut, but not run."""
    net = Net()
    x = net.unary("TANH", net.input((1, 4)))
    y = net.tensor((1, 4))
    net.raw_op("CUSTOM", [x], [y], custom="Wobble", custom_options=np.arange(5, dtype=np.uint8))
    return net.write(net.unary("RELU", y))


# files that must be refused whole


def external_buffer() -> bytes:
    net = Net()
    net.tensors[net.weights(3)].fields["external_buffer"] = 1
    return net.write(net.unary("RELU", net.input((1, 4))))


def disordered() -> bytes:
    net = Net()
    y = net.unary("RELU", net.unary("TANH", net.input((1, 4))))
    net.operators.reverse()
    return net.write(y)


def written_twice() -> bytes:
    net = Net()
    x = net.input((1, 4))
    y = net.unary("TANH", x)
    net.raw_op("RELU", [x], [y])
    return net.write(y)


def unknown_field() -> bytes:
    """The first operator has a field that no schema of today knows."""
    net = Net()
    y = net.unary("RELU", net.unary("TANH", net.input((1, 4))))
    known = table_type("Operator")
    columns = [f"{f.name}:int32" if f is not None else "-" for f in known.fields]
    newer = TableType("Operator", " ".join([*columns, "future:int32"]))
    newer.fields = (*known.fields, newer.fields[-1])
    newer.by_name = {f.name: f for f in newer.fields if f is not None}
    net.operators[0] = Table.of(newer, {**net.operators[0].fields, "future": 1})
    return net.write(y)


SOUND: tuple[Callable[[], bytes], ...] = (
    chain, skip, concatenation, splitting, early_output, constant_operator, constant_result, input_result, two_inputs,
    passthrough, branches, loop, bool_mid, spectrum, quantised, hybrid, sparse, unnamed, namesakes, batch,
)  # fmt: skip
"""Every cut is legal, and exact; no interpreter is asked for anything."""

REFUSED: tuple[Callable[[], bytes], ...] = (external_buffer, disordered, written_twice, unknown_field)
"""Refused by `load_model`."""


@st.composite
def graphs(draw: st.DrawFn, max_steps: int = 10) -> bytes:
    """Random networks: several inputs, results anywhere, skips, concatenation, splits, float16 weights."""
    net = Net(seed=draw(st.integers(0, 9)))
    for _ in range(draw(st.integers(1, 2))):
        net.input((1, 3, 3, draw(st.integers(1, 3))))
    have = list(net.inputs)
    pick = st.deferred(lambda: st.sampled_from(have))
    for _ in range(draw(st.integers(1, max_steps))):
        code = draw(st.sampled_from(["RELU", "TANH", "ADD", "MUL", "CONV", "HALF", "CONCAT", "SPLIT"]))
        x = draw(pick)
        channels = net.shape(x)[-1]
        if code in ("ADD", "MUL"):
            other = draw(st.sampled_from([t for t in have if net.shape(t) == net.shape(x)]))
            have.append(net.add(x, other) if code == "ADD" else net.mul(x, other))
        elif code in ("CONV", "HALF"):
            filters = draw(st.integers(1, 4))
            have.append(net.conv(x, filters, 1, net.half((filters, 1, 1, channels)) if code == "HALF" else None))
        elif code == "CONCAT" and channels < 6:
            have.append(net.concat([x, draw(st.sampled_from([t for t in have if net.shape(t)[-1] < 6]))]))
        elif code == "SPLIT" and channels > 1:
            have += net.split(x, channels)
        else:
            have.append(net.unary("TANH" if code == "TANH" else "RELU", x))
    made = [t for t in have if t not in net.inputs]
    results = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True))
    return net.write(*results)
