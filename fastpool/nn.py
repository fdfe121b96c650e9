"""Poolings as modules. Where torch.nn has the pooling, constructor arguments and representation are the same.

What could not hold for any input is refused at construction. What a module learns starts anew by `reset_parameters`.

Example:
    >>> import torch, fastpool
    >>> pool = fastpool.nn.MixedPool2d(2, alpha=0.25, learnable=True, num_channels=8)
    >>> pool(torch.rand(1, 8, 6, 6)).shape
    torch.Size([1, 8, 3, 3])
    >>> fastpool.nn.SpatialPyramidPool2d((4, 2, 1))(torch.rand(1, 8, 13, 9)).shape
    torch.Size([1, 168])
"""

from __future__ import annotations

import functools
import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from . import functional
from ._arguments import as_int, exact, per_axis
from ._checks import check_flag, check_input, number, refuse_scripting
from ._docs import documented_module
from ._kinds import OPTIONS, Distribution, Mode, avg_integers, check_mode, check_own, lp_power
from ._layouts import layout_of, memory_format
from ._operators import POOLINGS, is_sharded
from ._overrides import leaf
from ._windows import Bins, Flatten, Levels, OutputSize, Padding, Size, check_adaptive, check_pyramid, check_sliding

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveGeMPool1d",
    "AdaptiveGeMPool2d",
    "AdaptiveGeMPool3d",
    "AdaptiveLSEPool1d",
    "AdaptiveLSEPool2d",
    "AdaptiveLSEPool3d",
    "AdaptiveMaxAvgPool1d",
    "AdaptiveMaxAvgPool2d",
    "AdaptiveMaxAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AdaptiveMeanStdPool1d",
    "AdaptiveMeanStdPool2d",
    "AdaptiveMeanStdPool3d",
    "AdaptiveMinPool1d",
    "AdaptiveMinPool2d",
    "AdaptiveMinPool3d",
    "AdaptiveMixedPool1d",
    "AdaptiveMixedPool2d",
    "AdaptiveMixedPool3d",
    "AdaptiveSoftPool1d",
    "AdaptiveSoftPool2d",
    "AdaptiveSoftPool3d",
    "AdaptiveStochasticPool1d",
    "AdaptiveStochasticPool2d",
    "AdaptiveStochasticPool3d",
    "AttentionPool2d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "GatedPool1d",
    "GatedPool2d",
    "GatedPool3d",
    "GeMPool1d",
    "GeMPool2d",
    "GeMPool3d",
    "GlobalAvgPool",
    "GlobalGeMPool",
    "GlobalLSEPool",
    "GlobalMaxAvgPool",
    "GlobalMaxPool",
    "GlobalMeanStdPool",
    "GlobalMinPool",
    "GlobalMixedPool",
    "GlobalSoftPool",
    "GlobalStochasticPool",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "LSEPool1d",
    "LSEPool2d",
    "LSEPool3d",
    "MaxAvgPool1d",
    "MaxAvgPool2d",
    "MaxAvgPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MeanStdPool1d",
    "MeanStdPool2d",
    "MeanStdPool3d",
    "MinPool1d",
    "MinPool2d",
    "MinPool3d",
    "MixedPool1d",
    "MixedPool2d",
    "MixedPool3d",
    "RandomMixedPool1d",
    "RandomMixedPool2d",
    "RandomMixedPool3d",
    "SPPF2d",
    "SoftPool1d",
    "SoftPool2d",
    "SoftPool3d",
    "SpatialPyramidPool1d",
    "SpatialPyramidPool2d",
    "SpatialPyramidPool3d",
    "StochasticPool1d",
    "StochasticPool2d",
    "StochasticPool3d",
    "TreePool1d",
    "TreePool2d",
    "TreePool3d",
]


class _Pool(torch.nn.Module):
    """A function and its arguments: a windowing base stores the geometry, a kind the rest, the leaves the function."""

    function: ClassVar[Callable[..., Any]]
    rank: ClassVar[int]  # 0: any
    described: ClassVar[dict[str, str]] = {}  # arguments that the function lacks, and "": what else is to be said
    shown: tuple[str, ...]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__module__ != __name__:
            return
        if "forward" in cls.__dict__:
            cls.forward = leaf(cls.forward)  # type: ignore[method-assign]
        if cls.__name__.startswith("_"):
            return
        cls.rank = int(cls.__name__[-2]) if cls.__name__.endswith("d") else 0
        signature = inspect.signature(cls.__init__)
        cls.__init__ = _naming(cls.__name__, cls.__init__, signature)  # type: ignore[method-assign]
        if cls.__doc__ is None:
            _, *arguments = signature.parameters
            cls.__doc__ = documented_module(cls.__name__, cls.function, arguments, cls.described)

    @leaf
    def forward(self, input: Tensor) -> Any:
        return self.pool(input)

    def pool(self, input: Tensor, **options: Any) -> Any:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={self.displayed(name)}" for name in self.shown)

    def displayed(self, name: str) -> Any:
        return getattr(self, name)

    def keep(self, name: str, value: Any, persistent: bool) -> None:
        """A tensor as a buffer, which moves with the module, but a parameter, as anything else, as an attribute."""
        if isinstance(value, Tensor) and not isinstance(value, torch.nn.Parameter):
            self.register_buffer(name, value, persistent)
        else:
            setattr(self, name, value)

    def __prepare_scriptable__(self) -> Any:
        return refuse_scripting(type(self).__name__)()


def _naming(name: str, init: Callable[..., None], signature: inspect.Signature) -> Callable[..., None]:
    """A constructor that names its class in what it refuses; it may be inherited from a private one."""

    @functools.wraps(init)
    def construct(self: Any, *args: Any, **options: Any) -> None:
        try:
            signature.bind(self, *args, **options)
            init(self, *args, **options)
        except (TypeError, ValueError) as error:
            error.args = (f"{name}: {error}",)
            raise

    return construct


class _Sliding(_Pool):
    shown: tuple[str, ...] = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        check_sliding(self.rank, kernel_size, stride, padding, dilation, ceil_mode)
        self.kernel_size = kernel_size
        self.stride: Size | None = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode

    def pool(self, input: Tensor, **options: Any) -> Any:
        size, stride, padding, dilation = self.kernel_size, self.stride, self.padding, self.dilation
        return self.function(input, size, stride, padding, dilation=dilation, ceil_mode=self.ceil_mode, **options)


class _Adaptive(_Pool):
    shown = ("output_size",)

    def __init__(self, output_size: OutputSize) -> None:
        super().__init__()
        check_adaptive(self.rank, output_size)
        self.output_size = output_size

    def pool(self, input: Tensor, **options: Any) -> Any:
        return self.function(input, self.output_size, **options)


class _Global(_Pool):
    shown = ("keepdim",)

    def __init__(self, keepdim: bool = True) -> None:
        super().__init__()
        check_flag("keepdim", keepdim)
        self.keepdim = keepdim

    def pool(self, input: Tensor, **options: Any) -> Any:
        return self.function(input, self.keepdim, **options)


class _Own(_Pool):
    """Own arguments, that of _Learned first."""

    own: tuple[str, ...]

    def _store(self, kind: str, **values: Any) -> None:
        check_own(POOLINGS[kind], values)
        self.own = tuple(values)
        for name, value in values.items():
            if name not in self._parameters:
                self.keep(name, value, persistent=True)

    def forward(self, input: Tensor) -> Any:
        return self.pool(input, **{name: getattr(self, name) for name in self.own})

    def extra_repr(self) -> str:
        return ", ".join((super().extra_repr(), *(f"{name}={_text(getattr(self, name))}" for name in self.own)))


class _Learning(_Pool):
    """May hold parameters, by default one, that starts, and starts again, at a number or a tensor."""

    num_channels: int | None = None  # that have a value, or a filter, of their own
    start: tuple[str, float | Tensor] | None = None

    def _learn(self, name: str, start: float | Tensor, num_channels: int | None) -> None:
        like = start if isinstance(start, Tensor) else torch.empty(())
        self.start = name, start.detach().clone() if isinstance(start, Tensor) else start
        self.num_channels = num_channels
        # What all channels share as (1,): fully_shard takes no parameter without an axis.
        parameter = like.new_empty(num_channels or like.shape or (1,))
        self.register_parameter(name, torch.nn.Parameter(parameter))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.start is None:
            return
        name, start = self.start
        parameter = self.get_parameter(name).detach()
        # Not a number as a tensor, which would not be sharded where the parameter is.
        parameter.copy_(start) if isinstance(start, Tensor) else parameter.fill_(start)

    def pool(self, input: Tensor, **options: Any) -> Any:
        self.check_channels(input)
        return super().pool(input, **options)

    def check_channels(self, input: Any) -> None:
        """Before the function, which knows a parameter's shape and not where it comes from."""
        first = input[0] if isinstance(input, (list, tuple)) and input else input
        if self.num_channels is None or not isinstance(first, Tensor) or first.is_nested:
            return
        if first.dim() <= max(self.rank, 1):
            return
        channels = first.shape[-1 - self.rank if self.rank else 1]
        if channels != self.num_channels:
            raise ValueError(f"num_channels is {self.num_channels}, but input has {channels} channels")

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, missing: list[str], *others: Any
    ) -> None:
        for name in self._parameters:
            saved = state_dict.get(prefix + name)
            if isinstance(saved, Tensor) and saved.dim() == 0:
                state_dict[prefix + name] = saved.reshape(1)  # what all channels share had no axis once
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *others)
        names = [name for name, parameter in self.named_parameters(recurse=False) if not parameter.is_meta]
        keys = {prefix + name for name in names}
        if keys and keys <= {*missing}:
            missing[:] = [key for key in missing if key not in keys]
            # The same words for every such layer: Python shows them once.
            warnings.warn(
                f"the state dict, perhaps of a model with other poolings, has no {' and '.join(names)} for "
                f"{type(self).__name__}, which keeps its own; in a new model that is the initial one",
                stacklevel=1,
            )


class _Learned(_Learning, _Own):
    described = {
        "learnable": "train the parameter, which starts at the given value.",
        "num_channels": "one learned value for each of so many channels instead of one for all.",
    }

    def _store(self, kind: str, learnable: bool = False, num_channels: int | None = None, **values: Any) -> None:
        name = next(iter(values))
        _check_learnable(learnable, num_channels, name, values[name])
        check_own(POOLINGS[kind], values)
        if learnable:
            self._learn(name, values[name], num_channels)
        super()._store(kind, **values)


def _check_learnable(learnable: bool, num_channels: int | None, name: str, start: Any) -> None:
    check_flag("learnable", learnable)
    if num_channels is not None and not learnable:
        raise ValueError(f"num_channels is for learnable=True, got num_channels={num_channels!r}")
    _check_num_channels(num_channels)
    if num_channels is not None and isinstance(start, Tensor):
        if start.dim() > 1 or start.numel() not in (1, num_channels):
            raise ValueError(
                f"{name} must be a number or of shape ({num_channels},) with num_channels={num_channels}, "
                f"got shape {tuple(start.shape)}"
            )


def _check_num_channels(num_channels: int | None) -> None:
    if num_channels is None:
        return
    if as_int(num_channels) is None:
        raise TypeError(f"num_channels must be an int or None, got {num_channels!r}")
    if num_channels < 1:
        raise ValueError(f"num_channels must be at least 1, got {num_channels}")


def _text(value: Any) -> str:
    """Of an argument in a module's representation."""
    if isinstance(value, torch.nn.Parameter):
        return _learned_text(value)
    return f"tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


def _learned_text(parameter: Tensor, value: Callable[[Tensor], Tensor] = torch.Tensor.detach) -> str:
    # What is sharded over processes, or has no data, is not read.
    if type(parameter) is not torch.nn.Parameter or parameter.is_meta:
        return "learned"
    mean = value(parameter.detach()).double().mean().item()
    count = parameter.numel()
    return f"{mean:.4g} ({f'mean of {count}, ' if count > 1 else ''}learned)"


class _Max(_Pool):
    return_indices: bool

    def _store_indices(self, return_indices: bool) -> None:
        check_flag("return_indices", return_indices)
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        return self.pool(input, return_indices=self.return_indices)

    def extra_repr(self) -> str:
        return super().extra_repr() + (", return_indices=True" if self.return_indices else "")


class _Mixed(_Learning):
    """Holds alpha: a number, a buffer, or the sigmoid of a learned logit."""

    described = {
        "alpha": "a number, or a tensor as the function takes it, a buffer if it is no parameter; where training "
        "starts if ``learnable``, and then in (0, 1).",
        "learnable": "train alpha, as the sigmoid of the parameter ``logit``, which keeps it in (0, 1).",
        "num_channels": "one learned alpha for each of so many channels instead of one for all.",
    }
    logit: torch.nn.Parameter | None
    fixed_alpha: float | Tensor

    def _store_alpha(self, alpha: float | Tensor, learnable: bool, num_channels: int | None) -> None:
        _check_learnable(learnable, num_channels, "alpha", alpha)
        check_own(POOLINGS["mixed"], {"alpha": alpha})
        if not learnable:
            self.logit = None
            self.keep("fixed_alpha", alpha if isinstance(alpha, Tensor) else number("alpha", alpha), persistent=True)
            return
        logit: float | Tensor = 0.0
        if isinstance(alpha, Tensor):
            logit = torch.logit(alpha.detach())
            inside = alpha.is_meta or bool(logit.isfinite().all())
        else:
            inside = 0 < alpha < 1
            logit = math.log(alpha / (1 - alpha)) if inside else 0.0
        if not inside:
            raise ValueError(f"alpha must lie in (0, 1) to be learnable, got {alpha}")
        self._learn("logit", logit, num_channels)

    @property
    def alpha(self) -> float | Tensor:
        return self.fixed_alpha if self.logit is None else torch.sigmoid(self.logit)

    def forward(self, input: Tensor) -> Any:
        return self.pool(input, alpha=self.alpha)

    def extra_repr(self) -> str:
        alpha = _text(self.fixed_alpha) if self.logit is None else _learned_text(self.logit, torch.sigmoid)
        return f"{super().extra_repr()}, alpha={alpha}"


class _Stochastic(_Pool):
    """Draws in training mode and takes the expectation in evaluation mode."""

    described = {
        "": "Draws after ``train()`` and takes the expectation after ``eval()``, where ``return_indices=True`` is "
        "refused. With a fixed ``seed`` every call draws alike; a one-element tensor is a buffer, whose value may "
        "change between calls."
    }
    seed: int | Tensor | None

    def _store_draw(
        self,
        distribution: Distribution,
        temperature: float,
        generator: torch.Generator | None,
        seed: int | Tensor | None,
        offset: Sequence[int],
        return_indices: bool,
    ) -> None:
        draw = {"distribution": distribution, "temperature": temperature, "return_indices": return_indices}
        check_own(POOLINGS["stochastic"], {**draw, "generator": generator, "seed": seed, "offset": offset})
        self.distribution = distribution
        self.temperature = temperature
        self.generator = generator
        self.keep("seed", seed, persistent=False)
        self.offset = offset
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        return self.pool(
            input,
            training=self.training,
            distribution=self.distribution,
            temperature=self.temperature,
            generator=self.generator,
            seed=self.seed,
            offset=self.offset,
            return_indices=self.return_indices,
        )

    def extra_repr(self) -> str:
        parts = [super().extra_repr(), f"distribution={self.distribution!r}", f"temperature={self.temperature}"]
        for name, default in (("seed", None), ("offset", (0, 0)), ("return_indices", False)):
            value = getattr(self, name)
            if isinstance(value, Tensor) or value != default:
                parts.append(f"{name}={_text(value)}")
        return ", ".join(parts)


class _SlidingMax(_Max, _Sliding):
    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        self._store_indices(return_indices)


class _SlidingAvg(_Sliding):
    shown: tuple[str, ...] = ("kernel_size", "stride", "padding")

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        *,
        dilation: Size = 1,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        avg_integers(count_include_pad, divisor_override)
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override
        if dilation != 1:
            self.shown = (*self.shown, "dilation")

    def forward(self, input: Tensor) -> Any:
        return self.pool(input, count_include_pad=self.count_include_pad, divisor_override=self.divisor_override)


class _Filtering(_Learning, _Sliding):
    def _filter(self, num_channels: int | None, *count: int) -> torch.nn.Parameter:
        _check_num_channels(num_channels)
        self.num_channels = num_channels
        kernel = per_axis("kernel_size", exact("kernel_size", self.kernel_size), self.rank, 1)
        return torch.nn.Parameter(torch.empty(*count, *([num_channels] if num_channels else []), *kernel))


class _SlidingGated(_Filtering):
    """Holds the filter, and perhaps a bias."""

    described = {
        "": "The filter starts as N(0, 0.1^2), the bias at 0.",
        "num_channels": "one filter, and one bias, for each of so many channels instead of one for all.",
        "bias": "learn a bias, too.",
    }

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        *,
        num_channels: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        check_flag("bias", bias)
        self.weight = self._filter(num_channels)
        self.bias = torch.nn.Parameter(torch.empty(num_channels or 1)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        torch.nn.init.normal_(self.weight, std=0.1)
        if self.bias is not None:
            torch.nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Any:
        return self.pool(input, weight=self.weight, bias=self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weight={tuple(self.weight.shape)}, bias={self.bias is not None}"


class _SlidingTree(_Filtering):
    """Holds the filters of leaves and gates."""

    described = {
        "": "Leaves start near the average, gates as N(0, 0.1^2).",
        "levels": "1 for two leaves, 2 for four.",
        "num_channels": "filters for each of so many channels instead of those for all.",
    }

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        *,
        levels: int = 2,
        num_channels: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        if type(levels) is not int or levels not in (1, 2):
            raise ValueError(f"levels must be 1 or 2, got {levels!r}")
        self.leaves = self._filter(num_channels, 2**levels)
        self.gates = self._filter(num_channels, 2**levels - 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        taps = math.prod(self.leaves.shape[-self.rank :])
        torch.nn.init.normal_(self.leaves, 1 / taps, 0.1 / taps)
        torch.nn.init.normal_(self.gates, std=0.1)

    def forward(self, input: Tensor) -> Any:
        return self.pool(input, leaves=self.leaves, gates=self.gates)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, leaves={tuple(self.leaves.shape)}"


class _SlidingMixed(_Mixed, _Sliding):
    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        *,
        alpha: float | Tensor = 0.5,
        learnable: bool = False,
        num_channels: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        self._store_alpha(alpha, learnable, num_channels)


class _SlidingStochastic(_Stochastic, _Sliding):
    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        *,
        distribution: Distribution = "relu",
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        seed: int | Tensor | None = None,
        offset: Sequence[int] = (0, 0),
        return_indices: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        self._store_draw(distribution, temperature, generator, seed, offset, return_indices)


class _AdaptiveMax(_Max, _Adaptive):
    def __init__(self, output_size: OutputSize, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self._store_indices(return_indices)


class _AdaptiveMixed(_Mixed, _Adaptive):
    def __init__(
        self,
        output_size: OutputSize,
        *,
        alpha: float | Tensor = 0.5,
        learnable: bool = False,
        num_channels: int | None = None,
    ) -> None:
        super().__init__(output_size)
        self._store_alpha(alpha, learnable, num_channels)


class _AdaptiveStochastic(_Stochastic, _Adaptive):
    def __init__(
        self,
        output_size: OutputSize,
        *,
        distribution: Distribution = "relu",
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        seed: int | Tensor | None = None,
        offset: Sequence[int] = (0, 0),
        return_indices: bool = False,
    ) -> None:
        super().__init__(output_size)
        self._store_draw(distribution, temperature, generator, seed, offset, return_indices)


class _GlobalMax(_Max, _Global):
    def __init__(self, keepdim: bool = True, *, return_indices: bool = False) -> None:
        super().__init__(keepdim)
        self._store_indices(return_indices)


class _GlobalMixed(_Mixed, _Global):
    def __init__(
        self,
        keepdim: bool = True,
        *,
        alpha: float | Tensor = 0.5,
        learnable: bool = False,
        num_channels: int | None = None,
    ) -> None:
        super().__init__(keepdim)
        self._store_alpha(alpha, learnable, num_channels)


class _GlobalStochastic(_Stochastic, _Global):
    def __init__(
        self,
        keepdim: bool = True,
        *,
        distribution: Distribution = "relu",
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        seed: int | Tensor | None = None,
        offset: Sequence[int] = (0, 0),
        return_indices: bool = False,
    ) -> None:
        super().__init__(keepdim)
        self._store_draw(distribution, temperature, generator, seed, offset, return_indices)


class _SlidingLP(_Sliding):
    shown: tuple[str, ...] = ("norm_type", "kernel_size", "stride", "ceil_mode")

    def __init__(
        self,
        norm_type: float,
        kernel_size: Size,
        stride: Size | None = None,
        ceil_mode: bool = False,
        *,
        padding: Padding = 0,
        dilation: Size = 1,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        lp_power(norm_type)
        self.stride = stride  # as torch shows it
        self.norm_type = norm_type
        if padding != 0 or dilation != 1:
            self.shown = (*self.shown, "padding", "dilation")

    def forward(self, input: Tensor) -> Any:
        return self.function(
            input,
            self.norm_type,
            self.kernel_size,
            self.stride,
            self.ceil_mode,
            padding=self.padding,
            dilation=self.dilation,
        )


class _SpatialPyramid(_Mixed, _Learned):
    described = {
        "options": 'arguments of the mode\'s module, as ``learnable`` for ``mode="mixed"``, but ``return_indices``; '
        '``mode="stochastic"`` draws after ``train()`` and takes the expectation after ``eval()``.'
    }
    shown = ("levels", "mode", "bins", "flatten")
    own: tuple[str, ...] = ()

    def __init__(
        self,
        levels: Levels = (4, 2, 1),
        *,
        mode: Mode = "max",
        bins: Bins = "adaptive",
        flatten: Flatten = "level",
        **options: Any,
    ) -> None:
        super().__init__()
        check_pyramid(self.rank, levels, bins, flatten)
        self.levels = levels
        self.mode = mode
        self.bins = bins
        self.flatten = flatten
        if "training" in options:
            raise TypeError(f"training is what train() and eval() set, got training={options['training']!r}")
        learns = ("learnable", "num_channels")
        check_mode(mode, options, {kind: own + learns * POOLINGS[kind].parameter for kind, own in OPTIONS.items()})
        pooling = POOLINGS[mode]._replace(regions=False)
        check_own(pooling, options)
        if pooling.parameter:
            learnable, num_channels = options.pop("learnable", False), options.pop("num_channels", None)
            for argument in pooling.arguments:
                options.setdefault(argument.name, argument.value)
            if mode == "mixed":
                self._store_alpha(options["alpha"], learnable, num_channels)
            else:
                self._store(mode, learnable, num_channels, **options)
            options = {}
        self.keep("seed", options.pop("seed", None), persistent=False)
        self.options = options

    def forward(self, input: Tensor | Sequence[Tensor]) -> Any:
        options = {**self.options, **{name: getattr(self, name) for name in self.own}}
        self.check_channels(input)
        if self.mode == "mixed":
            options = {"alpha": self.alpha}
        elif self.mode == "stochastic":
            options = {**options, "seed": self.seed, "training": self.training}
        return self.function(input, self.levels, mode=self.mode, bins=self.bins, flatten=self.flatten, **options)

    def extra_repr(self) -> str:
        if self.mode == "mixed":
            return _Mixed.extra_repr(self)
        given = self.options if self.seed is None else {**self.options, "seed": self.seed}
        return ", ".join((_Own.extra_repr(self), *(f"{name}={_text(value)}" for name, value in given.items())))


# Written by _write.py from the table:


class _SlidingSoft(_Learned, _Sliding):
    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        *,
        beta: float | Tensor = 1.0,
        learnable: bool = False,
        num_channels: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        self._store("soft", learnable, num_channels, beta=beta)


class _AdaptiveSoft(_Learned, _Adaptive):
    def __init__(
        self,
        output_size: OutputSize,
        *,
        beta: float | Tensor = 1.0,
        learnable: bool = False,
        num_channels: int | None = None,
    ) -> None:
        super().__init__(output_size)
        self._store("soft", learnable, num_channels, beta=beta)


class _SlidingLSE(_Learned, _Sliding):
    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        *,
        r: float | Tensor = 1.0,
        learnable: bool = False,
        num_channels: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        self._store("lse", learnable, num_channels, r=r)


class _AdaptiveLSE(_Learned, _Adaptive):
    def __init__(
        self,
        output_size: OutputSize,
        *,
        r: float | Tensor = 1.0,
        learnable: bool = False,
        num_channels: int | None = None,
    ) -> None:
        super().__init__(output_size)
        self._store("lse", learnable, num_channels, r=r)


class _SlidingGeM(_Learned, _Sliding):
    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        *,
        p: float | Tensor = 3.0,
        eps: float = 1e-6,
        learnable: bool = True,
        num_channels: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        self._store("gem", learnable, num_channels, p=p, eps=eps)


class _AdaptiveGeM(_Learned, _Adaptive):
    def __init__(
        self,
        output_size: OutputSize,
        *,
        p: float | Tensor = 3.0,
        eps: float = 1e-6,
        learnable: bool = True,
        num_channels: int | None = None,
    ) -> None:
        super().__init__(output_size)
        self._store("gem", learnable, num_channels, p=p, eps=eps)


class _SlidingMeanStd(_Own, _Sliding):
    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        *,
        correction: float = 0,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        self._store("mean_std", correction=correction)


class _AdaptiveMeanStd(_Own, _Adaptive):
    def __init__(
        self,
        output_size: OutputSize,
        *,
        correction: float = 0,
    ) -> None:
        super().__init__(output_size)
        self._store("mean_std", correction=correction)


class MinPool1d(_SlidingMax):
    function = staticmethod(functional.min_pool1d)


class MinPool2d(_SlidingMax):
    function = staticmethod(functional.min_pool2d)


class MinPool3d(_SlidingMax):
    function = staticmethod(functional.min_pool3d)


class AdaptiveMinPool1d(_AdaptiveMax):
    function = staticmethod(functional.adaptive_min_pool1d)


class AdaptiveMinPool2d(_AdaptiveMax):
    function = staticmethod(functional.adaptive_min_pool2d)


class AdaptiveMinPool3d(_AdaptiveMax):
    function = staticmethod(functional.adaptive_min_pool3d)


class GlobalMinPool(_GlobalMax):
    function = staticmethod(functional.global_min_pool)


class MaxPool1d(_SlidingMax):
    function = staticmethod(functional.max_pool1d)


class MaxPool2d(_SlidingMax):
    function = staticmethod(functional.max_pool2d)


class MaxPool3d(_SlidingMax):
    function = staticmethod(functional.max_pool3d)


class AdaptiveMaxPool1d(_AdaptiveMax):
    function = staticmethod(functional.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMax):
    function = staticmethod(functional.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMax):
    function = staticmethod(functional.adaptive_max_pool3d)


class GlobalMaxPool(_GlobalMax):
    function = staticmethod(functional.global_max_pool)


class MaxAvgPool1d(_Sliding):
    function = staticmethod(functional.max_avg_pool1d)


class MaxAvgPool2d(_Sliding):
    function = staticmethod(functional.max_avg_pool2d)


class MaxAvgPool3d(_Sliding):
    function = staticmethod(functional.max_avg_pool3d)


class AdaptiveMaxAvgPool1d(_Adaptive):
    function = staticmethod(functional.adaptive_max_avg_pool1d)


class AdaptiveMaxAvgPool2d(_Adaptive):
    function = staticmethod(functional.adaptive_max_avg_pool2d)


class AdaptiveMaxAvgPool3d(_Adaptive):
    function = staticmethod(functional.adaptive_max_avg_pool3d)


class GlobalMaxAvgPool(_Global):
    function = staticmethod(functional.global_max_avg_pool)


class MixedPool1d(_SlidingMixed):
    function = staticmethod(functional.mixed_pool1d)


class MixedPool2d(_SlidingMixed):
    function = staticmethod(functional.mixed_pool2d)


class MixedPool3d(_SlidingMixed):
    function = staticmethod(functional.mixed_pool3d)


class AdaptiveMixedPool1d(_AdaptiveMixed):
    function = staticmethod(functional.adaptive_mixed_pool1d)


class AdaptiveMixedPool2d(_AdaptiveMixed):
    function = staticmethod(functional.adaptive_mixed_pool2d)


class AdaptiveMixedPool3d(_AdaptiveMixed):
    function = staticmethod(functional.adaptive_mixed_pool3d)


class GlobalMixedPool(_GlobalMixed):
    function = staticmethod(functional.global_mixed_pool)


class StochasticPool1d(_SlidingStochastic):
    function = staticmethod(functional.stochastic_pool1d)


class StochasticPool2d(_SlidingStochastic):
    function = staticmethod(functional.stochastic_pool2d)


class StochasticPool3d(_SlidingStochastic):
    function = staticmethod(functional.stochastic_pool3d)


class AdaptiveStochasticPool1d(_AdaptiveStochastic):
    function = staticmethod(functional.adaptive_stochastic_pool1d)


class AdaptiveStochasticPool2d(_AdaptiveStochastic):
    function = staticmethod(functional.adaptive_stochastic_pool2d)


class AdaptiveStochasticPool3d(_AdaptiveStochastic):
    function = staticmethod(functional.adaptive_stochastic_pool3d)


class GlobalStochasticPool(_GlobalStochastic):
    function = staticmethod(functional.global_stochastic_pool)


class SoftPool1d(_SlidingSoft):
    function = staticmethod(functional.soft_pool1d)


class SoftPool2d(_SlidingSoft):
    function = staticmethod(functional.soft_pool2d)


class SoftPool3d(_SlidingSoft):
    function = staticmethod(functional.soft_pool3d)


class AdaptiveSoftPool1d(_AdaptiveSoft):
    function = staticmethod(functional.adaptive_soft_pool1d)


class AdaptiveSoftPool2d(_AdaptiveSoft):
    function = staticmethod(functional.adaptive_soft_pool2d)


class AdaptiveSoftPool3d(_AdaptiveSoft):
    function = staticmethod(functional.adaptive_soft_pool3d)


class GlobalSoftPool(_Learned, _Global):
    function = staticmethod(functional.global_soft_pool)

    def __init__(
        self,
        keepdim: bool = True,
        *,
        beta: float | Tensor = 1.0,
        learnable: bool = False,
        num_channels: int | None = None,
    ) -> None:
        super().__init__(keepdim)
        self._store("soft", learnable, num_channels, beta=beta)


class LSEPool1d(_SlidingLSE):
    function = staticmethod(functional.lse_pool1d)


class LSEPool2d(_SlidingLSE):
    function = staticmethod(functional.lse_pool2d)


class LSEPool3d(_SlidingLSE):
    function = staticmethod(functional.lse_pool3d)


class AdaptiveLSEPool1d(_AdaptiveLSE):
    function = staticmethod(functional.adaptive_lse_pool1d)


class AdaptiveLSEPool2d(_AdaptiveLSE):
    function = staticmethod(functional.adaptive_lse_pool2d)


class AdaptiveLSEPool3d(_AdaptiveLSE):
    function = staticmethod(functional.adaptive_lse_pool3d)


class GlobalLSEPool(_Learned, _Global):
    function = staticmethod(functional.global_lse_pool)

    def __init__(
        self,
        keepdim: bool = True,
        *,
        r: float | Tensor = 1.0,
        learnable: bool = False,
        num_channels: int | None = None,
    ) -> None:
        super().__init__(keepdim)
        self._store("lse", learnable, num_channels, r=r)


class GeMPool1d(_SlidingGeM):
    function = staticmethod(functional.gem_pool1d)


class GeMPool2d(_SlidingGeM):
    function = staticmethod(functional.gem_pool2d)


class GeMPool3d(_SlidingGeM):
    function = staticmethod(functional.gem_pool3d)


class AdaptiveGeMPool1d(_AdaptiveGeM):
    function = staticmethod(functional.adaptive_gem_pool1d)


class AdaptiveGeMPool2d(_AdaptiveGeM):
    function = staticmethod(functional.adaptive_gem_pool2d)


class AdaptiveGeMPool3d(_AdaptiveGeM):
    function = staticmethod(functional.adaptive_gem_pool3d)


class GlobalGeMPool(_Learned, _Global):
    function = staticmethod(functional.global_gem_pool)

    def __init__(
        self,
        keepdim: bool = True,
        *,
        p: float | Tensor = 3.0,
        eps: float = 1e-6,
        learnable: bool = True,
        num_channels: int | None = None,
    ) -> None:
        super().__init__(keepdim)
        self._store("gem", learnable, num_channels, p=p, eps=eps)


class MeanStdPool1d(_SlidingMeanStd):
    function = staticmethod(functional.mean_std_pool1d)


class MeanStdPool2d(_SlidingMeanStd):
    function = staticmethod(functional.mean_std_pool2d)


class MeanStdPool3d(_SlidingMeanStd):
    function = staticmethod(functional.mean_std_pool3d)


class AdaptiveMeanStdPool1d(_AdaptiveMeanStd):
    function = staticmethod(functional.adaptive_mean_std_pool1d)


class AdaptiveMeanStdPool2d(_AdaptiveMeanStd):
    function = staticmethod(functional.adaptive_mean_std_pool2d)


class AdaptiveMeanStdPool3d(_AdaptiveMeanStd):
    function = staticmethod(functional.adaptive_mean_std_pool3d)


class GlobalMeanStdPool(_Own, _Global):
    function = staticmethod(functional.global_mean_std_pool)

    def __init__(
        self,
        keepdim: bool = True,
        *,
        correction: float = 0,
    ) -> None:
        super().__init__(keepdim)
        self._store("mean_std", correction=correction)


class GatedPool1d(_SlidingGated):
    function = staticmethod(functional.gated_pool1d)


class GatedPool2d(_SlidingGated):
    function = staticmethod(functional.gated_pool2d)


class GatedPool3d(_SlidingGated):
    function = staticmethod(functional.gated_pool3d)


class TreePool1d(_SlidingTree):
    function = staticmethod(functional.tree_pool1d)


class TreePool2d(_SlidingTree):
    function = staticmethod(functional.tree_pool2d)


class TreePool3d(_SlidingTree):
    function = staticmethod(functional.tree_pool3d)


# End of what is written.


class AvgPool1d(_SlidingAvg):
    function = staticmethod(functional.avg_pool1d)

    def displayed(self, name: str) -> Any:
        # torch.nn.AvgPool1d alone shows its sizes as tuples.
        value = super().displayed(name)
        return (value,) if isinstance(value, int) else value


class AvgPool2d(_SlidingAvg):
    function = staticmethod(functional.avg_pool2d)


class AvgPool3d(_SlidingAvg):
    function = staticmethod(functional.avg_pool3d)


class AdaptiveAvgPool1d(_Adaptive):
    function = staticmethod(functional.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_Adaptive):
    function = staticmethod(functional.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_Adaptive):
    function = staticmethod(functional.adaptive_avg_pool3d)


class GlobalAvgPool(_Global):
    function = staticmethod(functional.global_avg_pool)


class LPPool1d(_SlidingLP):
    function = staticmethod(functional.lp_pool1d)


class LPPool2d(_SlidingLP):
    function = staticmethod(functional.lp_pool2d)


class LPPool3d(_SlidingLP):
    function = staticmethod(functional.lp_pool3d)


class SpatialPyramidPool1d(_SpatialPyramid):
    function = staticmethod(functional.spatial_pyramid_pool1d)


class SpatialPyramidPool2d(_SpatialPyramid):
    function = staticmethod(functional.spatial_pyramid_pool2d)


class SpatialPyramidPool3d(_SpatialPyramid):
    function = staticmethod(functional.spatial_pyramid_pool3d)


class SPPF2d(_Pool):
    """The input beside its maxima over growing 2-D windows, as detection models take them: "SPPF".

    The module of :func:`fastpool.sppf2d`, which has the formula, its gradient and what ties and NaN give.

    Args:
        kernel_size: the window's size: an odd int, or a pair of them.
        repeats: how many maxima, at least 1.

    Shape:
        Input: ``(N, C, H, W)`` or ``(C, H, W)``.
        Output: ``(N, (repeats + 1) * C, H, W)``, without N where the input has none.

    Example:
        >>> import torch, fastpool
        >>> fastpool.nn.SPPF2d()(torch.rand(1, 8, 13, 13)).shape
        torch.Size([1, 32, 13, 13])
    """

    function = staticmethod(functional.sppf2d)
    shown = ("kernel_size", "repeats")

    def __init__(self, kernel_size: Size = 5, repeats: int = 3) -> None:
        super().__init__()
        functional._sppf_arguments(kernel_size, repeats)
        self.kernel_size = kernel_size
        self.repeats = repeats

    def forward(self, input: Tensor) -> Tensor:
        return functional.sppf2d(input, self.kernel_size, self.repeats)


class _RandomMixed(_Sliding):
    """Draws maximum or mean in training mode and blends both in evaluation mode."""

    both: ClassVar[Callable[..., tuple[Tensor, Tensor]]]
    blend: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        *,
        p: float = 0.5,
        per_channel: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)
        self.p = number("p", p)
        if not 0 <= self.p <= 1:
            raise ValueError(f"p must lie in [0, 1], got {p}")
        check_flag("per_channel", per_channel)
        self.per_channel = per_channel

    def forward(self, input: Tensor) -> Tensor:
        windows = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        if not self.training:
            return self.blend(input, *windows, alpha=self.p)
        maximum, mean = self.both(input, *windows)
        draws = maximum.shape[-1 - self.rank] if self.per_channel else 1
        takes_maximum = torch.rand(draws, device=maximum.device) < self.p
        if is_sharded(maximum):
            from ._sharding import beside_shards  # which imports torch.distributed.tensor

            takes_maximum = beside_shards(takes_maximum, maximum)
        # Not lambda * maximum + (1 - lambda) * mean, which is NaN where the other one is infinite.
        return torch.where(takes_maximum.view(-1, *[1] * self.rank), maximum, mean)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, p={self.p}, per_channel={self.per_channel}"


_RANDOM_MIXED = """Maximum or mean of {rank}-D windows, whichever is drawn.

    After ``train()`` every call draws lambda from {{0, 1}}, 1 with probability p, and returns
    ``lambda * max + (1 - lambda) * mean``: the very bits of one pooling, whose gradient alone flows. After ``eval()``
    the result is ``p * max + (1 - p) * mean``, that of :func:`fastpool.mixed_pool{rank}d`. The mean is over the
    elements inside the input; ties, NaN and empty batches are as in :func:`fastpool.max_avg_pool{rank}d`. Draws come
    from torch's default generator of the input's device, and nothing waits for that device.

    Args:
        kernel_size, stride, padding, dilation, ceil_mode: as in :func:`fastpool.mixed_pool{rank}d`.
        p: the probability of the maximum, a number in [0, 1].
        per_channel: draw for each channel on its own instead of once for the layer; samples always share a draw.

    Shape:
        Input: ``(N, C, *sizes)`` or ``(C, *sizes)``.
        Output: ``(N, C, *windows)`` of the input's dtype and layout, without N where the input has none.

    Raises:
        TypeError, ValueError: for an argument that is not as described.

    Example:
        >>> import torch, fastpool
        >>> pool = fastpool.nn.RandomMixedPool{rank}d({windows}, p=0.25)
        >>> x = torch.tensor([3.0, 1.0, 2.0, 6.0]).reshape({shape})
        >>> pool(x).flatten().tolist() in ([3.0, 6.0], [2.0, 4.0])
        True
        >>> pool.eval()(x).flatten()
        tensor([2.2500, 4.5000])

    Reference:
        Yu, Wang, Chen, Wei: Mixed pooling for convolutional neural networks (RSKT 2014).
    """


class RandomMixedPool1d(_RandomMixed):
    __doc__ = _RANDOM_MIXED.format(rank=1, windows="2", shape="1, 1, 4")
    both = staticmethod(functional.max_avg_pool1d)
    blend = staticmethod(functional.mixed_pool1d)


class RandomMixedPool2d(_RandomMixed):
    __doc__ = _RANDOM_MIXED.format(rank=2, windows="(1, 2)", shape="1, 1, 1, 4")
    both = staticmethod(functional.max_avg_pool2d)
    blend = staticmethod(functional.mixed_pool2d)


class RandomMixedPool3d(_RandomMixed):
    __doc__ = _RANDOM_MIXED.format(rank=3, windows="(1, 1, 2)", shape="1, 1, 1, 1, 4")
    both = staticmethod(functional.max_avg_pool3d)
    blend = staticmethod(functional.mixed_pool3d)


class AttentionPool2d(_Pool):
    """Every position, or every cell of a smaller map, gathers from all positions what resembles it.

    ``y_i = sum_j softmax_j(scale * <q_i, k_j>) v_j``, where q, k and v are 1x1 convolutions of the input (the modules
    ``query``, ``key`` and ``value``, initialised as torch.nn.Conv2d) and j runs over all H*W positions. With
    ``output_size`` the queries come from the adaptively averaged input instead, and the result has that size. One head,
    through :func:`torch.nn.functional.scaled_dot_product_attention`: its fused kernels need no memory of (H*W)^2. They
    have no second derivative; ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`` around the calls has.

    Args:
        in_features: channels of the input.
        out_features: channels of the result, of queries, keys and values.
        scale: a factor of the scores; 1 as in non-local networks, ``out_features ** -0.5`` as in transformers.
        output_size: None for the input's, an int, or a pair whose entries may be None, as in
            :func:`fastpool.adaptive_avg_pool2d`.

    Shape:
        Input: ``(N, in_features, H, W)`` or ``(in_features, H, W)``, of the parameters' dtype: float16, bfloat16,
            float32 or float64.
        Output: ``(N, out_features, H, W)`` with ``output_size`` for H, W where that is given, without N where the input
            has none. Channels-last stays so.

    Raises:
        TypeError, ValueError: for an argument that is not as described.

    Example:
        >>> import torch, fastpool
        >>> pool = fastpool.nn.AttentionPool2d(16, 32, scale=32 ** -0.5, output_size=7)
        >>> pool(torch.rand(2, 16, 20, 24)).shape
        torch.Size([2, 32, 7, 7])

    Reference:
        Vaswani et al.: Attention is all you need (NeurIPS 2017); Wang, Girshick, Gupta, He: Non-local neural networks
        (CVPR 2018).
    """

    shown = ("in_features", "out_features", "scale", "output_size")

    def __init__(
        self, in_features: int, out_features: int, scale: float = 1.0, output_size: OutputSize | None = None
    ) -> None:
        super().__init__()
        for name, features in (("in_features", in_features), ("out_features", out_features)):
            if isinstance(exact(name, features), tuple):
                raise TypeError(f"{name} must be an int, got {features!r}")
            if features < 1:
                raise ValueError(f"{name} must be at least 1, got {features}")
        self.in_features = in_features
        self.out_features = out_features
        self.scale = number("scale", scale)
        if output_size is not None:
            check_adaptive(self.rank, output_size)
        self.output_size = output_size
        self.query = torch.nn.Conv2d(in_features, out_features, 1)
        self.key = torch.nn.Conv2d(in_features, out_features, 1)
        self.value = torch.nn.Conv2d(in_features, out_features, 1)

    def reset_parameters(self) -> None:
        for convolution in (self.query, self.key, self.value):
            convolution.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        check_input(input)
        if input.dim() not in (3, 4) or input.shape[-3] != self.in_features or 0 in input.shape[-2:]:
            axes = f"{self.in_features}, H, W"
            raise ValueError(f"input must be (N, {axes}) or ({axes}), with H, W >= 1, got shape {tuple(input.shape)}")
        x = input if input.dim() == 4 else input.unsqueeze(0)
        seeking = x if self.output_size is None else functional.adaptive_avg_pool2d(x, self.output_size)
        # One head; channels side by side, without which no fused kernel takes them.
        query, key, value = [
            convolution(positions).flatten(2).unsqueeze(1).mT.contiguous()
            for convolution, positions in ((self.query, seeking), (self.key, x), (self.value, x))
        ]
        found = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=self.scale)
        y = found.squeeze(1).mT.reshape(x.shape[0], self.out_features, *seeking.shape[2:])
        y = y.contiguous(memory_format=memory_format(layout_of(x), 4))
        return y if input.dim() == 4 else y.squeeze(0)
