"""Holds the operators of `com.microsoft` that exporters and optimisers write to ONNX Runtime, which defines them.

Run by `cargo xtask test`. Exits 1 if an answer differs.
"""

import numpy as np

from small_models import Cases

RANDOM = np.random.default_rng(7)
DOMAIN = "com.microsoft"


def floats(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def erf(x):
    from math import erf

    return np.vectorize(erf)(x).astype(np.float32)


def fused(cases):
    def add(name, operator, inputs, **more):
        cases.node(name, operator, inputs, domain=DOMAIN, **more)

    for activation, parameters in [
        ("Relu", None),
        ("Tanh", None),
        ("Sigmoid", None),
        ("LeakyRelu", [0.2]),
        ("Clip", [-0.5, 0.75]),
        ("HardSigmoid", [0.3, 0.4]),
    ]:
        more = {} if parameters is None else {"activation_params": parameters}
        image, weights = floats(1, 4, 7, 7), floats(6, 4, 3, 3)
        more.update(activation=activation, pads=[1, 1, 1, 1], constants=(1, 2))
        add(f"fused_conv_{activation}", "FusedConv", [image, weights, floats(6)], **more)
        if activation == "Relu":
            add("fused_conv_sum", "FusedConv", [image, weights, floats(6), floats(1, 6, 7, 7)], **more)
            add("fused_conv_strided", "FusedConv", [image, weights], **more | {"strides": [2, 2]})
        matrices = [floats(3, 5), floats(5, 4), floats(4)]
        more = {} if parameters is None else dict(zip(["activation_alpha", "activation_beta"], parameters))
        if activation != "Clip":
            add(f"fused_gemm_{activation}", "FusedGemm", matrices, activation=activation, alpha=0.5, beta=2.0, **more)
    add("fused_matmul", "FusedMatMul", [floats(2, 3, 5), floats(2, 5, 4)], alpha=0.25)
    add("fused_matmul_trans", "FusedMatMul", [floats(2, 5, 3), floats(2, 4, 5)], transA=1, transB=1)
    add("fused_matmul_constant", "FusedMatMul", [floats(2, 3, 5), floats(4, 5)], transB=1, alpha=3.0, constants=(1,))
    add("fused_matmul_batch_a", "FusedMatMul", [floats(3, 2, 5), floats(2, 5, 4)], transBatchA=1)
    add("fused_matmul_batch_b", "FusedMatMul", [floats(2, 3, 5), floats(4, 2, 5)], transBatchB=1, transB=1)
    add("bias_gelu", "BiasGelu", [floats(2, 3, 8), floats(8)])
    add("gelu", "Gelu", [floats(2, 3, 8)])
    add("fast_gelu", "FastGelu", [floats(2, 3, 8)])
    add("fast_gelu_bias", "FastGelu", [floats(2, 3, 8), floats(8)])
    add("quick_gelu", "QuickGelu", [floats(2, 3, 8)])
    add("quick_gelu_alpha", "QuickGelu", [floats(2, 3, 8)], alpha=0.9)
    # ONNX Runtime has these on accelerators only: what they mean is written out.
    x, bias = floats(2, 3, 8), floats(8)
    left, right = np.split(x + bias, 2, axis=-1)
    gelu = right * 0.5 * (1 + erf(right / np.sqrt(2)))
    add("bias_split_gelu", "BiasSplitGelu", [x, bias], wanted=[left * gelu])
    x, bias, skip = floats(2, 3, 8), floats(8), floats(2, 3, 8)
    add("bias_add", "BiasAdd", [x, bias, skip], wanted=[x + bias + skip])
    add("cdist", "CDist", [floats(3, 4), floats(5, 4)], metric="sqeuclidean")
    add("cdist_root", "CDist", [floats(3, 4), floats(5, 4)], metric="euclidean")
    add("trilu", "Trilu", [floats(4, 5), np.array(1, np.int64)], constants=(1,), upper=0)


def norms(cases):
    def add(name, operator, inputs, **more):
        cases.node(name, operator, inputs, domain=DOMAIN, **more)

    x, skip, gamma, beta, bias = floats(2, 3, 8), floats(2, 3, 8), floats(8), floats(8), floats(8)
    first_and_sum = ["y", "", "", "sum"]
    add("skip_layer", "SkipLayerNormalization", [x, skip, gamma, beta], epsilon=1e-5)
    add("skip_layer_bias", "SkipLayerNormalization", [x, skip, gamma, beta, bias], outputs=first_and_sum)
    add("skip_layer_no_beta", "SkipLayerNormalization", [x, skip, gamma, None, bias], outputs=first_and_sum)
    add("skip_layer_broadcast", "SkipLayerNormalization", [x, floats(1, 3, 8), gamma, beta])
    add("skip_layer_rank_2", "SkipLayerNormalization", [x, floats(3, 8), gamma, beta])
    add("skip_rms", "SkipSimplifiedLayerNormalization", [x, skip, gamma], epsilon=1e-6)
    add("skip_rms_bias", "SkipSimplifiedLayerNormalization", [x, skip, gamma, bias], outputs=first_and_sum)
    cases.node("rms_of_onnx", "SimplifiedLayerNormalization", [x, gamma], outputs=2, opset=17, epsilon=1e-6, axis=-1)
    ids, segments = np.array([[3, 1, 4, 0], [2, 2, 0, 1]], np.int32), np.array([[0, 0, 1, 1], [0, 1, 1, 1]], np.int32)
    tables = [floats(5, 8), floats(6, 8), floats(2, 8), gamma, beta]
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32)
    add("embed", "EmbedLayerNormalization", [ids, segments, *tables, mask], outputs=2, constants=(2, 3, 4, 5, 6))
    none = [ids, None, *tables[:2], None, *tables[3:]]
    add("embed_no_segments", "EmbedLayerNormalization", none, outputs=2, constants=(2, 3, 5, 6))
    positions = np.array([[3, 2, 1, 0], [0, 1, 5, 4]], np.int32)
    all_inputs = [ids, segments, *tables, None, positions]
    add("embed_positions", "EmbedLayerNormalization", all_inputs, outputs=["y", "index", "sum"], constants=(2, 3, 4, 5, 6))


def attention(cases):
    def add(name, inputs, **more):
        cases.node(name, "Attention", inputs, domain=DOMAIN, num_heads=2, constants=(1, 2), **more)

    x, weights, bias = floats(2, 4, 6), floats(6, 24), floats(24)
    add("attention", [x, weights, bias])
    add("attention_no_bias", [x, weights])
    add("attention_scale", [x, weights, bias], scale=0.3)
    add("attention_causal", [x, weights, bias], unidirectional=1)
    add("attention_sizes", [x, floats(6, 8 + 8 + 12), floats(28)], qkv_hidden_sizes=[8, 8, 12])
    add("attention_mask", [x, weights, bias, np.array([[1, 1, 1, 0], [1, 0, 1, 1]], np.int32)])
    add("attention_mask_rows", [x, weights, bias, RANDOM.integers(0, 2, (2, 4, 4)).astype(np.int32)])
    add("attention_mask_lengths", [x, weights, bias, np.array([3, 2], np.int32)])
    add("attention_mask_ends_starts", [x, weights, bias, np.array([4, 3, 1, 0], np.int32)])
    add("attention_mask_filter", [x, weights, bias, np.array([[1, 1, 1, 0], [1, 0, 1, 1]], np.int32)], mask_filter_value=-3.0)
    add("attention_relative", [x, weights, bias, None, None, floats(2, 2, 4, 4)])
    add("attention_present", [x, weights, bias], outputs=2)
    add("attention_past", [x, weights, bias, None, floats(2, 2, 2, 3, 4)], outputs=2, unidirectional=1)

    def multi(name, inputs, **more):
        cases.node(name, "MultiHeadAttention", inputs, domain=DOMAIN, num_heads=2, **more)

    q, k, v = floats(2, 3, 8), floats(2, 5, 8), floats(2, 5, 12)
    multi("multi_head", [q, k, v])
    multi("multi_head_bias", [q, k, v, floats(28)], constants=(3,))
    multi("multi_head_mask", [q, k, v, None, np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]], np.int32)])
    multi("multi_head_relative", [q, k, v, None, None, floats(1, 2, 3, 5)], scale=0.5)
    multi("multi_head_heads", [q, floats(2, 2, 5, 4), floats(2, 2, 5, 4)])
    past = [floats(2, 2, 3, 4), floats(2, 2, 3, 4)]
    multi("multi_head_past", [q, floats(2, 3, 8), floats(2, 3, 8), None, None, None, *past], outputs=3)
    multi("multi_head_causal", [floats(2, 4, 8), floats(2, 4, 8), floats(2, 4, 8)], unidirectional=1)

    def rotary(name, inputs, **more):
        cases.node(name, "RotaryEmbedding", inputs, domain=DOMAIN, constants=(2, 3), **more)

    angles = RANDOM.uniform(0, 3, (9, 4)).astype(np.float32)
    cos, sin = np.cos(angles), np.sin(angles)
    positions = np.array([[0, 4, 2], [1, 3, 8]], np.int64)
    rotary("rotary", [floats(2, 3, 16), positions, cos, sin])
    rotary("rotary_interleaved", [floats(2, 3, 16), positions, cos, sin], interleaved=1)
    rotary("rotary_heads", [floats(2, 2, 3, 8), positions, cos, sin])
    rotary("rotary_offset", [floats(2, 3, 16), np.array([2], np.int64), cos, sin])
    rotary("rotary_part", [floats(2, 3, 20), positions, cos, sin], num_heads=2, rotary_embedding_dim=8)


def main():
    cases = Cases()
    fused(cases)
    norms(cases)
    attention(cases)
    cases.run()


if __name__ == "__main__":
    main()
