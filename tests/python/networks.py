"""Networks at the layer shapes that were published, built by script: one function each, giving a `Net` with its input data."""

import numpy as np
from onnx import TensorProto

from layers import Net, image


def resnet(depth):
    """He et al. 2016, table 1, as torchvision has it (stride in the 3 × 3 convolution)."""
    net = Net(f"resnet{depth}")
    deep = depth >= 50
    x = net.conv_norm(net.input("image", image(1, 1, 3, 224, 224)), 64, 7, 2)
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, count in enumerate({18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]):
        width = 64 << stage
        out = 4 * width if deep else width
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            short = x
            if stride > 1 or net.channels[x] != out:
                short = net.conv_norm(x, out, 1, stride, act=None)
            if deep:
                y = net.conv_norm(net.conv_norm(x, width, 1), width, 3, stride)
                y = net.conv_norm(y, out, 1, act=None)
            else:
                y = net.conv_norm(net.conv_norm(x, width, 3, stride), out, 3, act=None)
            x = net.act(net.op("Add", y, short), "Relu")
    classify(net, x, 1000)
    return net


def classify(net, x, classes):
    width = net.channels[x]
    flat = net.op("Flatten", net.op("GlobalAveragePool", x))
    net.output(net.op("Gemm", flat, net.weight(classes, width, gain=1.0), net.small(classes), transB=1), "logits")


def inverted(net, x, expand, out, k, stride, act="relu6", squeeze=None, dilation=1):
    """MobileNetV2's block; `squeeze` is the width of the squeeze-and-excite of V3."""
    into = net.channels[x]
    y = net.conv_norm(x, expand, 1, act=act) if expand != into else x
    y = net.conv_norm(y, expand, k, stride, groups=expand, act=act, dilation=dilation)
    if squeeze:
        s = net.act(net.conv(net.op("GlobalAveragePool", y), squeeze, 1, bias=True), "Relu")
        gate = net.op("HardSigmoid", net.conv(s, expand, 1, bias=True), alpha=1 / 6, beta=0.5)
        y = net.op("Mul", y, gate)
    y = net.conv_norm(y, out, 1, act=None)
    return net.op("Add", x, y) if stride == 1 and into == out else y


V2 = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def mobilenet_v2():
    """Sandler et al. 2018, table 2."""
    net = Net("mobilenet-v2")
    x = net.conv_norm(net.input("image", image(2, 1, 3, 224, 224)), 32, 3, 2, act="relu6")
    for factor, out, count, stride in V2:
        for i in range(count):
            x = inverted(net, x, factor * net.channels[x], out, 3, stride if i == 0 else 1)
    classify(net, net.conv_norm(x, 1280, 1, act="relu6"), 1000)
    return net


def mobilenet_v3_small():
    """Howard et al. 2019, table 2."""
    net = Net("mobilenet-v3-small")
    x = net.conv_norm(net.input("image", image(3, 1, 3, 224, 224)), 16, 3, 2, act="HardSwish")
    rows = [
        (3, 16, 16, 8, "Relu", 2), (3, 72, 24, None, "Relu", 2), (3, 88, 24, None, "Relu", 1), (5, 96, 40, 24, "HardSwish", 2),
        (5, 240, 40, 64, "HardSwish", 1), (5, 240, 40, 64, "HardSwish", 1), (5, 120, 48, 32, "HardSwish", 1),
        (5, 144, 48, 40, "HardSwish", 1), (5, 288, 96, 72, "HardSwish", 2), (5, 576, 96, 144, "HardSwish", 1),
        (5, 576, 96, 144, "HardSwish", 1),
    ]  # fmt: skip
    for k, expand, out, squeeze, act, stride in rows:
        x = inverted(net, x, expand, out, k, stride, act, squeeze)
    x = net.conv_norm(x, 576, 1, act="HardSwish")
    flat = net.op("Flatten", net.op("GlobalAveragePool", x))
    hidden = net.act(net.op("Gemm", flat, net.weight(1024, 576), net.small(1024), transB=1), "HardSwish")
    net.output(net.op("Gemm", hidden, net.weight(1000, 1024, gain=1.0), net.small(1000), transB=1), "logits")
    return net


def efficientnet_lite0():
    """Tan and Le 2019 without squeeze-and-excite and with ReLU6, as published for edge devices."""
    net = Net("efficientnet-lite0")
    x = net.conv_norm(net.input("image", image(4, 1, 3, 224, 224)), 32, 3, 2, act="relu6")
    rows = [(1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 40, 2, 5, 2), (6, 80, 3, 3, 2), (6, 112, 3, 5, 1), (6, 192, 4, 5, 2), (6, 320, 1, 3, 1)]
    for factor, out, count, k, stride in rows:
        for i in range(count):
            x = inverted(net, x, factor * net.channels[x], out, k, stride if i == 0 else 1)
    classify(net, net.conv_norm(x, 1280, 1, act="relu6"), 1000)
    return net


def yolo_v8n(size=320, suppress=False):
    """The nano detector (depth 0.33, width 0.25, 80 classes) with its post-processing: distribution focal loss, boxes, scores;
    and, where asked, the suppression of boxes that overlap."""
    net = Net("yolo-v8n-suppressed" if suppress else "yolo-v8n")
    cat = lambda *xs: net.op("Concat", *xs, axis=1, channels=sum(net.channels[x] for x in xs))
    conv = lambda x, out, k=1, stride=1: net.conv_norm(x, out, k, stride, act="silu")

    def c2f(x, out, count, shortcut):
        half = out // 2
        a, b = net.op("Split", conv(x, out), np.array([half, half], np.int64), count=2, channels=half, axis=1)
        parts = [a, b]
        for _ in range(count):
            y = conv(conv(parts[-1], half, 3), half, 3)
            parts.append(net.op("Add", parts[-1], y) if shortcut else y)
        return conv(cat(*parts), out)

    def up(x):
        scales = np.array([1, 1, 2, 2], np.float32)
        return net.op("Resize", x, "", scales, mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric")

    x = conv(net.input("images", image(5, 1, 3, size, size)), 16, 3, 2)
    x = c2f(conv(x, 32, 3, 2), 32, 1, True)
    p3 = c2f(conv(x, 64, 3, 2), 64, 2, True)
    p4 = c2f(conv(p3, 128, 3, 2), 128, 2, True)
    x = conv(c2f(conv(p4, 256, 3, 2), 256, 1, True), 128)
    pools = [x]
    for _ in range(3):
        pools.append(net.op("MaxPool", pools[-1], kernel_shape=[5, 5], strides=[1, 1], pads=[2] * 4))
    p5 = conv(cat(*pools), 256)
    n4 = c2f(cat(up(p5), p4), 128, 1, False)
    n3 = c2f(cat(up(n4), p3), 64, 1, False)
    m4 = c2f(cat(conv(n3, 64, 3, 2), n4), 128, 1, False)
    m5 = c2f(cat(conv(m4, 128, 3, 2), p5), 256, 1, False)
    levels, anchors, strides = [], [], []
    for x, stride in ((n3, 8), (m4, 16), (m5, 32)):
        cells = size // stride
        box = net.conv(conv(conv(x, 64, 3), 64, 3), 64, 1, bias=True)
        scores = net.conv(conv(conv(x, 80, 3), 80, 3), 80, 1, bias=True)
        levels.append(net.reshape(cat(box, scores), 1, 144, cells * cells))
        ys, xs = np.meshgrid(np.arange(cells) + 0.5, np.arange(cells) + 0.5, indexing="ij")
        anchors.append(np.stack([xs.ravel(), ys.ravel()]))
        strides.append(np.full((1, cells * cells), stride))
    count = sum(s.shape[1] for s in strides)
    joined = net.op("Concat", *levels, axis=2)
    box, scores = net.op("Split", joined, np.array([64, 80], np.int64), count=2, axis=1)
    spread = net.op("Softmax", net.op("Transpose", net.reshape(box, 1, 4, 16, count), perm=[0, 2, 1, 3]), axis=1)
    steps = np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1)
    sides = net.reshape(net.op("Conv", spread, steps), 1, 4, count)
    near, far = net.op("Split", sides, np.array([2, 2], np.int64), count=2, axis=1)
    centre = net.constant(np.concatenate(anchors, axis=1)[None].astype(np.float32))
    low, high = net.op("Sub", centre, near), net.op("Add", far, centre)
    middle = net.op("Div", net.op("Add", low, high), np.float32(2))
    boxes = net.op("Concat", middle, net.op("Sub", high, low), axis=1)
    # In parts of the image: boxes and scores are of one size, and one tolerance fits both.
    boxes = net.op("Mul", boxes, (np.concatenate(strides, axis=1)[None] / size).astype(np.float32))
    chances = net.op("Sigmoid", scores)
    if suppress:
        # Five boxes of each class at most; boxes are given by their centres.
        limits = [np.array([5], np.int64), np.array([0.45], np.float32), np.array([0.6], np.float32)]
        kept = net.op("NonMaxSuppression", net.op("Transpose", boxes, perm=[0, 2, 1]), chances, *limits, center_point_box=1)
        net.output(kept, "kept", TensorProto.INT64)
    net.output(net.op("Concat", boxes, chances, axis=1), "detections")
    return net


def encoder(net, x, tokens, width, heads, layers, hidden, before, mask=None):
    """Transformer layers with the norm before (ViT) or after (BERT)."""
    for _ in range(layers):
        if before:
            x = net.op("Add", x, net.attention(net.layer_norm(x, width), tokens, width, heads, mask))
            x = net.op("Add", x, net.feed_forward(net.layer_norm(x, width), width, hidden))
        else:
            x = net.layer_norm(net.op("Add", x, net.attention(x, tokens, width, heads, mask)), width)
            x = net.layer_norm(net.op("Add", x, net.feed_forward(x, width, hidden)), width)
    return x


def vit_tiny():
    """Touvron et al. 2021: ViT-Ti, patches of 16, 12 layers of 192."""
    net = Net("vit-tiny")
    x = net.conv(net.input("image", image(6, 1, 3, 224, 224)), 192, 16, 16, pad=0, bias=True)
    x = net.op("Transpose", net.reshape(x, 1, 192, 196), perm=[0, 2, 1])
    first = net.constant(net.random.standard_normal((1, 1, 192)).astype(np.float32))
    x = net.op("Concat", first, x, axis=1)
    x = net.op("Add", x, (0.1 * net.random.standard_normal((1, 197, 192))).astype(np.float32))
    x = net.layer_norm(encoder(net, x, 197, 192, 3, 12, 768, True), 192)
    x = net.op("Gather", x, np.int64(0), axis=1)
    net.output(net.linear(x, 192, 1000), "logits")
    return net


def mini_lm(tokens=64):
    """Wang et al. 2020: 6 layers of 384 over a vocabulary of 30,522; mean of the tokens, normalised, as sentence encoders do."""
    net = Net("mini-lm")
    ids = net.input("input_ids", net.random.integers(0, 30522, (1, tokens)))
    mask = net.input("attention_mask", (np.arange(tokens) < tokens - 9).astype(np.int64)[None])
    kinds = net.input("token_type_ids", np.zeros((1, tokens), np.int64))
    table = lambda rows: (0.5 * net.random.standard_normal((rows, 384))).astype(np.float32)
    x = net.op("Add", net.op("Gather", table(30522), ids), net.op("Gather", table(2), kinds))
    x = net.layer_norm(net.op("Add", x, table(tokens)[None]), 384)
    real = net.op("Cast", mask, to=1)
    hidden = net.op("Mul", net.op("Sub", np.float32(1), real), np.float32(np.finfo(np.float32).min))
    hidden = net.op("Unsqueeze", hidden, np.array([1, 2], np.int64))
    x = encoder(net, x, tokens, 384, 12, 6, 1536, False, hidden)
    wide = net.op("Unsqueeze", real, np.array([2], np.int64))
    total = net.op("ReduceSum", net.op("Mul", x, wide), np.array([1], np.int64), keepdims=0)
    count = net.op("Clip", net.op("ReduceSum", wide, np.array([1], np.int64), keepdims=0), np.float32(1e-9))
    mean = net.op("Div", total, count)
    length = net.op("Clip", net.op("ReduceL2", mean, axes=[1], keepdims=1), np.float32(1e-12))
    net.output(net.op("Div", mean, length), "embedding")
    return net


def deep_lab(size=257):
    """Chen et al. 2017: atrous pyramid (rates 6, 12, 18) on MobileNetV2 at output stride 16, 21 classes."""
    net = Net("deep-lab")
    x = net.conv_norm(net.input("image", image(8, 1, 3, size, size)), 32, 3, 2, act="relu6")
    for stage, (factor, out, count, stride) in enumerate(V2):
        for i in range(count):
            # The last stride becomes a dilation.
            dilated = stage >= 5
            here = 1 if dilated or i > 0 else stride
            x = inverted(net, x, factor * net.channels[x], out, 3, here, dilation=2 if dilated and (stage, i) != (5, 0) else 1)
    cells = (size + 15) // 16
    branches = [net.conv_norm(x, 256, 1)] + [net.conv_norm(x, 256, 3, dilation=rate) for rate in (6, 12, 18)]
    pooled = net.conv_norm(net.op("GlobalAveragePool", x), 256, 1)
    linear = {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}
    branches.append(net.op("Resize", pooled, "", "", np.array([1, 256, cells, cells], np.int64), **linear))
    x = net.conv_norm(net.op("Concat", *branches, axis=1, channels=1280), 256, 1)
    x = net.conv(net.conv_norm(x, 256, 3), 21, 1, bias=True)
    net.output(net.op("Resize", x, "", "", np.array([1, 21, size, size], np.int64), **linear), "classes")
    return net


def u_net(size=96):
    """Ronneberger et al. 2015: 64 to 1024 channels, with padded convolutions and batch norms."""
    net = Net("u-net")
    x = net.input("image", image(9, 1, 1, size, size))
    double = lambda x, out: net.conv_norm(net.conv_norm(x, out, 3), out, 3)
    kept = []
    for width in (64, 128, 256, 512):
        x = double(x, width)
        kept.append(x)
        x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = double(x, 1024)
    for width, skip in zip((512, 256, 128, 64), reversed(kept)):
        weight = net.weight(2 * width, width, 2, 2, fan_in=2 * width)
        x = net.op("ConvTranspose", x, weight, net.small(width), channels=width, kernel_shape=[2, 2], strides=[2, 2])
        x = double(net.op("Concat", skip, x, axis=1, channels=2 * width), width)
    net.output(net.conv(x, 2, 1, bias=True), "classes")
    return net


def keyword_gru():
    """Zhang et al. 2017, Hello Edge: features of 40 over 98 frames, two layers of gated units, 12 words."""
    net = Net("keyword-gru")
    x = net.input("features", image(10, 98, 1, 40).astype(np.float32))
    into = 40
    for hidden in (154, 154):
        w, r = net.weight(1, 3 * hidden, into, gain=1.0, fan_in=into), net.weight(1, 3 * hidden, hidden, gain=1.0, fan_in=hidden)
        bias = net.small(6 * hidden)[None]
        states, _ = net.op("GRU", x, w, r, bias, count=2, hidden_size=hidden, linear_before_reset=1)
        x = net.op("Squeeze", states, np.array([1], np.int64))
        into = hidden
    last = net.op("Gather", x, np.int64(-1), axis=0)
    net.output(net.op("Softmax", net.linear(last, into, 12, gain=4.0), axis=-1), "words")
    return net


def wav2vec(samples=8000):
    """Baevski et al. 2020, base: seven convolutions over samples, then (here two) transformer layers of 768."""
    net = Net("wav2vec")
    net.input("samples", np.sin(np.arange(samples) * 0.07).astype(np.float32)[None] + image(11, 1, 1, samples)[0])
    x = net.op("Unsqueeze", "samples", np.array([1], np.int64))
    into, length = 1, samples
    for i, (k, stride) in enumerate([(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)]):
        x = net.op("Conv", x, net.weight(512, into, k), kernel_shape=[k], strides=[stride])
        length = (length - k) // stride + 1
        if i == 0:
            # A group norm with as many groups as channels, as PyTorch writes it.
            ones, zeros = np.ones(512, np.float32), np.zeros(512, np.float32)
            flat = net.op("InstanceNormalization", net.reshape(x, 0, 512, -1), ones, zeros)
            x = net.op("Reshape", flat, net.op("Shape", x))
            x = net.op("Mul", x, net.random.uniform(0.5, 1.5, (512, 1)).astype(np.float32))
            x = net.op("Add", x, net.small(512)[:, None])
        x = net.act(x, "gelu")
        into = 512
    x = net.linear(net.layer_norm(net.op("Transpose", x, perm=[0, 2, 1]), 512), 512, 768)
    place = net.op("Transpose", x, perm=[0, 2, 1])
    place = net.op("Conv", place, net.weight(768, 48, 128), net.small(768), kernel_shape=[128], pads=[64, 64], group=16)
    # An even kernel gives one frame too many.
    place = net.op("Slice", place, np.array([0]), np.array([-1]), np.array([2]))
    x = net.op("Add", x, net.op("Transpose", net.act(place, "gelu"), perm=[0, 2, 1]))
    x = encoder(net, net.layer_norm(x, 768), length, 768, 12, 2, 3072, False)
    net.output(x, "features")
    return net


ALL = [
    lambda: resnet(18), lambda: resnet(50), mobilenet_v2, mobilenet_v3_small, efficientnet_lite0, yolo_v8n, vit_tiny, mini_lm,
    deep_lab, u_net, keyword_gru, wav2vec,
]  # fmt: skip
