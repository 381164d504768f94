"""What is known about operators: options, arity, which remember, draw or compute shapes."""

from __future__ import annotations

from typing import Final

from splitiot.models.tflite.schema import BUILTIN_OPTIONS, BUILTIN_OPTIONS2, OPERATORS

__all__ = [
    "ARITY", "BATCHED", "BUILT_IN", "BUILT_INTO_XNNPACK", "CONTROL", "DATA_SHAPED", "ELEMENTWISE", "HASHTABLES",
    "NEEDS_OPTIONS", "OPTIONAL_INPUTS", "OPTIONS", "RANDOM", "RESOURCES", "SHAPE_INPUTS", "SHAPE_READERS",
    "STATE_INPUTS", "SUBGRAPH_FIELDS", "code_set",
]  # fmt: skip


def code_set(text: str) -> frozenset[str]:
    """The operators that a text lists."""
    return frozenset(text.split())


SUBGRAPH_FIELDS: Final = {
    "IfOptions": ("then_subgraph_index", "else_subgraph_index"),
    "WhileOptions": ("cond_subgraph_index", "body_subgraph_index"),
    "CallOptions": ("subgraph",),
    "CallOnceOptions": ("init_subgraph_index",),
    "StablehloReduceOptions": ("body_subgraph_index",),
    "StablehloReduceWindowOptions": ("body_subgraph_index",),
    "StablehloScatterOptions": ("update_computation_subgraph_index",),
    "StablehloSortOptions": ("comparator_subgraph_index",),
    "StablehloWhileOptions": ("cond_subgraph_index", "body_subgraph_index"),
    "StablehloCaseOptions": ("branch_subgraph_indices",),
    "StablehloCustomCallOptions": ("called_computations",),
    "StableHLOCompositeOptions": ("decomposition_subgraph_index",),
}
"""Which fields of an operator's options name subgraphs."""

RANDOM: Final = frozenset({"RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM", "MULTINOMIAL"})
"""Two runs give two results, whatever the inputs are."""

HASHTABLES: Final = frozenset({"HASHTABLE", "HASHTABLE_FIND", "HASHTABLE_IMPORT", "HASHTABLE_SIZE"})
RESOURCES: Final = HASHTABLES | {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"}
"""They work on something that lives in the interpreter."""

BUILT_IN: Final = frozenset({"AudioSpectrogram", "Mfcc", "NumericVerify", "TFLite_Detection_PostProcess"})
"""Custom operators that interpreters bring with them."""

BUILT_INTO_XNNPACK: Final = frozenset({"Convolution2DTransposeBias", "MaxPoolingWithArgmax2D", "MaxUnpooling2D"})
"""Custom operators that only the default kernels know."""

CONTROL: Final = frozenset(
    {"IF", "WHILE", "CALL", "CALL_ONCE", "STABLEHLO_WHILE", "STABLEHLO_CASE", "STABLEHLO_CUSTOM_CALL", "DELEGATE"}
)

UNEVEN: Final = CONTROL | {"NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "WHERE", "UNIQUE"}
"""The values decide how much they work."""

STATE_INPUTS: Final = {
    "SVDF": (4,), "RNN": (4,), "UNIDIRECTIONAL_SEQUENCE_RNN": (4,), "LSTM": (18, 19),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (18, 19), "BIDIRECTIONAL_SEQUENCE_RNN": (4, 8),
    "BIDIRECTIONAL_SEQUENCE_LSTM": (35, 36, 37, 38),
}  # fmt: skip
"""Positions of the inputs that an operator writes to, and finds again in the next run."""


def _options() -> dict[str, str]:
    """By the names: CONV_2D has Conv2DOptions. What is named otherwise is listed."""
    by_key = {name[:-7].lower(): name for name in (*BUILTIN_OPTIONS[1:], *BUILTIN_OPTIONS2[1:])}
    options = {code: by_key[key] for code in OPERATORS if (key := code.replace("_", "").lower()) in by_key}
    reducers = "MEAN SUM REDUCE_PROD REDUCE_MAX REDUCE_MIN REDUCE_ANY REDUCE_ALL"
    options |= dict.fromkeys(reducers.split(), "ReducerOptions")
    options |= dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"), "Pool2DOptions")
    options |= dict.fromkeys(("MAXIMUM", "MINIMUM"), "MaximumMinimumOptions")
    options |= dict.fromkeys(RANDOM, "RandomOptions")
    options |= dict.fromkeys(("CONV_3D", "CONV_3D_TRANSPOSE"), "Conv3DOptions")
    options["UNIDIRECTIONAL_SEQUENCE_RNN"] = "SequenceRNNOptions"
    options["L2_NORMALIZATION"] = "L2NormOptions"
    options.pop("REDUCE_WINDOW", None)
    return options


OPTIONS: Final = _options()
"""The options' table of an operator, where it has one."""

NEEDS_OPTIONS: Final = code_set("""
CONV_2D DEPTHWISE_CONV_2D TRANSPOSE_CONV CONV_3D CONV_3D_TRANSPOSE AVERAGE_POOL_2D MAX_POOL_2D L2_POOL_2D
SPACE_TO_DEPTH DEPTH_TO_SPACE SPLIT SPLIT_V UNPACK PACK IF WHILE CALL CALL_ONCE VAR_HANDLE HASHTABLE SVDF LSTM
UNIDIRECTIONAL_SEQUENCE_LSTM BIDIRECTIONAL_SEQUENCE_LSTM STABLEHLO_WHILE STABLEHLO_CASE STABLEHLO_COMPOSITE
STABLEHLO_REDUCE STABLEHLO_SCATTER STABLEHLO_SORT STABLEHLO_REDUCE_WINDOW STABLEHLO_GATHER
""")
"""Operators whose options' defaults (strides of 0, subgraph 0) make no sense."""

_ARITY = """
1 1 1 1  RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1 LOGISTIC TANH SOFTMAX LOG_SOFTMAX ABS EXP LOG SIN COS SQRT RSQRT SQUARE NEG
1 1 1 1  FLOOR CEIL ROUND ELU GELU LEAKY_RELU HARD_SWISH DEQUANTIZE QUANTIZE CAST SHAPE RANK ZEROS_LIKE LOGICAL_NOT
1 1 1 1  AVERAGE_POOL_2D MAX_POOL_2D L2_POOL_2D L2_NORMALIZATION LOCAL_RESPONSE_NORMALIZATION SPACE_TO_DEPTH
1 1 1 1  DEPTH_TO_SPACE SQUEEZE WHERE DENSIFY FAKE_QUANT REAL IMAG COMPLEX_ABS SIGN BITCAST MATRIX_DIAG BUCKETIZE
1 1 1 1  READ_VARIABLE
2 2 1 1  ADD SUB MUL DIV MAXIMUM MINIMUM POW SQUARED_DIFFERENCE FLOOR_DIV FLOOR_MOD ATAN2 PRELU LESS LESS_EQUAL GREATER
2 2 1 1  GREATER_EQUAL EQUAL NOT_EQUAL LOGICAL_AND LOGICAL_OR BITWISE_XOR RIGHT_SHIFT GATHER GATHER_ND MEAN SUM
2 2 1 1  REDUCE_PROD REDUCE_MAX REDUCE_MIN REDUCE_ANY REDUCE_ALL PAD MIRROR_PAD TRANSPOSE EXPAND_DIMS ARG_MAX ARG_MIN
2 2 1 1  BATCH_MATMUL TILE FILL BROADCAST_TO BROADCAST_ARGS RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2
2 2 1 1  REVERSE_SEQUENCE CUMSUM EMBEDDING_LOOKUP SEGMENT_SUM RFFT2D MATRIX_SET_DIAG
1 2 1 1  RESHAPE
3 3 1 1  SLICE SELECT SELECT_V2 BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND PADV2 SCATTER_ND RANGE DYNAMIC_UPDATE_SLICE
3 3 1 1  UNSORTED_SEGMENT_SUM UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_MIN UNSORTED_SEGMENT_PROD HASHTABLE_FIND
4 4 1 1  STRIDED_SLICE ONE_HOT SPARSE_TO_DENSE
2 3 1 1  CONV_2D CONV_3D FULLY_CONNECTED
2 3 1 1  DEPTHWISE_CONV_2D
3 4 1 1  TRANSPOSE_CONV CONV_3D_TRANSPOSE
1 * 1 1  CONCATENATION PACK ADD_N
2 2 1 *  SPLIT
3 3 1 *  SPLIT_V
1 1 1 *  UNPACK
2 2 2 2  TOPK_V2
1 1 2 2  UNIQUE
5 5 2 2  NON_MAX_SUPPRESSION_V4
6 6 3 3  NON_MAX_SUPPRESSION_V5
5 5 1 1  SVDF RNN UNIDIRECTIONAL_SEQUENCE_RNN
20 24 1 1  UNIDIRECTIONAL_SEQUENCE_LSTM
1 * 0 *  IF
1 * 1 *  WHILE
0 0 0 0  CALL_ONCE
0 0 1 1  VAR_HANDLE HASHTABLE
2 2 0 0  ASSIGN_VARIABLE
3 3 0 0  HASHTABLE_IMPORT
1 1 1 1  HASHTABLE_SIZE RANDOM_STANDARD_NORMAL RANDOM_UNIFORM
2 2 1 1  MULTINOMIAL
"""


def _arity() -> dict[str, tuple[int, int, int, int]]:
    arity: dict[str, tuple[int, int, int, int]] = {}
    for line in _ARITY.strip().splitlines():
        low, high, least, most, *codes = line.split()
        bounds = int(low), _bound(high), int(least), _bound(most)
        arity |= dict.fromkeys(codes, bounds)
    return arity


def _bound(word: str) -> int:
    return 1 << 31 if word == "*" else int(word)


ARITY: Final = _arity()
"""Least and most inputs, least and most outputs."""

OPTIONAL_INPUTS: Final[dict[str, tuple[int, ...]]] = {
    "CONV_2D": (2,), "DEPTHWISE_CONV_2D": (2,), "CONV_3D": (2,), "FULLY_CONNECTED": (2,), "TRANSPOSE_CONV": (3,),
    "CONV_3D_TRANSPOSE": (3,), "SVDF": (3,),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (1, 5, 9, 10, 11, 12, 16, 17, 20, 21, 22, 23),
}  # fmt: skip
"""Positions of the inputs that an operator of known arity can do without: the others' kernels follow -1 blindly."""

SHAPE_INPUTS: Final[dict[str, tuple[int, ...]]] = {
    "RESHAPE": (1,), "FILL": (0,), "BROADCAST_TO": (1,), "TILE": (1,), "RANGE": (0, 1, 2), "SLICE": (1, 2),
    "STRIDED_SLICE": (1, 2, 3), "PAD": (1,), "PADV2": (1,), "MIRROR_PAD": (1,), "SPACE_TO_BATCH_ND": (1, 2),
    "BATCH_TO_SPACE_ND": (1, 2), "TRANSPOSE": (1,), "RESIZE_BILINEAR": (1,), "RESIZE_NEAREST_NEIGHBOR": (1,),
    "TRANSPOSE_CONV": (0,), "CONV_3D_TRANSPOSE": (0,), "EXPAND_DIMS": (1,), "MEAN": (1,), "SUM": (1,),
    "REDUCE_PROD": (1,), "REDUCE_MAX": (1,), "REDUCE_MIN": (1,), "REDUCE_ANY": (1,), "REDUCE_ALL": (1,),
    "ARG_MAX": (1,), "ARG_MIN": (1,), "ONE_HOT": (1,), "SPARSE_TO_DENSE": (1,), "SCATTER_ND": (2,), "TOPK_V2": (1,),
    "MULTINOMIAL": (1,), "RANDOM_UNIFORM": (0,), "RANDOM_STANDARD_NORMAL": (0,), "SPLIT": (0,), "SPLIT_V": (1, 2),
    "RFFT2D": (1,), "SEGMENT_SUM": (1,), "UNSORTED_SEGMENT_SUM": (2,), "UNSORTED_SEGMENT_MAX": (2,),
    "UNSORTED_SEGMENT_MIN": (2,), "UNSORTED_SEGMENT_PROD": (2,), "NON_MAX_SUPPRESSION_V4": (2,),
    "NON_MAX_SUPPRESSION_V5": (2,), "EMBEDDING_LOOKUP_SPARSE": (2,), "DILATE": (1,), "REDUCE_WINDOW": (2, 3, 4, 5),
}  # fmt: skip
"""Positions of the inputs whose *values* decide the outputs' shapes."""

SHAPE_READERS: Final = frozenset({"SHAPE", "RANK", "ZEROS_LIKE"})
"""Their values follow from their inputs' shapes."""

DATA_SHAPED: Final = frozenset(
    {"WHERE", "UNIQUE", "CUSTOM", "IF", "WHILE", "CALL", "STABLEHLO_WHILE", "STABLEHLO_CASE"}
)
"""Unless the file gives a fixed size, their outputs' shapes may follow from the inputs' values."""

BATCHED: Final = code_set("""
ADD SUB MUL DIV MAXIMUM MINIMUM POW SQUARED_DIFFERENCE PRELU RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1 LOGISTIC TANH
SOFTMAX LOG_SOFTMAX ABS EXP LOG SIN COS SQRT RSQRT SQUARE NEG FLOOR CEIL ROUND ELU GELU LEAKY_RELU HARD_SWISH
DEQUANTIZE QUANTIZE CAST AVERAGE_POOL_2D MAX_POOL_2D L2_POOL_2D L2_NORMALIZATION LOCAL_RESPONSE_NORMALIZATION
SPACE_TO_DEPTH DEPTH_TO_SPACE CONV_2D DEPTHWISE_CONV_2D RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR FAKE_QUANT SVDF
LESS LESS_EQUAL GREATER GREATER_EQUAL EQUAL NOT_EQUAL LOGICAL_AND LOGICAL_OR LOGICAL_NOT
""")
"""Operators that keep the first dimension of their inputs, whatever else they do."""

ELEMENTWISE: Final = code_set("""
ADD SUB MUL DIV MAXIMUM MINIMUM POW SQUARED_DIFFERENCE PRELU RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1 LOGISTIC TANH ABS EXP
LOG SIN COS SQRT RSQRT SQUARE NEG FLOOR CEIL ROUND SIGN ELU GELU LEAKY_RELU HARD_SWISH DEQUANTIZE QUANTIZE CAST
""")
"""Operators whose shapes follow from their inputs' alone, element by element."""
