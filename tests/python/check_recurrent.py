"""Holds LSTM, GRU and RNN in all their forms to ONNX Runtime.

Run by `cargo xtask test`. Exits 1 if an answer differs.
"""

import numpy as np

from small_models import Cases

RANDOM = np.random.default_rng(3)
STEPS, BATCH, WIDTH, HIDDEN = 4, 3, 2, 5


def floats(*shape):
    return RANDOM.uniform(-1, 1, shape).astype(np.float32)


def main():
    cases = Cases()
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}
    outputs = {"LSTM": 3, "GRU": 2, "RNN": 2}

    def add(name, operator, directions=1, steps=STEPS, lens=None, state=False, peep=False, bias=True, constants=(), **attributes):
        n = gates[operator] * HIDDEN
        direction = attributes.setdefault("direction", "bidirectional" if directions == 2 else "forward")
        directions = 2 if direction == "bidirectional" else 1
        inputs = [floats(steps, BATCH, WIDTH), floats(directions, n, WIDTH), floats(directions, n, HIDDEN)]
        inputs += [floats(directions, 2 * n) if bias else None]
        inputs += [None if lens is None else np.array(lens, np.int32)]
        inputs += [floats(directions, BATCH, HIDDEN) if state else None]
        if operator == "LSTM":
            inputs += [floats(directions, BATCH, HIDDEN) if state else None]
            inputs += [floats(directions, 3 * HIDDEN) if peep else None]
        constants = (1, 2, 3, 7, *constants)
        while inputs[-1] is None:
            inputs.pop()
        cases.node(name, operator, inputs, outputs[operator], constants, opset=14, hidden_size=HIDDEN, **attributes)

    for operator in gates:
        for direction in ("forward", "reverse", "bidirectional"):
            name = f"{operator}_{direction}".lower()
            add(name, operator, direction=direction)
            add(f"{name}_state", operator, direction=direction, state=True)
            add(f"{name}_lens", operator, direction=direction, state=True, lens=[4, 1, 2])
            add(f"{name}_lens_constant", operator, direction=direction, lens=[2, 4, 3], constants=(4,))
            # Long enough to be a loop.
            add(f"{name}_long", operator, steps=40, direction=direction, state=True)
            add(f"{name}_long_lens", operator, steps=40, direction=direction, state=True, lens=[40, 1, 23])
        add(f"{operator}_no_bias".lower(), operator, bias=False)
        add(f"{operator}_clip".lower(), operator, clip=0.4)
    for lens in (None, [3, 4, 1]):
        more = "" if lens is None else "_lens"
        for before in (0, 1):
            add(f"gru_before_reset_{before}{more}", "GRU", lens=lens, linear_before_reset=before, clip=0.6)
        add(f"lstm_peepholes{more}", "LSTM", peep=True, lens=lens, state=True)
        add(f"lstm_peepholes_both{more}", "LSTM", 2, peep=True, lens=lens)
        add(f"lstm_peepholes_clip{more}", "LSTM", peep=True, lens=lens, clip=0.5)
        add(f"lstm_input_forget{more}", "LSTM", lens=lens, input_forget=1)
    parameters = {
        "Relu": 0,
        "Tanh": 0,
        "Sigmoid": 0,
        "Softsign": 0,
        "Softplus": 0,
        "LeakyRelu": 1,
        "ThresholdedRelu": 1,
        "Elu": 1,
        "Affine": 2,
        "ScaledTanh": 2,
        "HardSigmoid": 2,
    }
    for name, count in parameters.items():
        more = {}
        if count > 0:
            more["activation_alpha"] = [0.35]
        if count > 1:
            more["activation_beta"] = [0.45]
        add(f"rnn_{name}".lower(), "RNN", activations=[name], **more)
    add("lstm_long_peepholes", "LSTM", 2, steps=30, peep=True, lens=[30, 7, 12], clip=0.5)
    add("gru_long_before_reset", "GRU", 2, steps=30, linear_before_reset=1, lens=[30, 7, 12])
    add("rnn_defaults", "RNN", activations=["LeakyRelu"])
    add("rnn_both", "RNN", 2, activations=["LeakyRelu", "Affine"], activation_alpha=[0.3, 0.7], activation_beta=[0.2])
    add("gru_activations", "GRU", activations=["HardSigmoid", "Softsign"], activation_alpha=[0.25], activation_beta=[0.4])
    add("gru_both", "GRU", 2, activations=["Sigmoid", "Relu", "HardSigmoid", "Elu"], activation_alpha=[0.3, 0.6], activation_beta=[0.5])
    add("lstm_activations", "LSTM", activations=["HardSigmoid", "Elu", "Softsign"], activation_alpha=[0.25, 0.5], activation_beta=[0.4])
    cases.run()


if __name__ == "__main__":
    main()
