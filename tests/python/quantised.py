"""Networks in eight bits, as ONNX Runtime's own tool quantises them: with pairs around each operator, or with operators of their own."""

import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from networks import mobilenet_v3_small, resnet
from other_networks import squeeze_net


class Shown(CalibrationDataReader):
    """One picture to measure ranges with."""

    def __init__(self, given):
        self.left = [given]

    def get_next(self):
        return self.left.pop() if self.left else None


def quantise(net, form):
    """The model of a net, quantised."""
    with tempfile.TemporaryDirectory() as directory:
        plain, quantised = Path(directory) / "plain.onnx", Path(directory) / "quantised.onnx"
        onnx.save(net.model(), plain)
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
        quantize_static(plain, quantised, Shown(net.given), quant_format=form, **types)
        return onnx.load(quantised)


def named(make, form):
    """The net, under another name, whose model is the quantised one."""

    def made():
        net = make()
        model = quantise(net, form)
        net.name = f"{net.name}-{form.name.lower()}"
        net.model = lambda: model
        return net

    return made


ALL = [
    named(mobilenet_v3_small, QuantFormat.QDQ),
    named(lambda: resnet(18), QuantFormat.QOperator),
    named(squeeze_net, QuantFormat.QDQ),
]
