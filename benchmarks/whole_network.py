"""A process that imports LiteRT and numpy, runs the whole network, and waits to be looked at."""

from __future__ import annotations

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main() -> None:
    interpreter = Interpreter(model_path=sys.argv[1], num_threads=1)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    array = np.zeros(taken["shape"], taken["dtype"])
    for _ in range(20):
        interpreter.set_tensor(taken["index"], array)
        interpreter.invoke()
        interpreter.get_tensor(given["index"])
    print("ran", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
