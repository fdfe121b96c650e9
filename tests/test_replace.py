"""replace_pooling: which layers become what, what is taken over, what is refused and then leaves the model whole."""

import copy
import warnings

import pytest
import torch
from comparison import assert_bitwise
from torch.nn import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    BatchNorm2d,
    Conv2d,
    Linear,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    Module,
    ReLU,
    Sequential,
)

import fastpool
from fastpool import nn
from fastpool._replace import LAYERS, kinds


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


X = {1: random(2, 3, 20), 2: random(2, 3, 20, 18), 3: random(1, 3, 9, 10, 8)}

SAME = [
    ("max", MaxPool1d(3, 2, 1)),
    ("max", MaxPool1d(2, return_indices=True)),
    ("max", MaxPool2d((3, 2), (2, 1), (1, 0), (1, 2), ceil_mode=True)),
    ("max", MaxPool2d(2, return_indices=True)),
    ("max", MaxPool3d(2, ceil_mode=True)),
    ("max", torch.nn.AdaptiveMaxPool1d(4)),
    ("max", AdaptiveMaxPool2d((5, None), return_indices=True)),
    ("max", torch.nn.AdaptiveMaxPool3d((2, None, 3))),
    ("avg", AvgPool1d(3, 2, 1)),
    ("avg", AvgPool1d(3, 2, 1, count_include_pad=False)),
    ("avg", AvgPool2d(3, 2, 1, ceil_mode=True)),
    ("avg", AvgPool2d((3, 2), 2, (1, 0), count_include_pad=False)),
    ("avg", AvgPool2d(2, divisor_override=3)),
    ("avg", AvgPool3d(3, 2, 1, False, False, 5)),
    ("avg", AdaptiveAvgPool1d(4)),
    ("avg", AdaptiveAvgPool2d((None, 3))),
    ("avg", torch.nn.AdaptiveAvgPool3d(2)),
]


@pytest.mark.parametrize(("kind", "old"), SAME, ids=str)
def test_same_kind_same_results(kind, old):
    model = Sequential(old)
    x = X[LAYERS[type(old)][1]]
    expected = old(x)
    ((name, before, after),) = fastpool.replace_pooling(model, kind)
    assert (name, before) == ("0", old) and model[0] is after
    assert type(after) is getattr(nn, type(old).__name__)
    actual = model(x)
    for y, wanted in zip(actual, expected, strict=True) if isinstance(expected, tuple) else [(actual, expected)]:
        assert_bitwise(y, wanted) if kind == "max" else torch.testing.assert_close(y, wanted)
    assert repr(after).replace(", return_indices=True", "") == repr(old)


# Two results; no adaptive form, or arguments without default.
OTHERWISE = ("max_avg", "mean_std", "random_mixed", "lp", "gated", "tree")


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind not in OTHERWISE])
def test_every_kind_keeps_the_geometry(kind):
    model = Sequential(MaxPool2d(3, 2, 1, 2, ceil_mode=True), AvgPool2d((3, 2), 1, (1, 0)), AdaptiveAvgPool2d((4, 3)))
    shape = model(X[2]).shape
    swapped = fastpool.replace_pooling(model, kind)
    assert [name for name, _, _ in swapped] == ["0", "1", "2"]
    assert all(type(new).__module__ == "fastpool.nn" for _, _, new in swapped)
    assert model(X[2]).shape == shape


def test_kinds_are_the_functions_names():
    """So "soft" finds SoftPool2d and "mean_std" MeanStdPool2d, whatever capitals a class has."""
    assert {"max", "avg", "max_avg", "mixed", "stochastic", "random_mixed"} <= set(kinds())
    assert not {"attention", "spatial_pyramid", "global_max", "adaptive_max"} & set(kinds())
    for kind in set(kinds()) - {"random_mixed"}:
        assert hasattr(fastpool, f"{kind}_pool2d"), kind


class Shared(Module):
    def __init__(self):
        super().__init__()
        self.pool = MaxPool2d(2)
        self.stem = Sequential(Conv2d(3, 4, 1), self.pool)
        self.block = Sequential(AvgPool2d(3, 1, 1))
        self.again = self.block
        self.parts = torch.nn.ModuleDict({"first": MaxPool2d(2), "other": AvgPool2d(2)})

    def forward(self, x):
        return self.parts["first"](self.again(self.block(self.pool(self.stem(x)))))


def test_shared_layers_stay_shared():
    model = Shared().eval()
    model.stem.train()
    model.pool.eval()
    swapped = fastpool.replace_pooling(model, "mixed", alpha=0.25)
    found = {name: new for name, _, new in swapped}
    assert list(found) == ["pool", "stem.1", "block.0", "again.0", "parts.first", "parts.other"]
    assert found["pool"] is found["stem.1"] is model.pool is model.stem[1]
    assert found["block.0"] is found["again.0"] is model.block[0]
    assert len({id(new) for new in found.values()}) == 4
    assert all(new is model.get_submodule(name) for name, new in found.items())
    assert not model.pool.training and model.stem.training
    assert model(X[2]).shape == (2, 4, 2, 2)
    assert fastpool.replace_pooling(model, "max") == []


def test_training_is_taken_over():
    model = Sequential(MaxPool2d(2), MaxPool2d(2))
    model[1].eval()
    fastpool.replace_pooling(model, "stochastic", seed=3)
    assert [layer.training for layer in model] == [True, False]
    draws, expectation = nn.StochasticPool2d(2, seed=3), nn.StochasticPool2d(2).eval()
    assert_bitwise(model(X[2]), expectation(draws(X[2])))


class Mine(MaxPool2d):
    def forward(self, x):
        return super().forward(x) + 1


def test_other_layers_stay():
    model = Sequential(Mine(2), torch.nn.LPPool2d(2, 2), torch.nn.FractionalMaxPool2d(2, 3), nn.MaxPool2d(1), ReLU())
    before = list(model)
    assert fastpool.replace_pooling(model, "avg") == []
    assert all(new is old for new, old in zip(model, before, strict=True))
    assert fastpool.replace_pooling(Linear(2, 2), "max") == []


def test_options():
    model = Sequential(AvgPool2d(3, 1, 1, count_include_pad=False), MaxPool2d(3, 1, 1), AdaptiveMaxPool2d(4))
    fastpool.replace_pooling(model, "avg", count_include_pad=True)
    expected = Sequential(AvgPool2d(3, 1, 1), AvgPool2d(3, 1, 1), AdaptiveAvgPool2d(4))
    torch.testing.assert_close(model(X[2]), expected(X[2]))
    kept = Sequential(AvgPool2d(3, 1, 1, count_include_pad=False), MaxPool2d(3, 1, 1))
    fastpool.replace_pooling(kept, "avg")
    assert [layer.count_include_pad for layer in kept] == [False, True]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_parameters_get_the_models_dtype_and_device(dtype):
    model = Sequential(Conv2d(3, 3, 1), BatchNorm2d(3), MaxPool2d(2), MaxPool2d(2)).to(dtype)
    fastpool.replace_pooling(model, "mixed", learnable=True)
    assert model[2].logit.dtype == dtype and model[2].logit is not model[3].logit
    model(X[2].to(dtype)).sum().backward()
    assert model[3].logit.grad.dtype == dtype
    meta = Sequential(MaxPool2d(2), BatchNorm2d(3, affine=False)).to("meta")
    fastpool.replace_pooling(meta, "stochastic", seed=torch.tensor([3]))
    assert meta[0].seed.is_meta and meta[0].seed.dtype == torch.int64


REFUSED = [
    ([MaxPool2d(2)], "max_avg", {}, ValueError, "kind must have one result, but 'max_avg' gives two.*'mixed'"),
    ([MaxPool2d(2)], "median", {}, ValueError, "kind must be one of 'avg', .*'stochastic'.*, got 'median'"),
    ([MaxPool2d(2)], "Max", {}, ValueError, "kind must be one of"),
    ([MaxPool2d(2)], None, {}, TypeError, "kind must be one of .* got None"),
    ([ReLU()], "mixed", {"beta": 1}, TypeError, "beta is no argument of kind 'mixed', which takes alpha, learnable"),
    ([MaxPool2d(2)], "max", {"count_include_pad": True}, TypeError, "count_include_pad is no argument of kind 'max'"),
    ([MaxPool2d(2)], "avg", {"padding": 1}, TypeError, "padding is taken from each layer.*got 1"),
    ([MaxPool2d(2)], "max", {"return_indices": True}, TypeError, "return_indices is taken from each layer"),
    ([MaxPool2d(2)], "mixed", {"alpha": "half"}, TypeError, "layer '0', MaxPool2d.*alpha must be a number"),
    ([MaxPool2d(2)], "random_mixed", {"p": 2}, ValueError, r"layer '0', MaxPool2d.*p must lie in \[0, 1\]"),
    (
        [MaxPool2d(2, return_indices=True)], "avg", {}, ValueError,
        "layer '1.0', MaxPool2d.* cannot become kind 'avg': AvgPool2d has no indices",
    ),
    (
        [AdaptiveMaxPool2d(2, return_indices=True)], "mixed", {}, ValueError,
        "layer '1.0', AdaptiveMaxPool2d.* AdaptiveMixedPool2d has no indices",
    ),
    (
        [AvgPool2d(2), AvgPool2d(2, divisor_override=3)], "max", {}, ValueError,
        "layer '1.1', AvgPool2d.* cannot become kind 'max': MaxPool2d has no divisor, but divisor_override is 3",
    ),
    (
        [MaxPool2d(2), AdaptiveAvgPool2d(1)], "random_mixed", {}, ValueError,
        "layer '1.1', AdaptiveAvgPool2d.* there is no AdaptiveRandomMixedPool2d",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("layers", "kind", "options", "error", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_refused_leaves_the_model_whole(layers, kind, options, error, message):
    model = Sequential(MaxPool2d(2), Sequential(*layers))
    before = dict(model.named_modules())
    with pytest.raises(error, match=message):
        fastpool.replace_pooling(model, kind, **options)
    after = dict(model.named_modules())
    assert after.keys() == before.keys() and all(after[name] is before[name] for name in after)


@pytest.mark.parametrize("model", [MaxPool2d(2), AdaptiveAvgPool1d(3)], ids=str)
def test_a_layer_itself_is_refused(model):
    with pytest.raises(ValueError, match="model must hold the layers to replace, but is itself one.*in place"):
        fastpool.replace_pooling(model, "max")


def test_checkpoints_of_torch_and_back():
    """Names stay, so that only what is learned by new layers is missing, or too much."""
    theirs = Sequential(Conv2d(3, 4, 3), MaxPool2d(2), Sequential(AvgPool2d(2)))
    saved = theirs.state_dict()
    for kind, options in (("max", {}), ("stochastic", {"seed": 3}), ("mixed", {"alpha": 0.25})):
        ours = copy.deepcopy(theirs)
        fastpool.replace_pooling(ours, kind, **options)
        ours.load_state_dict(saved)
        theirs.load_state_dict(ours.state_dict())
    learning = Sequential(Conv2d(3, 4, 3), MaxPool2d(2), Sequential(AvgPool2d(2)))
    fastpool.replace_pooling(learning, "mixed", alpha=0.25, learnable=True)
    start = learning[1].logit.item()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        learning.load_state_dict(saved)
    assert_bitwise(learning[0].weight.detach(), theirs[0].weight.detach())
    assert learning[1].logit.item() == learning[2][0].logit.item() == start
    (warning,) = caught  # for both layers
    assert "has no logit for MixedPool2d, which keeps its own; in a new model that is the initial" in str(
        warning.message
    )
    with pytest.raises(RuntimeError, match='Unexpected key.*"1.logit", "2.0.logit"'):
        theirs.load_state_dict(learning.state_dict())
    assert theirs.load_state_dict(learning.state_dict(), strict=False).unexpected_keys == ["1.logit", "2.0.logit"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learning.load_state_dict(learning.state_dict())


def test_a_checkpoint_of_torch_leaves_no_layer_without_data():
    with torch.device("meta"):
        layer = nn.MixedPool2d(2, learnable=True)
    with pytest.raises(RuntimeError, match='Missing key.*"logit"'):
        layer.load_state_dict({}, assign=True)


def test_a_part_of_what_a_layer_learned_is_missing():
    layer = nn.GatedPool2d(2, bias=True)
    with pytest.raises(RuntimeError, match='Missing key.*"bias"'):
        layer.load_state_dict({"weight": layer.weight})


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got function"):
        fastpool.replace_pooling(lambda x: x, "max")


def test_a_replaced_model_is_copied_compiled_and_traced():
    model = Sequential(Conv2d(3, 4, 3), MaxPool2d(2), AdaptiveAvgPool2d(2)).eval()
    expected = model(X[2])
    traced = torch.fx.symbolic_trace(model)
    for network in (model, traced):
        fastpool.replace_pooling(network, "avg")
        fastpool.replace_pooling(network, "max")
        assert type(network.get_submodule("2")) is nn.AdaptiveAvgPool2d
    assert not torch.allclose(model(X[2]), expected)
    assert_bitwise(traced(X[2]).detach(), model(X[2]).detach())
    assert_bitwise(copy.deepcopy(model)(X[2]).detach(), model(X[2]).detach())
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X[2]), model(X[2]))
