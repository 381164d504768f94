from __future__ import annotations

import splitiot as si
from splitiot.models.keras.layer_names import layer_names, layers_in


def test_only_what_looks_like_keras_is_taken_for_a_layer() -> None:
    assert layers_in("functional_1/relu/Relu;functional_1/norm/batchnorm/add_1;functional_1/conv/Conv2D") == (
        "relu",
        "norm",
        "conv",
    )
    assert layers_in("sequential/dense/MatMul;sequential/dense/BiasAdd") == ("dense",)
    assert layers_in("model/dense/MatMul") == ("dense",)
    for other in ("StatefulPartitionedCall:0", "Identity", "while/body/add", "functional_1/strided_slice", "", "a;b"):
        assert layers_in(other) == (), other
    assert layers_in("detector/conv/Relu") == ()
    assert layers_in("detector/conv/Relu", "detector") == ("conv",)


def test_functions_around_a_network_have_no_layers() -> None:
    def conv(x: object) -> object:
        return x

    model = si.load_model(si.samples.fomo())
    names = layer_names(si.tasks([conv]) + model + si.tasks([conv]))
    assert names[0] == names[-1] == ()
    assert names[1:-1] == layer_names(model)
    assert names[1] == ("Conv1_relu_1", "bn_Conv1_1", "Conv1_1")
    assert names[-2] == ()  # called PartitionedCall:0 in the file
