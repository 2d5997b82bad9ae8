"""A small convolutional network in numpy: forward, backward, Adam. Nothing else is needed for 8x8 images.

Layers keep what their backward pass needs; `params` and `grads` run in parallel. Images are NCHW.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


class Conv:
    """3x3 convolution, stride 1, padding 1, no bias (a batch norm follows)."""

    def __init__(self, cin, cout, rng):
        scale = np.sqrt(2.0 / (cin * 9))
        self.params = [(rng.standard_normal((cout, cin, 3, 3)) * scale).astype(np.float32)]

    def forward(self, x, train):
        n, c, h, w = x.shape
        windows = sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
        self.columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, c * 9)
        self.shape = x.shape
        weights = self.params[0].reshape(-1, c * 9)
        return (self.columns @ weights.T).reshape(n, h, w, -1).transpose(0, 3, 1, 2)

    def backward(self, g):
        n, c, h, w = self.shape
        rows = g.transpose(0, 2, 3, 1).reshape(n * h * w, -1)
        self.grads = [(rows.T @ self.columns).reshape(self.params[0].shape)]
        columns = (rows @ self.params[0].reshape(-1, c * 9)).reshape(n, h, w, c, 3, 3)
        out = np.zeros((n, c, h + 2, w + 2), np.float32)
        for i in range(3):
            for j in range(3):
                out[:, :, i : i + h, j : j + w] += columns[:, :, :, :, i, j].transpose(0, 3, 1, 2)
        return out[:, :, 1:-1, 1:-1]


class BatchNorm:
    EPSILON = 1e-5

    def __init__(self, channels):
        self.params = [np.ones(channels, np.float32), np.zeros(channels, np.float32)]
        self.mean = np.zeros(channels, np.float32)
        self.var = np.ones(channels, np.float32)

    def forward(self, x, train):
        axes, wide = (0, 2, 3), (None, slice(None), None, None)
        if train:
            mean, var = x.mean(axes), x.var(axes)
            self.mean = 0.9 * self.mean + 0.1 * mean
            self.var = 0.9 * self.var + 0.1 * var
        else:
            mean, var = self.mean, self.var
        self.inv = (1.0 / np.sqrt(var + self.EPSILON)).astype(np.float32)
        self.hat = (x - mean[wide]) * self.inv[wide]
        return self.params[0][wide] * self.hat + self.params[1][wide]

    def backward(self, g):
        axes, wide = (0, 2, 3), (None, slice(None), None, None)
        count = g.size // g.shape[1]
        dgamma, dbeta = (g * self.hat).sum(axes), g.sum(axes)
        self.grads = [dgamma, dbeta]
        inner = g - dbeta[wide] / count - self.hat * dgamma[wide] / count
        return self.params[0][wide] * self.inv[wide] * inner


class Relu:
    params, grads = [], []

    def forward(self, x, train):
        self.mask = x > 0
        return x * self.mask

    def backward(self, g):
        return g * self.mask


class MaxPool:
    """2x2, stride 2."""

    params, grads = [], []

    def forward(self, x, train):
        n, c, h, w = x.shape
        self.blocks = x.reshape(n, c, h // 2, 2, w // 2, 2)
        out = self.blocks.max(axis=(3, 5))
        self.mask = self.blocks == out[:, :, :, None, :, None]
        self.mask = self.mask / self.mask.sum(axis=(3, 5), keepdims=True)
        return out

    def backward(self, g):
        n, c, h, _, w, _ = self.blocks.shape
        return (self.mask * g[:, :, :, None, :, None]).reshape(n, c, h * 2, w * 2).astype(np.float32)


class GlobalAveragePool:
    params, grads = [], []

    def forward(self, x, train):
        self.shape = x.shape
        return x.mean(axis=(2, 3), keepdims=True)

    def backward(self, g):
        n, c, h, w = self.shape
        return np.broadcast_to(g / (h * w), self.shape).astype(np.float32)


class Flatten:
    params, grads = [], []

    def forward(self, x, train):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, g):
        return g.reshape(self.shape)


class Dense:
    def __init__(self, cin, cout, rng):
        self.params = [
            (rng.standard_normal((cin, cout)) * np.sqrt(1.0 / cin)).astype(np.float32),
            np.zeros(cout, np.float32),
        ]

    def forward(self, x, train):
        self.x = x
        return x @ self.params[0] + self.params[1]

    def backward(self, g):
        self.grads = [self.x.T @ g, g.sum(0)]
        return g @ self.params[0].T


class Network:
    """A stack of layers; with `wide`, a dense layer straight from the pixels adds to the last layer's scores."""

    def __init__(self, layers, wide=None):
        self.layers, self.wide = layers, wide

    def forward(self, x, train=False):
        out = x
        for layer in self.layers:
            out = layer.forward(out, train)
        if self.wide:
            out = out + self.wide.forward(x.reshape(len(x), -1), train)
        return out

    def backward(self, g):
        if self.wide:
            self.wide.backward(g)
        for layer in reversed(self.layers):
            g = layer.backward(g)

    def trainable(self):
        return [layer for layer in [*self.layers, self.wide] if layer is not None and layer.params]


def train(network, images, labels, *, epochs, batch, rate, rng, augment=None):
    """Cross entropy, Adam, the rate falling to zero along a cosine."""
    moments = {}
    step, steps = 0, epochs * (len(images) // batch)
    for _ in range(epochs):
        order = rng.permutation(len(images))
        seen = augment(images, rng) if augment else images
        for start in range(0, len(images) - batch + 1, batch):
            chosen = order[start : start + batch]
            scores = network.forward(seen[chosen], train=True)
            e = np.exp(scores - scores.max(1, keepdims=True))
            p = e / e.sum(1, keepdims=True)
            p[np.arange(batch), labels[chosen]] -= 1.0
            network.backward((p / batch).astype(np.float32))
            step += 1
            now = rate * 0.5 * (1 + np.cos(np.pi * step / steps))
            for layer in network.trainable():
                for i, grad in enumerate(layer.grads):
                    m, v = moments.get((id(layer), i), (0.0, 0.0))
                    m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad * grad
                    moments[id(layer), i] = m, v
                    layer.params[i] -= (
                        now * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
                    ).astype(np.float32)


def accuracy(network, images, labels):
    return float((network.forward(images).argmax(1) == labels).mean())
