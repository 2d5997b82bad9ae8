"""Holds older forms of operators to ONNX Runtime: what was an attribute and became an input, and what changed its meaning.

ONNX's own cases have the newest form only; models are exported with any operator set from 7 on. Run by `cargo xtask test`. Exits
1 if an answer differs.
"""

import numpy as np

from small_models import Cases

RANDOM = np.random.default_rng(5)


def floats(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def main():
    cases = Cases()

    def add(operator, opsets, inputs, outputs=1, constants=(), tag="", **attributes):
        for opset in opsets:
            name = f"{operator}_{opset}{tag and '_' + tag}".lower()
            cases.node(name, operator, inputs, outputs, constants, opset=opset, **attributes)

    x = floats(2, 3, 4)
    for operator in ("Softmax", "LogSoftmax", "Hardmax"):
        add(operator, [7, 11, 13], [x])
        for axis in (0, 1, 2):
            add(operator, [7, 11, 13], [x], axis=axis, tag=f"axis{axis}")
        add(operator, [11, 13], [x], axis=-2, tag="negative")
    image, scale = floats(2, 3, 4, 5), np.abs(floats(3)) + 0.5
    statistics = [scale, floats(3), floats(3), np.abs(floats(3)) + 0.5]
    add("BatchNormalization", [7, 9, 14, 15], [image, *statistics], constants=(1, 2, 3, 4), epsilon=1e-3)
    add("Dropout", [7, 10, 12, 13], [x])
    add("Dropout", [12, 13], [x, np.float32(0.3), np.bool_(False)], constants=(1, 2), tag="inputs")
    add("Clip", [7], [x], min=-0.5, max=0.75, tag="attributes")
    add("Clip", [7], [x], max=0.75, tag="upper")
    add("Clip", [11, 12, 13], [x, np.float32(-0.5), np.float32(0.75)], constants=(1, 2))
    add("Clip", [11, 12, 13], [x, None, np.float32(0.75)], constants=(2,), tag="upper")
    add("Clip", [12, 13], [RANDOM.integers(-9, 9, (2, 3)).astype(np.int8), np.int8(-3), np.int8(4)], constants=(1, 2), tag="int8")
    for mode in ("constant", "reflect", "edge"):
        add("Pad", [7], [x], pads=[0, 1, 1, 0, 2, 1], mode=mode, value=1.5, tag=mode)
        add("Pad", [11, 13, 18, 19, 21], [x, ints(0, 1, 1, 0, 2, 1), np.float32(1.5)], constants=(1, 2), mode=mode, tag=mode)
    add("Pad", [18, 19], [x, ints(1, 2), None, ints(-1)], constants=(1, 3), tag="axes")
    add("Pad", [19, 21], [x, ints(0, 1, 1, 0, 2, 1)], constants=(1,), mode="wrap", tag="wrap")
    add("Pad", [11, 13], [x, ints(0, -1, 1, 0, 2, -1)], constants=(1,), tag="cut")
    add("Slice", [7], [x], starts=[1, -3], ends=[3, 100], axes=[1, 2])
    add("Slice", [7], [x], starts=[1], ends=[2], tag="first")
    add("Slice", [10, 11, 13], [x, ints(0, -1), ints(3, -100), ints(1, 2), ints(2, -2)], constants=(1, 2, 3, 4))
    add("Slice", [10, 11, 13], [x, ints(1, 0), ints(2, 2)], constants=(1, 2), tag="first")
    add("TopK", [7], [x], 2, k=2, axis=-1)
    add("TopK", [7], [x], 2, k=1, axis=1, tag="middle")
    add("TopK", [10, 11], [x, ints(2)], 2, constants=(1,), axis=1)
    add("TopK", [11], [x, ints(3)], 2, constants=(1,), largest=0, tag="smallest")
    add("Upsample", [7], [image], scales=[1.0, 1.0, 2.0, 3.0], mode="nearest")
    add("Upsample", [7], [image], scales=[1.0, 1.0, 2.0, 3.0], mode="linear", tag="linear")
    scales = np.array([1.0, 1.0, 2.0, 1.5], np.float32)
    add("Upsample", [9], [image, scales], constants=(1,), mode="linear")
    for mode in ("nearest", "linear"):
        add("Resize", [10], [image, scales], constants=(1,), mode=mode, tag=mode)
        smaller = np.array([1.0, 1.0, 0.6, 0.5], np.float32)
        add("Resize", [10], [image, smaller], constants=(1,), mode=mode, tag=f"{mode}_down")
    nothing = np.array([], np.float32)
    for transformation in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
        for mode in ("nearest", "linear", "cubic"):
            more = dict(coordinate_transformation_mode=transformation, mode=mode, tag=f"{mode}_{transformation}")
            add("Resize", [11], [image, nothing, nothing, ints(2, 3, 7, 9)], constants=(1, 2, 3), **more)
            add("Resize", [13, 18, 19], [image, None, None, ints(2, 3, 7, 9)], constants=(3,), **more)
    for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        add("Resize", [11], [image, nothing, scales], constants=(1, 2), nearest_mode=nearest, tag=nearest)
        add("Resize", [13, 19], [image, None, scales], constants=(2,), nearest_mode=nearest, tag=nearest)
    add("Resize", [13, 18], [image, None, None, ints(2, 3, 3, 2)], constants=(3,), mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1, tag="cubic_down")
    add("Resize", [18, 19], [image, None, None, ints(3, 3)], constants=(3,), mode="linear", axes=[2, 3], tag="axes")
    for policy in ("not_larger", "not_smaller"):
        add("Resize", [18, 19], [image, None, None, ints(7, 7)], constants=(3,), axes=[2, 3], keep_aspect_ratio_policy=policy, tag=policy)
    for operator in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"):
        old = [7, 11] if operator == "ReduceSum" else [7, 11, 13]
        add(operator, old, [x], axes=[0, 2], keepdims=0)
        add(operator, old, [x], tag="all")
        new = [13, 18] if operator == "ReduceSum" else [18]
        add(operator, new, [x, ints(0, 2)], constants=(1,), keepdims=0)
        add(operator, new, [x], noop_with_empty_axes=1, tag="nothing")
    one = floats(1, 3, 1, 2)
    add("Squeeze", [7, 11], [one], axes=[0, 2])
    add("Squeeze", [7, 11, 13], [one], tag="all")
    add("Squeeze", [13, 21], [one, ints(0, -2)], constants=(1,))
    add("Unsqueeze", [7, 11], [x], axes=[0, 3])
    add("Unsqueeze", [13, 21], [x, ints(0, -1)], constants=(1,))
    add("Split", [7, 11], [floats(2, 6)], 2, axis=1, split=[2, 4])
    add("Split", [7, 11, 13], [floats(2, 6)], 3, axis=1, tag="even")
    add("Split", [13, 18], [floats(2, 6), ints(1, 5)], 2, constants=(1,), axis=1)
    add("Split", [18], [floats(2, 7)], 3, axis=1, num_outputs=3, tag="uneven")
    for to in (6, 7, 9, 2, 3):
        add("Cast", [7, 9, 13, 19], [np.array([-1.5, 0.0, 0.4, 2.9, 100.0], np.float32)[:: 1 if to != 2 else -1][: 5 if to != 2 else 4]], to=to, tag=f"{to}")
    add("Pow", [7, 12, 13, 15], [np.abs(x), floats(3, 1)])
    add("Pow", [12, 13, 15], [np.abs(x), np.array([2], np.int32)], tag="mixed")
    add("Pow", [12, 13, 15], [RANDOM.integers(1, 5, (2, 3)).astype(np.int32), np.array([3], np.int32)], tag="ints")
    add("Reshape", [7, 13, 14], [x, ints(0, -1)], constants=(1,))
    for axis in (0, 1, 2, 3):
        add("Flatten", [7, 9, 11, 13], [x], axis=axis, tag=f"{axis}")
    add("Flatten", [11, 13], [x], axis=-1, tag="negative")
    for opset in (7, 9, 11, 13):
        add("Gemm", [opset], [floats(3, 4), floats(4, 5), floats(5)], alpha=0.5, beta=2.0)
        add("Gemm", [opset], [floats(4, 3), floats(5, 4), floats(3, 1)], transA=1, transB=1, tag="trans")
    add("Gemm", [11, 13], [floats(3, 4), floats(4, 5)], tag="two")
    add("MaxPool", [7, 8, 10, 11, 12], [image], kernel_shape=[2, 3], strides=[1, 2], pads=[1, 1, 0, 1])
    add("MaxPool", [8, 10, 11, 12], [image], 2, kernel_shape=[2, 2], tag="indices")
    add("MaxPool", [10, 11, 12], [image], kernel_shape=[2, 2], dilations=[2, 1], ceil_mode=1, strides=[2, 2], tag="dilated")
    add("AveragePool", [7, 10, 11, 19], [image], kernel_shape=[2, 3], strides=[1, 2], pads=[1, 1, 0, 1])
    add("AveragePool", [7, 10, 11, 19], [image], kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1, tag="padded")
    add("AveragePool", [10, 11, 19], [image], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, tag="ceil")
    for pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        add("MaxPool", [7, 11], [image], kernel_shape=[3, 2], strides=[2, 2], auto_pad=pad, tag=pad)
        add("Conv", [7, 11], [image, floats(2, 3, 3, 2)], constants=(1,), strides=[2, 2], auto_pad=pad, tag=pad)
    add("ConvTranspose", [7, 11], [image, floats(3, 2, 3, 3)], constants=(1,), strides=[2, 2], output_padding=[1, 1])
    add("ConvTranspose", [7, 11], [image, floats(3, 2, 3, 3)], constants=(1,), strides=[2, 2], output_shape=[8, 10], tag="shape")
    for operator in ("ArgMax", "ArgMin"):
        add(operator, [7, 11, 12, 13], [np.round(x)], axis=1, keepdims=0)
        add(operator, [12, 13], [np.round(x)], axis=1, select_last_index=1, tag="last")
    add("CumSum", [11, 14], [x, np.array(1, np.int32)], constants=(1,), exclusive=1)
    add("Scatter", [9], [x, RANDOM.permuted(np.tile(np.arange(3), (2, 4, 1)), axis=2).swapaxes(1, 2)[:, :2], floats(2, 2, 4)], axis=1)
    add("ScatterElements", [11, 13, 16, 18], [x, np.zeros((2, 1, 4), np.int64), floats(2, 1, 4)], axis=1)
    for reduction in ("add", "mul"):
        add("ScatterElements", [16, 18], [x, np.zeros((2, 2, 4), np.int64), floats(2, 2, 4)], axis=1, reduction=reduction, tag=reduction)
        add("ScatterND", [16, 18], [x, np.array([[0], [0]], np.int64), floats(2, 3, 4)], reduction=reduction, tag=reduction)
    add("ScatterND", [11, 13], [x, np.array([[1]], np.int64), floats(1, 3, 4)])
    add("GatherND", [11, 12, 13], [x, np.array([[0, 1], [1, 2]], np.int64)])
    add("GatherND", [12, 13], [x, np.array([[1], [2]], np.int64)], batch_dims=1, tag="batch")
    add("OneHot", [9, 11], [np.array([0, 2, 1]), ints(3)[0], floats(2)], constants=(1,), axis=-1)
    add("OneHot", [11], [np.array([0, -1, 1]), ints(3)[0], floats(2)], constants=(1,), axis=0, tag="negative")
    add("PRelu", [7, 9, 16], [x, floats(3, 1)])
    add("Mod", [10, 13], [RANDOM.integers(-9, 9, (4, 3)), RANDOM.integers(1, 5, 3)])
    add("Mod", [10, 13], [floats(4, 3), floats(3)], fmod=1, tag="floats")
    for operator in ("Sum", "Max", "Min", "Mean"):
        add(operator, [8, 13], [x, floats(3, 1), floats(4)])
    add("Max", [12, 13], [RANDOM.integers(-9, 9, 5), RANDOM.integers(-9, 9, 5)], tag="ints")
    for operator in ("Equal", "Greater", "Less"):
        add(operator, [7, 9, 11, 13] if operator != "Equal" else [7, 11, 13], [RANDOM.integers(0, 3, (4, 3)).astype(np.int32 if operator == "Equal" else np.float32), RANDOM.integers(0, 3, 3).astype(np.int32 if operator == "Equal" else np.float32)])
    add("DepthToSpace", [7, 11, 13], [floats(1, 8, 2, 3)], blocksize=2)
    add("DepthToSpace", [11, 13], [floats(1, 8, 2, 3)], blocksize=2, mode="CRD", tag="crd")
    add("Shape", [7, 13, 15], [x])
    add("Shape", [15], [x], start=1, end=-1, tag="part")
    add("InstanceNormalization", [7, 22], [image, floats(3), floats(3)], constants=(1, 2))
    add("GroupNormalization", [18], [floats(2, 4, 3), floats(2), floats(2)], constants=(1, 2), num_groups=2, tag="groups")
    add("GroupNormalization", [21], [floats(2, 4, 3), floats(4), floats(4)], constants=(1, 2), num_groups=2, tag="channels")
    add("LayerNormalization", [17], [x, floats(4), floats(4)], constants=(1, 2))
    add("LayerNormalization", [17], [x, floats(3, 4)], constants=(1,), axis=1, tag="two")
    add("Gelu", [20], [x])
    add("HardSwish", [14], [x])
    add("Expand", [8, 13], [floats(3, 1), ints(2, 1, 4)], constants=(1,))
    add("Tile", [7, 13], [x, ints(1, 2, 3)], constants=(1,))
    add("Where", [9, 16], [x > 0, x, floats(4)])
    add("IsInf", [10, 20], [np.array([np.inf, -np.inf, 1.0, np.nan], np.float32)], detect_negative=0)
    add("LRN", [7, 13], [image], size=3)
    add("LpNormalization", [7, 22], [x], p=1, axis=1)
    add("QuantizeLinear", [10, 13, 19], [x, np.float32(0.05), np.uint8(7)], constants=(1, 2))
    add("DequantizeLinear", [10, 13, 19], [RANDOM.integers(0, 255, (2, 3)).astype(np.uint8), np.float32(0.05), np.uint8(7)], constants=(1, 2))
    cases.run()


if __name__ == "__main__":
    main()
