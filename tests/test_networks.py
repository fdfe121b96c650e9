"""replace_pooling on networks of torchvision and timm, where these are installed: by its own kind nothing changes."""

import copy

import pytest
import torch
from comparison import assert_bitwise

import fastpool
import fastpool.nn

# Library, network, options of its constructor, the part that has pooling layers of one kind only, that kind, how many.
NETWORKS = [
    ("torchvision", "alexnet", {}, "features", "max", 3),
    ("torchvision", "vgg11", {}, "features", "max", 5),
    ("torchvision", "squeezenet1_1", {}, "features", "max", 3),
    ("torchvision", "googlenet", {"aux_logits": False, "init_weights": False}, "inception3a", "max", 1),
    ("torchvision", "densenet121", {}, "features.transition1", "avg", 1),
    ("torchvision", "mobilenet_v3_small", {}, "", "avg", 10),
    ("torchvision", "efficientnet_b0", {}, "", "avg", 17),
    ("torchvision", "regnet_y_400mf", {}, "", "avg", 17),
    ("timm", "resnet18", {"features_only": True}, "", "max", 1),
    ("timm", "dla34", {"features_only": True}, "", "max", 6),
    ("timm", "ese_vovnet19b_dw", {"features_only": True}, "", "max", 3),
    ("timm", "poolformer_s12", {}, "", "avg", 13),
    ("timm", "resnet26d", {}, "layer2", "avg", 1),
    ("timm", "inception_v4", {}, "features.6", "avg", 1),
]


def network_of(library, name, options):
    if library == "torchvision":
        models = pytest.importorskip("torchvision.models", reason="torchvision is not installed", exc_type=ImportError)
        options = {"weights": None, **options}
        return getattr(models, name)(**options)
    timm = pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)
    return timm.create_model(name, pretrained=False, **options)


def outputs(model, x):
    y = model(x)
    return list(y) if isinstance(y, (list, tuple)) else [y]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("library", "name", "options", "part", "kind", "count"), NETWORKS, ids=str)
def test_its_own_kind_changes_nothing(library, name, options, part, kind, count, channels_last):
    torch.manual_seed(0)
    network = network_of(library, name, options).eval()
    if kind == "avg":
        network.double()  # sums of other order agree closely
    replaced = copy.deepcopy(network)
    swapped = fastpool.replace_pooling(replaced.get_submodule(part), kind)
    assert len(swapped) == count, [name for name, _, _ in swapped]
    for _, old, new in swapped:
        assert type(new) is getattr(fastpool.nn, type(old).__name__)
    x = torch.randn(2, 3, 96, 96, dtype=next(network.parameters()).dtype)
    if channels_last:
        network, replaced, x = (m.to(memory_format=torch.channels_last) for m in (network, replaced, x))
    expected, actual = outputs(network, x), outputs(replaced, x)
    for y, wanted in zip(actual, expected, strict=True):
        assert wanted.isfinite().all() and wanted.std() > 0
        assert_bitwise(y.detach(), wanted.detach()) if kind == "max" else torch.testing.assert_close(y, wanted)
    assert replaced.state_dict().keys() == network.state_dict().keys()


@pytest.mark.parametrize("kind", ["mixed", "stochastic"])
@pytest.mark.parametrize(("library", "name"), [("torchvision", "resnet18"), ("timm", "resnet26d")])
def test_another_kind_trains(library, name, kind):
    torch.manual_seed(0)
    network = network_of(library, name, {})
    swapped = fastpool.replace_pooling(network, kind, **({"learnable": True} if kind == "mixed" else {}))
    assert len(swapped) >= 2
    network(torch.randn(2, 3, 96, 96)).square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    assert sum(name.endswith("logit") for name in gradients) == (len(swapped) if kind == "mixed" else 0)


@pytest.mark.parametrize("kind", ["mixed", "stochastic"])
@pytest.mark.parametrize("library", ["torch", "timm"])
def test_lightning_trains_and_validates(library, kind, tmp_path):
    """Its trainer changes modes, saves and loads; a drawing layer draws in training alone."""
    lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed", exc_type=ImportError)
    torch.manual_seed(0)
    if library == "timm":
        network = network_of("timm", "resnet18", {"num_classes": 4})
    else:
        layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.AdaptiveAvgPool2d(1)]
        network = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(8, 4))
    swapped = fastpool.replace_pooling(network, kind, **({"learnable": True} if kind == "mixed" else {}))
    modes = {"training": set(), "validation": set()}

    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network

        def step(self, batch, when):
            modes[when] |= {new.training for _, _, new in swapped}
            return torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def training_step(self, batch, _):
            return self.step(batch, "training")

        def validation_step(self, batch, _):
            self.log("loss", self.step(batch, "validation"))

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

    data = torch.utils.data.TensorDataset(torch.randn(8, 3, 64, 64), torch.arange(8) % 4)
    batches = torch.utils.data.DataLoader(data, batch_size=4)
    start = copy.deepcopy(network.state_dict())
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", devices=1)
    trainer = lightning.Trainer(max_epochs=2, default_root_dir=tmp_path, **quiet)
    trainer.fit(Task(), batches, batches)
    assert modes == {"training": {True}, "validation": {False}}
    learned = network.state_dict()
    logits = [name for name in learned if name.endswith("logit")]
    assert len(logits) == (len(swapped) if kind == "mixed" else 0)
    assert all((learned[name] != start[name]).any() for name in logits)
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    network.load_state_dict(start)
    Task.load_from_checkpoint(tmp_path / "saved.ckpt", weights_only=True)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in learned.items())
