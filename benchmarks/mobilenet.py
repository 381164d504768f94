"""MobileNetV2 at its real size, with weights by chance: as .tflite bytes, made with splitiot's own writer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitiot.models.tflite.schema import OPERATORS, TENSOR_TYPES
from splitiot.models.tflite.table import Table
from splitiot.models.tflite.writer import write_model

_RELU6 = 3
# expansion, channels, repeats, stride: table 2 of Sandler et al., "MobileNetV2: Inverted Residuals and Linear
# Bottlenecks", CVPR 2018
_BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_CODES = ("CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED", "SOFTMAX")


class _Net:
    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.buffers = [Table("Buffer")]
        self.tensors: list[Table] = []
        self.operators: list[Table] = []

    def tensor(self, shape: tuple[int, ...], data: NDArray[Any] | None = None) -> int:
        kind = "FLOAT32" if data is None or data.dtype == np.float32 else "INT32"
        fields: dict[str, Any] = {}
        if data is not None:
            self.buffers.append(Table("Buffer", data=np.frombuffer(data.tobytes(), np.uint8)))
            fields["buffer"] = len(self.buffers) - 1
        number = len(self.tensors)
        self.tensors.append(
            Table(
                "Tensor",
                shape=np.array(shape, np.int32),
                type=TENSOR_TYPES.index(kind),
                has_rank=True,
                name=f"t{number}",
                **fields,
            )
        )
        return number

    def weights(self, *shape: int) -> int:
        fan = int(np.prod(shape[1:])) or 1
        return self.tensor(shape, (self.random.normal(0, 1, shape) * np.sqrt(2 / fan)).astype(np.float32))

    def op(self, code: str, inputs: list[int], shape: tuple[int, ...], options: Table) -> int:
        output = self.tensor(shape)
        self.operators.append(
            Table(
                "Operator",
                opcode_index=_CODES.index(code),
                inputs=np.array(inputs, np.int32),
                outputs=np.array([output], np.int32),
                builtin_options=options,
            )
        )
        return output

    def shape(self, x: int) -> tuple[int, ...]:
        return tuple(self.tensors[x]["shape"].tolist())

    def conv(self, x: int, filters: int, size: int, stride: int, activation: int = _RELU6) -> int:
        _, height, width, channels = self.shape(x)
        options = Table("Conv2DOptions", stride_w=stride, stride_h=stride, fused_activation_function=activation)
        inputs = [x, self.weights(filters, size, size, channels), self.weights(filters)]
        return self.op("CONV_2D", inputs, (1, -(-height // stride), -(-width // stride), filters), options)

    def depthwise(self, x: int, stride: int) -> int:
        _, height, width, channels = self.shape(x)
        options = Table(
            "DepthwiseConv2DOptions",
            stride_w=stride,
            stride_h=stride,
            depth_multiplier=1,
            fused_activation_function=_RELU6,
        )
        inputs = [x, self.weights(1, 3, 3, channels), self.weights(channels)]
        return self.op("DEPTHWISE_CONV_2D", inputs, (1, -(-height // stride), -(-width // stride), channels), options)

    def write(self, source: int, result: int) -> bytes:
        codes = [
            Table("OperatorCode", deprecated_builtin_code=number, builtin_code=number, version=1)
            for number in map(OPERATORS.index, _CODES)
        ]
        graph = Table(
            "SubGraph",
            tensors=self.tensors,
            inputs=np.array([source], np.int32),
            outputs=np.array([result], np.int32),
            operators=self.operators,
            name="main",
        )
        return write_model(Table("Model", version=3, operator_codes=codes, subgraphs=[graph], buffers=self.buffers))


def mobilenet_v2(side: int = 224, *, seed: int = 0) -> bytes:
    """Return MobileNetV2 1.0 with float32 weights for `side` x `side` pixels and 1000 classes: 14 MB."""
    net = _Net(seed)
    source = net.tensor((1, side, side, 3))
    x = net.conv(source, 32, 3, 2)
    for expansion, channels, repeats, first_stride in _BLOCKS:
        for index in range(repeats):
            stride = first_stride if index == 0 else 1
            before = x
            if expansion > 1:
                x = net.conv(x, expansion * net.shape(x)[3], 1, 1)
            x = net.conv(net.depthwise(x, stride), channels, 1, 1, activation=0)
            if index > 0:
                x = net.op("ADD", [before, x], net.shape(x), Table("AddOptions"))
    x = net.conv(x, 1280, 1, 1)
    axes = net.tensor((2,), np.array([1, 2], np.int32))
    x = net.op("MEAN", [x, axes], (1, 1280), Table("ReducerOptions", keep_dims=False))
    x = net.op(
        "FULLY_CONNECTED", [x, net.weights(1000, 1280), net.weights(1000)], (1, 1000), Table("FullyConnectedOptions")
    )
    return net.write(source, net.op("SOFTMAX", [x], (1, 1000), Table("SoftmaxOptions", beta=1.0)))
