"""Networks beside those of networks.py, each for what its exports are full of; at published layer shapes too."""

import numpy as np

from layers import Net, image
from networks import classify


def squeeze_net():
    """Iandola et al. 2016, version 1.1: pools that round up, concatenated squeezes."""
    net = Net("squeeze-net")
    pool = lambda x: net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    conv = lambda x, out, k, stride=1, pad=None: net.act(net.conv(x, out, k, stride, pad, bias=True), "Relu")

    def fire(x, squeeze, out):
        s = conv(x, squeeze, 1)
        return net.op("Concat", conv(s, out, 1), conv(s, out, 3), axis=1, channels=2 * out)

    x = pool(conv(net.input("image", image(21, 1, 3, 224, 224)), 64, 3, 2, pad=0))
    x = pool(fire(fire(x, 16, 64), 16, 64))
    x = pool(fire(fire(x, 32, 128), 32, 128))
    x = fire(fire(fire(fire(x, 48, 192), 48, 192), 64, 256), 64, 256)
    x = net.op("GlobalAveragePool", conv(x, 1000, 1))
    net.output(net.op("Flatten", x), "logits")
    return net


def shuffle_net():
    """Ma et al. 2018, ShuffleNetV2 × 0.5: channels split and shuffled by Reshape and Transpose."""
    net = Net("shuffle-net")
    x = net.conv_norm(net.input("image", image(22, 1, 3, 224, 224)), 24, 3, 2)
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    size = 56

    def branch(x, width, stride):
        y = net.conv_norm(net.conv_norm(x, width, 1), width, 3, stride, groups=width, act=None)
        return net.conv_norm(y, width, 1)

    for out, count in ((48, 4), (96, 8), (192, 4)):
        half = out // 2
        for i in range(count):
            if i == 0:
                into, size = net.channels[x], size // 2
                left = net.conv_norm(net.conv_norm(x, into, 3, 2, groups=into, act=None), half, 1)
                right = branch(x, half, 2)
            else:
                left, right = net.op("Split", x, np.array([half, half], np.int64), count=2, channels=half, axis=1)
                right = branch(right, half, 1)
            joined = net.reshape(net.op("Concat", left, right, axis=1), 1, 2, half, size, size)
            x = net.reshape(net.op("Transpose", joined, perm=[0, 2, 1, 3, 4]), 1, out, size, size)
            net.channels[x] = out
    classify(net, net.conv_norm(x, 1024, 1), 1000)
    return net


def super_resolution():
    """Shi et al. 2016, ESPCN × 3: depth to space."""
    net = Net("super-resolution")
    x = net.input("luma", image(23, 1, 1, 96, 96))
    x = net.act(net.conv(x, 64, 5, bias=True), "Tanh")
    x = net.act(net.conv(x, 32, 3, bias=True), "Tanh")
    net.output(net.op("DepthToSpace", net.conv(x, 9, 3, bias=True), blocksize=3, mode="CRD"), "larger")
    return net


def style_transfer():
    """Johnson et al. 2016: reflected borders, instance norms, upsampling."""
    net = Net("style-transfer")

    def conv(x, out, k, stride=1, norm=True):
        border = np.array([0, 0, k // 2, k // 2] * 2, np.int64)
        y = net.conv(net.op("Pad", x, border, mode="reflect"), out, k, stride, pad=0, bias=True)
        return net.op("InstanceNormalization", y, np.ones(out, np.float32), net.small(out)) if norm else y

    x = net.input("image", image(24, 1, 3, 96, 96))
    for out, k, stride in ((32, 9, 1), (64, 3, 2), (128, 3, 2)):
        x = net.act(conv(x, out, k, stride), "Relu")
    for _ in range(5):
        x = net.op("Add", x, conv(net.act(conv(x, 128, 3), "Relu"), 128, 3))
    for out in (64, 32):
        x = net.op("Resize", x, "", np.array([1, 1, 2, 2], np.float32), mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
        x = net.act(conv(x, out, 3), "Relu")
    net.output(conv(x, 3, 9, norm=False), "styled")
    return net


def text_reader():
    """Shi et al. 2015, CRNN: convolutions, then two bidirectional LSTMs over the columns, 37 characters."""
    net = Net("text-reader")
    x = net.input("line", image(25, 1, 1, 32, 100))
    pool = lambda x, s, p: net.op("MaxPool", x, kernel_shape=[2, 2], strides=s, pads=p)
    conv = lambda x, out, k=3, pad=None: net.act(net.conv(x, out, k, pad=pad, bias=True), "Relu")
    x = pool(conv(x, 64), [2, 2], [0] * 4)
    x = pool(conv(x, 128), [2, 2], [0] * 4)
    x = pool(conv(net.conv_norm(x, 256, 3), 256), [2, 1], [0, 1, 0, 1])
    x = pool(conv(net.conv_norm(x, 512, 3), 512), [2, 1], [0, 1, 0, 1])
    x = net.conv_norm(x, 512, 2, pad=0)
    x = net.op("Transpose", net.op("Squeeze", x, np.array([2], np.int64)), perm=[2, 0, 1])
    into, frames = 512, 26
    for _ in range(2):
        shapes = [(2, 4 * 256, into), (2, 4 * 256, 256)]
        w, r = (net.weight(*shape, fan_in=shape[-1], gain=1.0) for shape in shapes)
        bias = np.stack([net.small(8 * 256), net.small(8 * 256)])
        states, _, _ = net.op("LSTM", x, w, r, bias, count=3, hidden_size=256, direction="bidirectional")
        x = net.reshape(net.op("Transpose", states, perm=[0, 2, 1, 3]), frames, 1, 512)
        into = 512
    net.output(net.op("LogSoftmax", net.linear(x, 512, 37, gain=4.0), axis=-1), "characters")
    return net


def language_model(tokens=32):
    """Radford et al. 2019, two layers of GPT-2's smallest (768, 12 heads) over a vocabulary of 8,192: a mask made in the graph."""
    net = Net("language-model")
    ids = net.input("input_ids", net.random.integers(0, 8192, (1, tokens)))
    table = (0.2 * net.random.standard_normal((8192, 768))).astype(np.float32)
    # As exporters write it: the shape is read from the input, and a triangle is cut to it.
    count = net.op("Gather", net.op("Shape", ids), np.int64(1))
    places = net.op("Range", np.int64(0), count, np.int64(1))
    x = net.op("Add", net.op("Gather", table, ids), net.op("Gather", (0.1 * net.random.standard_normal((1024, 768))).astype(np.float32), places))
    square = net.op("Concat", *[net.op("Unsqueeze", count, np.array([0], np.int64))] * 2, axis=0)
    ones = net.op("ConstantOfShape", square, value=one())
    lower = net.op("Equal", net.op("Trilu", ones, upper=0), np.float32(1))
    mask = net.op("Where", lower, np.float32(0), np.float32(np.finfo(np.float32).min))
    for _ in range(2):
        x = net.op("Add", x, net.attention(net.layer_norm(x, 768), tokens, 768, 12, mask))
        hidden = net.linear(net.layer_norm(x, 768), 768, 3072, gain=2.0)
        # The tanh form of GELU.
        cubed = net.op("Mul", net.op("Pow", hidden, np.float32(3)), np.float32(0.044715))
        inner = net.op("Mul", net.op("Add", hidden, cubed), np.float32(np.sqrt(2 / np.pi)))
        gate = net.op("Add", net.op("Tanh", inner), np.float32(1))
        y = net.op("Mul", net.op("Mul", hidden, np.float32(0.5)), gate)
        x = net.op("Add", x, net.linear(y, 3072, 768))
    last = net.op("Gather", net.layer_norm(x, 768), np.int64(-1), axis=1)
    net.output(net.op("MatMul", last, np.ascontiguousarray(table.T)), "logits")
    return net


def one():
    from onnx import TensorProto, helper

    return helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])


ALL = [squeeze_net, shuffle_net, super_resolution, style_transfer, text_reader, language_model]
