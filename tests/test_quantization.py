"""Eager quantisation by torch.ao: layers work on the floats between two stubs, and say so of quantised tensors."""

import pytest
import torch
from torch.nn import Conv2d, MaxPool2d, Module, ReLU, Sequential

from fastpool import nn

quantization = pytest.importorskip("torch.ao.quantization", reason="this torch has no torch.ao.quantization")
ENGINE = torch.backends.quantized.engine
X = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))

pytestmark = [
    pytest.mark.skipif(ENGINE == "none", reason="this torch has no engine for quantised tensors"),
    pytest.mark.filterwarnings("ignore"),  # torch.ao's, of its own deprecation and of calibrating with few data
]


class Network(Module):
    def __init__(self, pool):
        super().__init__()
        self.quantise, self.dequantise = quantization.QuantStub(), quantization.DeQuantStub()
        torch.manual_seed(0)
        self.layers = Sequential(Conv2d(3, 4, 3), ReLU(), pool, Conv2d(4, 2, 3))

    def forward(self, x):
        return self.dequantise(self.layers(self.quantise(x)))


def quantised(pool):
    network = Network(pool).eval()
    network.qconfig = quantization.get_default_qconfig(ENGINE)
    prepared = quantization.prepare(network)
    prepared(X)
    return quantization.convert(prepared)


def test_between_stubs():
    network = quantised(Sequential(quantization.DeQuantStub(), nn.MaxPool2d(2), quantization.QuantStub()))
    assert type(network.layers[2][0]) is torch.ao.nn.quantized.DeQuantize
    assert type(network.layers[2][1]) is nn.MaxPool2d
    expected = quantised(MaxPool2d(2))(X)
    # Quantised once more: a step or two of the last layer's scale.
    torch.testing.assert_close(network(X), expected, rtol=0, atol=2 * float(network.layers[3].scale))
    assert expected.abs().max() > 10 * float(network.layers[3].scale)


def test_quantised_tensors_are_refused_with_advice():
    with pytest.raises(
        TypeError, match="torch.quint8 .* put a DeQuantStub in front of the layer and a QuantStub behind"
    ):
        quantised(nn.MaxPool2d(2))(X)


def test_dynamic_quantisation_leaves_the_layers_alone():
    network = Sequential(nn.GlobalMixedPool(keepdim=False, learnable=True), torch.nn.Linear(3, 4)).eval()
    dynamic = quantization.quantize_dynamic(network, {torch.nn.Linear})
    torch.testing.assert_close(dynamic(X), network(X), rtol=0, atol=0.05)
