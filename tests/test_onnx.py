"""torch.onnx.export of the layers: standard operators alone, with which ONNX Runtime gives the layers' results."""

import pytest
import torch
from comparison import assert_bitwise
from torch.utils._pytree import tree_leaves

from fastpool import nn

pytest.importorskip("onnxscript", reason="torch.onnx.export needs onnxscript")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

NEWEST = 26  # of ONNX Runtime 1.31
DYNAMIC = {0: "n", 2: "height", 3: "width"}
ASYMMETRIC = ((1, 0), (0, 1))
SELECTIONS = {
    "symmetric": lambda: nn.MaxPool2d(3, 2, 1, return_indices=True),
    "asymmetric": lambda: nn.MinPool2d(3, 2, ASYMMETRIC, return_indices=True),
    "ceil_mode": lambda: nn.MaxPool2d(2, 2, ceil_mode=True),
    "same": lambda: nn.MaxPool2d(4, 3, "same"),
    "dilation": lambda: nn.MaxPool2d(3, 1, 2, dilation=2),
    "adaptive": lambda: nn.AdaptiveMaxPool2d((4, None), return_indices=True),
    "global": lambda: nn.GlobalMinPool(keepdim=False, return_indices=True),
    "pyramid": lambda: nn.SpatialPyramidPool2d((4, 2, 1)),
    "floor": lambda: nn.SpatialPyramidPool2d((4, (1, 3)), mode="min", bins="floor", flatten="channel"),
    "infinite norm": lambda: nn.LPPool2d(float("inf"), 3, 2),
}
AVERAGES = {
    "symmetric": lambda: nn.AvgPool2d(3, 2, 1),
    "without padding": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "ceil_mode": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "same": lambda: nn.AvgPool2d(2, 2, "same", count_include_pad=False),
    "divisor": lambda: nn.AvgPool2d(3, 2, ASYMMETRIC, divisor_override=5),
    "dilation": lambda: nn.AvgPool2d(3, 2, 2, dilation=2),
    "adaptive": lambda: nn.AdaptiveAvgPool2d((4, None)),
    "global": lambda: nn.GlobalAvgPool(),
}
KINDS = {
    "max_avg": lambda: nn.MaxAvgPool2d(3, 2, ASYMMETRIC),
    "mixed": lambda: nn.MixedPool2d(3, 2, 1, learnable=True, num_channels=3),
    "random": lambda: nn.RandomMixedPool2d(3, 2, 1, p=0.25),
    "stochastic": lambda: nn.StochasticPool2d(3, 2, 1),
    "soft-max": lambda: nn.StochasticPool2d(3, 2, ceil_mode=True, distribution="softmax"),
    "soft": lambda: nn.SoftPool2d(3, 2, 1, learnable=True, num_channels=3),
    "lse": lambda: nn.LSEPool2d(3, 2, 1, r=1e-3),  # the mean but for what exp(x) - 1 would lose
    "gem": lambda: nn.GeMPool2d(3, 2, 1),
    "mean_std": lambda: nn.MeanStdPool2d(3, 2, 1, correction=1),
    "lp": lambda: nn.LPPool2d(4, 3, 2, ceil_mode=True),
    "gated": lambda: nn.GatedPool2d(3, 2, 1, num_channels=3, bias=True),
    "tree": lambda: nn.TreePool2d(3, 2, ASYMMETRIC),
}
BINS = {
    "max_avg": lambda: nn.SpatialPyramidPool2d((3, 1), mode="max_avg", flatten="channel"),
    "mixed": lambda: nn.GlobalMixedPool(alpha=0.25),
    "soft": lambda: nn.GlobalSoftPool(),
    "gem": lambda: nn.AdaptiveGeMPool2d((3, 4), num_channels=3),
    "mean_std": lambda: nn.SpatialPyramidPool2d((2, 1), mode="mean_std", bins="floor", flatten=None),
    "attention": lambda: nn.AttentionPool2d(3, 4, output_size=(3, 4)),
}


class Layers(torch.nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, x):
        return [y for layer in self.layers for y in tree_leaves(layer(x))]


def features(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[-1])).to(dtype)


def exported(model, x, dynamic=None, opset=None):
    program = torch.onnx.export(
        model.eval(), (x,), dynamo=True, dynamic_shapes=dynamic and (dynamic,), opset_version=opset, verbose=False
    )
    assert {node.domain for node in program.model_proto.graph.node} == {""}
    return program.model_proto


def results(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(y) for y in session.run(None, {session.get_inputs()[0].name: x.numpy()})]


def some(layers, *names):
    return {name: layers[name] for name in names}


def check(layers, inputs, dynamic=None, opset=None, rtol=1e-6):
    """`inputs`: the first is exported with, all are tried. Those of SELECTIONS give the same bits."""
    named = {name: layer().to(inputs[0].dtype).eval() for name, layer in layers.items()}
    model = exported(Layers(named.values()), inputs[0], dynamic, opset)
    for x in inputs:
        found = iter(results(model, x))
        for name, layer in named.items():
            for expected in tree_leaves(layer(x)):
                what, actual = f"{name} of {tuple(x.shape)}", next(found)
                assert actual.dtype == expected.dtype, what
                if layers[name] in SELECTIONS.values():
                    assert_bitwise(actual, expected, what)
                else:
                    torch.testing.assert_close(
                        actual, expected, rtol=rtol, atol=rtol, msg=lambda text, what=what: f"{what}: {text}"
                    )
    return model


@pytest.mark.parametrize("layers", [SELECTIONS, AVERAGES, KINDS, BINS], ids=["selections", "averages", "kinds", "bins"])
def test_exports(layers):
    check(layers, [features(2, 3, 11, 13)])


@pytest.mark.parametrize(
    "layers",
    [
        some(SELECTIONS, "asymmetric", "ceil_mode", "same", "adaptive"),
        some(AVERAGES, "ceil_mode", "adaptive", "global"),
        {"sliding": KINDS["soft"], "global": BINS["soft"]},
    ],
    ids=["selections", "averages", "formulas"],
)
def test_batch_and_size_are_free(layers):
    check(layers, [features(2, 3, 11, 13), features(1, 3, 17, 9), features(5, 3, 12, 16)], DYNAMIC)


@pytest.mark.parametrize("opset", [18, NEWEST])
def test_opsets(opset):
    layers = {"max": SELECTIONS["symmetric"], "avg": AVERAGES["adaptive"]}
    model = check(layers, [features(2, 3, 11, 13)], opset=opset)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [opset]


@pytest.mark.parametrize("dtype, rtol", [(torch.float16, 2**-10), (torch.float64, 1e-14)], ids=str)
def test_dtypes(dtype, rtol):
    layers = {"max": SELECTIONS["asymmetric"], "avg": AVERAGES["ceil_mode"], "soft": KINDS["soft"]}
    check(layers, [features(2, 3, 11, 13, dtype=dtype)], rtol=rtol)


def test_bfloat16():
    """NumPy has none: cast inside the model."""

    class Cast(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.pools = Layers([nn.MaxPool2d(3, 2, 1), nn.SoftPool2d(2)]).bfloat16()

        def forward(self, x):
            return [y.float() for y in self.pools(x.bfloat16())]

    model, x = Cast(), features(2, 3, 11, 13)
    maximum, soft = results(exported(model, x, opset=18), x)
    expected = model(x)
    assert_bitwise(maximum, expected[0])
    torch.testing.assert_close(soft, expected[1], rtol=2**-7, atol=2**-7)


def test_ranks():
    check({"max": lambda: nn.MaxPool1d(3, 2, 1), "min": lambda: nn.AdaptiveMinPool1d(4)}, [features(2, 3, 13)], rtol=0)
    layers = {"avg": lambda: nn.AvgPool3d(3, 2, ((1, 0), 1, (0, 1))), "lse": lambda: nn.GlobalLSEPool()}
    check(layers, [features(2, 3, 5, 6, 7)])
    check({"unbatched": lambda: nn.SoftPool2d(2)}, [features(3, 5, 6)])


def test_usual_layers_are_the_nodes_that_runtimes_know():
    layers = {
        "max": lambda: nn.MaxPool2d(3, 2, 1),
        "avg": lambda: nn.AvgPool2d(2),
        "sppf": lambda: nn.SPPF2d(),
        "global": lambda: nn.GlobalAvgPool(),
    }
    nodes = check(layers, [features(2, 3, 11, 13), features(1, 3, 10, 15)], DYNAMIC).graph.node
    assert sorted(node.op_type for node in nodes) == ["AveragePool", "Concat", *["MaxPool"] * 4, "ReduceMean"]
    squares = [onnx.helper.get_node_attr_value(node, "kernel_shape") for node in nodes if node.op_type == "MaxPool"]
    assert sorted(squares) == [[3, 3], *[[5, 5]] * 3]


def test_draws_are_refused():
    model = torch.nn.Sequential(nn.StochasticPool2d(2)).train()
    with pytest.raises(Exception, match=r"call \.eval\(\) on the model"):
        torch.onnx.export(model, (features(1, 2, 4, 4),), dynamo=True, verbose=False)


def test_dynamo_sees_the_same(monkeypatch):
    """The exporter's second attempt, where the first fails."""
    from torch.onnx._internal.exporter import _capture_strategies

    monkeypatch.setattr(_capture_strategies, "CAPTURE_STRATEGIES", (_capture_strategies.TorchExportStrictStrategy,))
    check(some(SELECTIONS, "ceil_mode"), [features(2, 3, 11, 13)])


def test_export_for_torch_keeps_the_operators():
    program = torch.export.export(nn.SoftPool2d(2).eval(), (features(1, 2, 4, 4),))
    assert torch.ops.fastpool.soft_pool.default in {node.target for node in program.graph.nodes}
