"""Poolings as modules. Where torch.nn has the pooling, constructor arguments and representation are the same.

Example:
    >>> import torch, fastpool
    >>> pool = fastpool.nn.MixedPool2d(2, alpha=0.25, learnable=True, num_channels=8)
    >>> pool(torch.rand(1, 8, 6, 6)).shape
    torch.Size([1, 8, 3, 3])
    >>> fastpool.nn.SpatialPyramidPool2d((4, 2, 1))(torch.rand(1, 8, 13, 9)).shape
    torch.Size([1, 168])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from . import functional
from ._arguments import exact
from ._checks import check_flag, number, refuse_scripting
from ._kinds import OPTIONS, check_mode
from ._windows import Levels, OutputSize, Padding, Size

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxAvgPool1d",
    "AdaptiveMaxAvgPool2d",
    "AdaptiveMaxAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AdaptiveMixedPool1d",
    "AdaptiveMixedPool2d",
    "AdaptiveMixedPool3d",
    "AdaptiveStochasticPool1d",
    "AdaptiveStochasticPool2d",
    "AdaptiveStochasticPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "GlobalAvgPool",
    "GlobalMaxAvgPool",
    "GlobalMaxPool",
    "GlobalMixedPool",
    "GlobalStochasticPool",
    "MaxAvgPool1d",
    "MaxAvgPool2d",
    "MaxAvgPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MixedPool1d",
    "MixedPool2d",
    "MixedPool3d",
    "SPPF2d",
    "SpatialPyramidPool1d",
    "SpatialPyramidPool2d",
    "SpatialPyramidPool3d",
    "StochasticPool1d",
    "StochasticPool2d",
    "StochasticPool3d",
]


class _Pool(torch.nn.Module):
    """A function and its arguments: a windowing base stores the geometry, a kind the rest, the leaves the function."""

    function: ClassVar[Callable[..., Any]]
    notes: ClassVar[str] = ""
    shown: tuple[str, ...]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "function" in cls.__dict__ and cls.__doc__ is None:
            name = cls.function.__name__
            cls.__doc__ = f"Module form of :func:`fastpool.{name}`, where the arguments are explained.{cls.notes}"

    def forward(self, input: Tensor) -> Any:
        return self.pool(input)

    def pool(self, input: Tensor, **options: Any) -> Any:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={self.displayed(name)}" for name in self.shown)

    def displayed(self, name: str) -> Any:
        return getattr(self, name)

    def keep(self, name: str, value: Any, persistent: bool) -> None:
        """A tensor as a buffer, which moves with the module; anything else as an attribute."""
        if isinstance(value, Tensor):
            self.register_buffer(name, value, persistent)
        else:
            setattr(self, name, value)

    def __prepare_scriptable__(self) -> Any:
        return refuse_scripting(type(self).__name__)()


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
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
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
        self.output_size = output_size

    def pool(self, input: Tensor, **options: Any) -> Any:
        return self.function(input, self.output_size, **options)


class _Global(_Pool):
    shown = ("keepdim",)

    def __init__(self, keepdim: bool = True) -> None:
        super().__init__()
        self.keepdim = keepdim

    def pool(self, input: Tensor, **options: Any) -> Any:
        return self.function(input, self.keepdim, **options)


class _Max(_Pool):
    return_indices: bool

    def forward(self, input: Tensor) -> Any:
        return self.pool(input, return_indices=self.return_indices)


class _Mixed(_Pool):
    """Holds alpha: a number, a buffer, or the sigmoid of a learned logit."""

    notes = """

    Args:
        alpha: where training starts if ``learnable``; it must then lie in (0, 1). Other tensors become a buffer.
        learnable: train alpha, as the sigmoid of the parameter ``logit``, which keeps it in (0, 1).
        num_channels: one learned alpha for each of so many channels instead of one for all.
    """
    logit: torch.nn.Parameter | None
    fixed_alpha: float | Tensor

    def _store_alpha(self, alpha: float | Tensor, learnable: bool, num_channels: int | None) -> None:
        if num_channels is not None and not learnable:
            raise ValueError(f"num_channels is for learnable=True, got num_channels={num_channels}")
        if num_channels is not None and exact("num_channels", num_channels) < 1:
            raise ValueError(f"num_channels must be at least 1, got {num_channels}")
        check_flag("learnable", learnable)
        if not learnable:
            self.logit = None
            self.keep("fixed_alpha", alpha if isinstance(alpha, Tensor) else number("alpha", alpha), persistent=True)
            return
        if isinstance(alpha, Tensor):
            logit = torch.logit(alpha.detach())
            inside = alpha.is_meta or bool(logit.isfinite().all())
        else:
            inside = 0 < number("alpha", alpha) < 1
            logit = torch.tensor(math.log(alpha / (1 - alpha)) if inside else 0.0)
        if not inside:
            raise ValueError(f"alpha must lie in (0, 1) to be learnable, got {alpha}")
        if num_channels is not None:
            if logit.dim() > 1 or logit.numel() not in (1, num_channels):
                raise ValueError(f"alpha must be a number or ({num_channels},), got shape {tuple(logit.shape)}")
            logit = logit.expand(num_channels).clone()
        self.logit = torch.nn.Parameter(logit)

    @property
    def alpha(self) -> float | Tensor:
        return self.fixed_alpha if self.logit is None else torch.sigmoid(self.logit)

    def forward(self, input: Tensor) -> Any:
        return self.pool(input, alpha=self.alpha)

    def extra_repr(self) -> str:
        stored = self.fixed_alpha if self.logit is None else self.logit
        alpha = f"tensor of shape {tuple(stored.shape)}" if isinstance(stored, Tensor) else stored
        return f"{super().extra_repr()}, alpha={alpha}, learnable={self.logit is not None}"


class _Stochastic(_Pool):
    """Draws in training mode and takes the expectation in evaluation mode."""

    notes = """

    Draws after ``train()`` and takes the expectation after ``eval()``, where ``return_indices=True`` is refused. With a
    fixed ``seed`` every call draws alike; a one-element tensor is a buffer, whose value may change between calls.
    """
    seed: int | Tensor | None

    def _store_draw(
        self,
        distribution: str,
        temperature: float,
        generator: torch.Generator | None,
        seed: int | Tensor | None,
        offset: Sequence[int],
        return_indices: bool,
    ) -> None:
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
        return f"{super().extra_repr()}, distribution={self.distribution!r}, temperature={self.temperature}"


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
        self.return_indices = return_indices


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
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override
        if dilation != 1:
            self.shown = (*self.shown, "dilation")

    def forward(self, input: Tensor) -> Any:
        return self.pool(input, count_include_pad=self.count_include_pad, divisor_override=self.divisor_override)


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
        distribution: str = "relu",
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
        self.return_indices = return_indices


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
        distribution: str = "relu",
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        seed: int | Tensor | None = None,
        offset: Sequence[int] = (0, 0),
        return_indices: bool = False,
    ) -> None:
        super().__init__(output_size)
        self._store_draw(distribution, temperature, generator, seed, offset, return_indices)


class _SpatialPyramid(_Mixed):
    notes = """

    The mode's arguments are those of its module, as ``learnable`` for ``mode="mixed"``; ``mode="stochastic"`` draws
    after ``train()`` and takes the expectation after ``eval()``.
    """
    shown = ("levels", "mode", "bins", "flatten")

    def __init__(
        self,
        levels: Levels = (4, 2, 1),
        *,
        mode: str = "max",
        bins: str = "adaptive",
        flatten: str | None = "level",
        **options: Any,
    ) -> None:
        super().__init__()
        self.levels = levels
        self.mode = mode
        self.bins = bins
        self.flatten = flatten
        if "training" in options:
            raise TypeError(f"training is what train() and eval() set, got training={options['training']!r}")
        check_mode(mode, options, {**OPTIONS, "mixed": ("alpha", "learnable", "num_channels")})
        if mode == "mixed":
            learnable, num_channels = options.pop("learnable", False), options.pop("num_channels", None)
            self._store_alpha(options.pop("alpha", 0.5), learnable, num_channels)
        self.keep("seed", options.pop("seed", None), persistent=False)
        self.options = options

    def forward(self, input: Tensor | Sequence[Tensor]) -> Any:
        options = self.options
        if self.mode == "mixed":
            options = {"alpha": self.alpha}
        elif self.mode == "stochastic":
            options = {**options, "seed": self.seed, "training": self.training}
        return self.function(input, self.levels, mode=self.mode, bins=self.bins, flatten=self.flatten, **options)

    def extra_repr(self) -> str:
        return _Mixed.extra_repr(self) if self.mode == "mixed" else _Pool.extra_repr(self)


class MaxPool1d(_SlidingMax):
    function = staticmethod(functional.max_pool1d)


class MaxPool2d(_SlidingMax):
    function = staticmethod(functional.max_pool2d)


class MaxPool3d(_SlidingMax):
    function = staticmethod(functional.max_pool3d)


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


class MaxAvgPool1d(_Sliding):
    function = staticmethod(functional.max_avg_pool1d)


class MaxAvgPool2d(_Sliding):
    function = staticmethod(functional.max_avg_pool2d)


class MaxAvgPool3d(_Sliding):
    function = staticmethod(functional.max_avg_pool3d)


class MixedPool1d(_SlidingMixed):
    function = staticmethod(functional.mixed_pool1d)


class MixedPool2d(_SlidingMixed):
    function = staticmethod(functional.mixed_pool2d)


class MixedPool3d(_SlidingMixed):
    function = staticmethod(functional.mixed_pool3d)


class StochasticPool1d(_SlidingStochastic):
    function = staticmethod(functional.stochastic_pool1d)


class StochasticPool2d(_SlidingStochastic):
    function = staticmethod(functional.stochastic_pool2d)


class StochasticPool3d(_SlidingStochastic):
    function = staticmethod(functional.stochastic_pool3d)


class AdaptiveMaxPool1d(_AdaptiveMax):
    function = staticmethod(functional.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMax):
    function = staticmethod(functional.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMax):
    function = staticmethod(functional.adaptive_max_pool3d)


class AdaptiveAvgPool1d(_Adaptive):
    function = staticmethod(functional.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_Adaptive):
    function = staticmethod(functional.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_Adaptive):
    function = staticmethod(functional.adaptive_avg_pool3d)


class AdaptiveMaxAvgPool1d(_Adaptive):
    function = staticmethod(functional.adaptive_max_avg_pool1d)


class AdaptiveMaxAvgPool2d(_Adaptive):
    function = staticmethod(functional.adaptive_max_avg_pool2d)


class AdaptiveMaxAvgPool3d(_Adaptive):
    function = staticmethod(functional.adaptive_max_avg_pool3d)


class AdaptiveMixedPool1d(_AdaptiveMixed):
    function = staticmethod(functional.adaptive_mixed_pool1d)


class AdaptiveMixedPool2d(_AdaptiveMixed):
    function = staticmethod(functional.adaptive_mixed_pool2d)


class AdaptiveMixedPool3d(_AdaptiveMixed):
    function = staticmethod(functional.adaptive_mixed_pool3d)


class AdaptiveStochasticPool1d(_AdaptiveStochastic):
    function = staticmethod(functional.adaptive_stochastic_pool1d)


class AdaptiveStochasticPool2d(_AdaptiveStochastic):
    function = staticmethod(functional.adaptive_stochastic_pool2d)


class AdaptiveStochasticPool3d(_AdaptiveStochastic):
    function = staticmethod(functional.adaptive_stochastic_pool3d)


class GlobalMaxPool(_Max, _Global):
    function = staticmethod(functional.global_max_pool)

    def __init__(self, keepdim: bool = True, *, return_indices: bool = False) -> None:
        super().__init__(keepdim)
        self.return_indices = return_indices


class GlobalAvgPool(_Global):
    function = staticmethod(functional.global_avg_pool)


class GlobalMaxAvgPool(_Global):
    function = staticmethod(functional.global_max_avg_pool)


class GlobalMixedPool(_Mixed, _Global):
    function = staticmethod(functional.global_mixed_pool)

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


class GlobalStochasticPool(_Stochastic, _Global):
    function = staticmethod(functional.global_stochastic_pool)

    def __init__(
        self,
        keepdim: bool = True,
        *,
        distribution: str = "relu",
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        seed: int | Tensor | None = None,
        offset: Sequence[int] = (0, 0),
        return_indices: bool = False,
    ) -> None:
        super().__init__(keepdim)
        self._store_draw(distribution, temperature, generator, seed, offset, return_indices)


class SpatialPyramidPool1d(_SpatialPyramid):
    function = staticmethod(functional.spatial_pyramid_pool1d)


class SpatialPyramidPool2d(_SpatialPyramid):
    function = staticmethod(functional.spatial_pyramid_pool2d)


class SpatialPyramidPool3d(_SpatialPyramid):
    function = staticmethod(functional.spatial_pyramid_pool3d)


class SPPF2d(_Pool):
    function = staticmethod(functional.sppf2d)
    shown = ("kernel_size", "repeats")

    def __init__(self, kernel_size: Size = 5, repeats: int = 3) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.repeats = repeats

    def forward(self, input: Tensor) -> Tensor:
        return functional.sppf2d(input, self.kernel_size, self.repeats)
