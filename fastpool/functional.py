"""Poolings as functions. Where torch.nn.functional has the pooling, arguments and results are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.overrides import has_torch_function, has_torch_function_unary, has_torch_function_variadic

from ._arguments import as_int, exact, per_axis
from ._checks import refuse_scripting
from ._docs import F, documented
from ._kinds import (
    Distribution,
    Mode,
    Pooled,
    avg_kind,
    beside_maxima,
    gated_kind,
    lp_kind,
    pooled,
    pooled_twice,
    pyramid_kind,
    selected,
    stochastic_kind,
    tree_kind,
)
from ._overrides import overridden, tensors_of
from ._windows import Bins, Flatten, Levels, OutputSize, Padding, Size, adaptive, sliding, sliding_within, whole

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_gem_pool1d",
    "adaptive_gem_pool2d",
    "adaptive_gem_pool3d",
    "adaptive_lse_pool1d",
    "adaptive_lse_pool2d",
    "adaptive_lse_pool3d",
    "adaptive_max_avg_pool1d",
    "adaptive_max_avg_pool2d",
    "adaptive_max_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "adaptive_mean_std_pool1d",
    "adaptive_mean_std_pool2d",
    "adaptive_mean_std_pool3d",
    "adaptive_min_pool1d",
    "adaptive_min_pool2d",
    "adaptive_min_pool3d",
    "adaptive_mixed_pool1d",
    "adaptive_mixed_pool2d",
    "adaptive_mixed_pool3d",
    "adaptive_soft_pool1d",
    "adaptive_soft_pool2d",
    "adaptive_soft_pool3d",
    "adaptive_stochastic_pool1d",
    "adaptive_stochastic_pool2d",
    "adaptive_stochastic_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "gated_pool1d",
    "gated_pool2d",
    "gated_pool3d",
    "gem_pool1d",
    "gem_pool2d",
    "gem_pool3d",
    "global_avg_pool",
    "global_gem_pool",
    "global_lse_pool",
    "global_max_avg_pool",
    "global_max_pool",
    "global_mean_std_pool",
    "global_min_pool",
    "global_mixed_pool",
    "global_soft_pool",
    "global_stochastic_pool",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "lse_pool1d",
    "lse_pool2d",
    "lse_pool3d",
    "max_avg_pool1d",
    "max_avg_pool2d",
    "max_avg_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "mean_std_pool1d",
    "mean_std_pool2d",
    "mean_std_pool3d",
    "min_pool1d",
    "min_pool2d",
    "min_pool3d",
    "mixed_pool1d",
    "mixed_pool2d",
    "mixed_pool3d",
    "soft_pool1d",
    "soft_pool2d",
    "soft_pool3d",
    "spatial_pyramid_pool1d",
    "spatial_pyramid_pool2d",
    "spatial_pyramid_pool3d",
    "sppf2d",
    "stochastic_pool1d",
    "stochastic_pool2d",
    "stochastic_pool3d",
    "tree_pool1d",
    "tree_pool2d",
    "tree_pool3d",
]


def _public(function: F) -> F:
    function.__prepare_scriptable__ = refuse_scripting(function.__name__)  # type: ignore[attr-defined]
    return documented(function)


# Written by _write.py from the table:


# fmt: off
@overload
def min_pool1d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., return_indices: Literal[False] = ...
) -> Tensor: ...
@overload
def min_pool1d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., *, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def min_pool1d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., return_indices: bool = ...
) -> Pooled: ...
# fmt: on
@_public
def min_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """The smallest element of 1-D windows."""
    if has_torch_function_unary(input):
        return overridden(min_pool1d, locals())
    return selected("min", input, sliding(1, input, kernel_size, stride, padding, dilation, ceil_mode), return_indices)


# fmt: off
@overload
def min_pool2d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., return_indices: Literal[False] = ...
) -> Tensor: ...
@overload
def min_pool2d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., *, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def min_pool2d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., return_indices: bool = ...
) -> Pooled: ...
# fmt: on
@_public
def min_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """The smallest element of 2-D windows."""
    if has_torch_function_unary(input):
        return overridden(min_pool2d, locals())
    return selected("min", input, sliding(2, input, kernel_size, stride, padding, dilation, ceil_mode), return_indices)


# fmt: off
@overload
def min_pool3d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., return_indices: Literal[False] = ...
) -> Tensor: ...
@overload
def min_pool3d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., *, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def min_pool3d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., return_indices: bool = ...
) -> Pooled: ...
# fmt: on
@_public
def min_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """The smallest element of 3-D windows."""
    if has_torch_function_unary(input):
        return overridden(min_pool3d, locals())
    return selected("min", input, sliding(3, input, kernel_size, stride, padding, dilation, ceil_mode), return_indices)


# fmt: off
@overload
def adaptive_min_pool1d(input: Tensor, output_size: OutputSize, return_indices: Literal[False] = ...) -> Tensor: ...
@overload
def adaptive_min_pool1d(
    input: Tensor, output_size: OutputSize, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def adaptive_min_pool1d(input: Tensor, output_size: OutputSize, return_indices: bool = ...) -> Pooled: ...
# fmt: on
@_public
def adaptive_min_pool1d(
    input: Tensor,
    output_size: OutputSize,
    return_indices: bool = False,
) -> Pooled:
    """The smallest element of each of a given number of 1-D bins."""
    if has_torch_function_unary(input):
        return overridden(adaptive_min_pool1d, locals())
    return selected("min", input, adaptive(1, input, output_size), return_indices)


# fmt: off
@overload
def adaptive_min_pool2d(input: Tensor, output_size: OutputSize, return_indices: Literal[False] = ...) -> Tensor: ...
@overload
def adaptive_min_pool2d(
    input: Tensor, output_size: OutputSize, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def adaptive_min_pool2d(input: Tensor, output_size: OutputSize, return_indices: bool = ...) -> Pooled: ...
# fmt: on
@_public
def adaptive_min_pool2d(
    input: Tensor,
    output_size: OutputSize,
    return_indices: bool = False,
) -> Pooled:
    """The smallest element of each of a given number of 2-D bins."""
    if has_torch_function_unary(input):
        return overridden(adaptive_min_pool2d, locals())
    return selected("min", input, adaptive(2, input, output_size), return_indices)


# fmt: off
@overload
def adaptive_min_pool3d(input: Tensor, output_size: OutputSize, return_indices: Literal[False] = ...) -> Tensor: ...
@overload
def adaptive_min_pool3d(
    input: Tensor, output_size: OutputSize, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def adaptive_min_pool3d(input: Tensor, output_size: OutputSize, return_indices: bool = ...) -> Pooled: ...
# fmt: on
@_public
def adaptive_min_pool3d(
    input: Tensor,
    output_size: OutputSize,
    return_indices: bool = False,
) -> Pooled:
    """The smallest element of each of a given number of 3-D bins."""
    if has_torch_function_unary(input):
        return overridden(adaptive_min_pool3d, locals())
    return selected("min", input, adaptive(3, input, output_size), return_indices)


# fmt: off
@overload
def global_min_pool(input: Tensor, keepdim: bool = ..., *, return_indices: Literal[False] = ...) -> Tensor: ...
@overload
def global_min_pool(input: Tensor, keepdim: bool = ..., *, return_indices: Literal[True]) -> tuple[Tensor, Tensor]: ...
@overload
def global_min_pool(input: Tensor, keepdim: bool = ..., *, return_indices: bool = ...) -> Pooled: ...
# fmt: on
@_public
def global_min_pool(
    input: Tensor,
    keepdim: bool = True,
    *,
    return_indices: bool = False,
) -> Pooled:
    """The smallest element of every channel."""
    if has_torch_function_unary(input):
        return overridden(global_min_pool, locals())
    return selected("min", *whole(input, keepdim), return_indices)


# fmt: off
@overload
def max_pool1d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., return_indices: Literal[False] = ...
) -> Tensor: ...
@overload
def max_pool1d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., *, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def max_pool1d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., return_indices: bool = ...
) -> Pooled: ...
# fmt: on
@_public
def max_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """The largest element of 1-D windows."""
    if has_torch_function_unary(input):
        return overridden(max_pool1d, locals())
    return selected("max", input, sliding(1, input, kernel_size, stride, padding, dilation, ceil_mode), return_indices)


# fmt: off
@overload
def max_pool2d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., return_indices: Literal[False] = ...
) -> Tensor: ...
@overload
def max_pool2d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., *, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def max_pool2d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., return_indices: bool = ...
) -> Pooled: ...
# fmt: on
@_public
def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """The largest element of 2-D windows."""
    if has_torch_function_unary(input):
        return overridden(max_pool2d, locals())
    return selected("max", input, sliding(2, input, kernel_size, stride, padding, dilation, ceil_mode), return_indices)


# fmt: off
@overload
def max_pool3d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., return_indices: Literal[False] = ...
) -> Tensor: ...
@overload
def max_pool3d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., *, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def max_pool3d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., return_indices: bool = ...
) -> Pooled: ...
# fmt: on
@_public
def max_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """The largest element of 3-D windows."""
    if has_torch_function_unary(input):
        return overridden(max_pool3d, locals())
    return selected("max", input, sliding(3, input, kernel_size, stride, padding, dilation, ceil_mode), return_indices)


# fmt: off
@overload
def adaptive_max_pool1d(input: Tensor, output_size: OutputSize, return_indices: Literal[False] = ...) -> Tensor: ...
@overload
def adaptive_max_pool1d(
    input: Tensor, output_size: OutputSize, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def adaptive_max_pool1d(input: Tensor, output_size: OutputSize, return_indices: bool = ...) -> Pooled: ...
# fmt: on
@_public
def adaptive_max_pool1d(
    input: Tensor,
    output_size: OutputSize,
    return_indices: bool = False,
) -> Pooled:
    """The largest element of each of a given number of 1-D bins."""
    if has_torch_function_unary(input):
        return overridden(adaptive_max_pool1d, locals())
    return selected("max", input, adaptive(1, input, output_size), return_indices)


# fmt: off
@overload
def adaptive_max_pool2d(input: Tensor, output_size: OutputSize, return_indices: Literal[False] = ...) -> Tensor: ...
@overload
def adaptive_max_pool2d(
    input: Tensor, output_size: OutputSize, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def adaptive_max_pool2d(input: Tensor, output_size: OutputSize, return_indices: bool = ...) -> Pooled: ...
# fmt: on
@_public
def adaptive_max_pool2d(
    input: Tensor,
    output_size: OutputSize,
    return_indices: bool = False,
) -> Pooled:
    """The largest element of each of a given number of 2-D bins."""
    if has_torch_function_unary(input):
        return overridden(adaptive_max_pool2d, locals())
    return selected("max", input, adaptive(2, input, output_size), return_indices)


# fmt: off
@overload
def adaptive_max_pool3d(input: Tensor, output_size: OutputSize, return_indices: Literal[False] = ...) -> Tensor: ...
@overload
def adaptive_max_pool3d(
    input: Tensor, output_size: OutputSize, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def adaptive_max_pool3d(input: Tensor, output_size: OutputSize, return_indices: bool = ...) -> Pooled: ...
# fmt: on
@_public
def adaptive_max_pool3d(
    input: Tensor,
    output_size: OutputSize,
    return_indices: bool = False,
) -> Pooled:
    """The largest element of each of a given number of 3-D bins."""
    if has_torch_function_unary(input):
        return overridden(adaptive_max_pool3d, locals())
    return selected("max", input, adaptive(3, input, output_size), return_indices)


# fmt: off
@overload
def global_max_pool(input: Tensor, keepdim: bool = ..., *, return_indices: Literal[False] = ...) -> Tensor: ...
@overload
def global_max_pool(input: Tensor, keepdim: bool = ..., *, return_indices: Literal[True]) -> tuple[Tensor, Tensor]: ...
@overload
def global_max_pool(input: Tensor, keepdim: bool = ..., *, return_indices: bool = ...) -> Pooled: ...
# fmt: on
@_public
def global_max_pool(
    input: Tensor,
    keepdim: bool = True,
    *,
    return_indices: bool = False,
) -> Pooled:
    """The largest element of every channel."""
    if has_torch_function_unary(input):
        return overridden(global_max_pool, locals())
    return selected("max", *whole(input, keepdim), return_indices)


@_public
def max_avg_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """The largest element and the mean of 1-D windows."""
    if has_torch_function_unary(input):
        return overridden(max_avg_pool1d, locals())
    return pooled_twice("max_avg", input, sliding(1, input, kernel_size, stride, padding, dilation, ceil_mode))


@_public
def max_avg_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """The largest element and the mean of 2-D windows."""
    if has_torch_function_unary(input):
        return overridden(max_avg_pool2d, locals())
    return pooled_twice("max_avg", input, sliding(2, input, kernel_size, stride, padding, dilation, ceil_mode))


@_public
def max_avg_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """The largest element and the mean of 3-D windows."""
    if has_torch_function_unary(input):
        return overridden(max_avg_pool3d, locals())
    return pooled_twice("max_avg", input, sliding(3, input, kernel_size, stride, padding, dilation, ceil_mode))


@_public
def adaptive_max_avg_pool1d(
    input: Tensor,
    output_size: OutputSize,
) -> tuple[Tensor, Tensor]:
    """The largest element and the mean of each of a given number of 1-D bins."""
    if has_torch_function_unary(input):
        return overridden(adaptive_max_avg_pool1d, locals())
    return pooled_twice("max_avg", input, adaptive(1, input, output_size))


@_public
def adaptive_max_avg_pool2d(
    input: Tensor,
    output_size: OutputSize,
) -> tuple[Tensor, Tensor]:
    """The largest element and the mean of each of a given number of 2-D bins."""
    if has_torch_function_unary(input):
        return overridden(adaptive_max_avg_pool2d, locals())
    return pooled_twice("max_avg", input, adaptive(2, input, output_size))


@_public
def adaptive_max_avg_pool3d(
    input: Tensor,
    output_size: OutputSize,
) -> tuple[Tensor, Tensor]:
    """The largest element and the mean of each of a given number of 3-D bins."""
    if has_torch_function_unary(input):
        return overridden(adaptive_max_avg_pool3d, locals())
    return pooled_twice("max_avg", input, adaptive(3, input, output_size))


@_public
def global_max_avg_pool(
    input: Tensor,
    keepdim: bool = True,
) -> tuple[Tensor, Tensor]:
    """The largest element and the mean of every channel."""
    if has_torch_function_unary(input):
        return overridden(global_max_avg_pool, locals())
    return pooled_twice("max_avg", *whole(input, keepdim))


@_public
def mixed_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    alpha: float | Tensor = 0.5,
) -> Tensor:
    """A blend of maximum and mean of 1-D windows."""
    if has_torch_function_variadic(input, alpha):
        return overridden(mixed_pool1d, locals())
    return pooled("mixed", input, sliding(1, input, kernel_size, stride, padding, dilation, ceil_mode), alpha)


@_public
def mixed_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    alpha: float | Tensor = 0.5,
) -> Tensor:
    """A blend of maximum and mean of 2-D windows."""
    if has_torch_function_variadic(input, alpha):
        return overridden(mixed_pool2d, locals())
    return pooled("mixed", input, sliding(2, input, kernel_size, stride, padding, dilation, ceil_mode), alpha)


@_public
def mixed_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    alpha: float | Tensor = 0.5,
) -> Tensor:
    """A blend of maximum and mean of 3-D windows."""
    if has_torch_function_variadic(input, alpha):
        return overridden(mixed_pool3d, locals())
    return pooled("mixed", input, sliding(3, input, kernel_size, stride, padding, dilation, ceil_mode), alpha)


@_public
def adaptive_mixed_pool1d(
    input: Tensor,
    output_size: OutputSize,
    *,
    alpha: float | Tensor = 0.5,
) -> Tensor:
    """A blend of maximum and mean of each of a given number of 1-D bins."""
    if has_torch_function_variadic(input, alpha):
        return overridden(adaptive_mixed_pool1d, locals())
    return pooled("mixed", input, adaptive(1, input, output_size), alpha)


@_public
def adaptive_mixed_pool2d(
    input: Tensor,
    output_size: OutputSize,
    *,
    alpha: float | Tensor = 0.5,
) -> Tensor:
    """A blend of maximum and mean of each of a given number of 2-D bins."""
    if has_torch_function_variadic(input, alpha):
        return overridden(adaptive_mixed_pool2d, locals())
    return pooled("mixed", input, adaptive(2, input, output_size), alpha)


@_public
def adaptive_mixed_pool3d(
    input: Tensor,
    output_size: OutputSize,
    *,
    alpha: float | Tensor = 0.5,
) -> Tensor:
    """A blend of maximum and mean of each of a given number of 3-D bins."""
    if has_torch_function_variadic(input, alpha):
        return overridden(adaptive_mixed_pool3d, locals())
    return pooled("mixed", input, adaptive(3, input, output_size), alpha)


@_public
def global_mixed_pool(
    input: Tensor,
    keepdim: bool = True,
    *,
    alpha: float | Tensor = 0.5,
) -> Tensor:
    """A blend of maximum and mean of every channel."""
    if has_torch_function_variadic(input, alpha):
        return overridden(global_mixed_pool, locals())
    return pooled("mixed", *whole(input, keepdim), alpha)


# fmt: off
@overload
def stochastic_pool1d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., *, training: bool = ..., distribution: Distribution = ..., temperature: float = ...,
    generator: torch.Generator | None = ..., seed: int | Tensor | None = ..., offset: Sequence[int] = ...,
    return_indices: Literal[False] = ...
) -> Tensor: ...
@overload
def stochastic_pool1d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., *, training: bool = ..., distribution: Distribution = ..., temperature: float = ...,
    generator: torch.Generator | None = ..., seed: int | Tensor | None = ..., offset: Sequence[int] = ...,
    return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def stochastic_pool1d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., *, training: bool = ..., distribution: Distribution = ..., temperature: float = ...,
    generator: torch.Generator | None = ..., seed: int | Tensor | None = ..., offset: Sequence[int] = ...,
    return_indices: bool = ...
) -> Pooled: ...
# fmt: on
@_public
def stochastic_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    training: bool = True,
    distribution: Distribution = "relu",
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
    offset: Sequence[int] = (0, 0),
    return_indices: bool = False,
) -> Pooled:
    """An element drawn from 1-D windows, or its expectation."""
    if has_torch_function_variadic(input, seed):
        return overridden(stochastic_pool1d, locals())
    return stochastic_kind(
        input,
        sliding(1, input, kernel_size, stride, padding, dilation, ceil_mode),
        training,
        distribution,
        temperature,
        generator,
        seed,
        offset,
        return_indices,
    )


# fmt: off
@overload
def stochastic_pool2d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., *, training: bool = ..., distribution: Distribution = ..., temperature: float = ...,
    generator: torch.Generator | None = ..., seed: int | Tensor | None = ..., offset: Sequence[int] = ...,
    return_indices: Literal[False] = ...
) -> Tensor: ...
@overload
def stochastic_pool2d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., *, training: bool = ..., distribution: Distribution = ..., temperature: float = ...,
    generator: torch.Generator | None = ..., seed: int | Tensor | None = ..., offset: Sequence[int] = ...,
    return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def stochastic_pool2d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., *, training: bool = ..., distribution: Distribution = ..., temperature: float = ...,
    generator: torch.Generator | None = ..., seed: int | Tensor | None = ..., offset: Sequence[int] = ...,
    return_indices: bool = ...
) -> Pooled: ...
# fmt: on
@_public
def stochastic_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    training: bool = True,
    distribution: Distribution = "relu",
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
    offset: Sequence[int] = (0, 0),
    return_indices: bool = False,
) -> Pooled:
    """An element drawn from 2-D windows, or its expectation."""
    if has_torch_function_variadic(input, seed):
        return overridden(stochastic_pool2d, locals())
    return stochastic_kind(
        input,
        sliding(2, input, kernel_size, stride, padding, dilation, ceil_mode),
        training,
        distribution,
        temperature,
        generator,
        seed,
        offset,
        return_indices,
    )


# fmt: off
@overload
def stochastic_pool3d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., *, training: bool = ..., distribution: Distribution = ..., temperature: float = ...,
    generator: torch.Generator | None = ..., seed: int | Tensor | None = ..., offset: Sequence[int] = ...,
    return_indices: Literal[False] = ...
) -> Tensor: ...
@overload
def stochastic_pool3d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., *, training: bool = ..., distribution: Distribution = ..., temperature: float = ...,
    generator: torch.Generator | None = ..., seed: int | Tensor | None = ..., offset: Sequence[int] = ...,
    return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def stochastic_pool3d(
    input: Tensor, kernel_size: Size, stride: Size | None = ..., padding: Padding = ..., dilation: Size = ...,
    ceil_mode: bool = ..., *, training: bool = ..., distribution: Distribution = ..., temperature: float = ...,
    generator: torch.Generator | None = ..., seed: int | Tensor | None = ..., offset: Sequence[int] = ...,
    return_indices: bool = ...
) -> Pooled: ...
# fmt: on
@_public
def stochastic_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    training: bool = True,
    distribution: Distribution = "relu",
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
    offset: Sequence[int] = (0, 0),
    return_indices: bool = False,
) -> Pooled:
    """An element drawn from 3-D windows, or its expectation."""
    if has_torch_function_variadic(input, seed):
        return overridden(stochastic_pool3d, locals())
    return stochastic_kind(
        input,
        sliding(3, input, kernel_size, stride, padding, dilation, ceil_mode),
        training,
        distribution,
        temperature,
        generator,
        seed,
        offset,
        return_indices,
    )


# fmt: off
@overload
def adaptive_stochastic_pool1d(
    input: Tensor, output_size: OutputSize, *, training: bool = ..., distribution: Distribution = ...,
    temperature: float = ..., generator: torch.Generator | None = ..., seed: int | Tensor | None = ...,
    offset: Sequence[int] = ..., return_indices: Literal[False] = ...
) -> Tensor: ...
@overload
def adaptive_stochastic_pool1d(
    input: Tensor, output_size: OutputSize, *, training: bool = ..., distribution: Distribution = ...,
    temperature: float = ..., generator: torch.Generator | None = ..., seed: int | Tensor | None = ...,
    offset: Sequence[int] = ..., return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def adaptive_stochastic_pool1d(
    input: Tensor, output_size: OutputSize, *, training: bool = ..., distribution: Distribution = ...,
    temperature: float = ..., generator: torch.Generator | None = ..., seed: int | Tensor | None = ...,
    offset: Sequence[int] = ..., return_indices: bool = ...
) -> Pooled: ...
# fmt: on
@_public
def adaptive_stochastic_pool1d(
    input: Tensor,
    output_size: OutputSize,
    *,
    training: bool = True,
    distribution: Distribution = "relu",
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
    offset: Sequence[int] = (0, 0),
    return_indices: bool = False,
) -> Pooled:
    """An element drawn from each of a given number of 1-D bins, or its expectation."""
    if has_torch_function_variadic(input, seed):
        return overridden(adaptive_stochastic_pool1d, locals())
    return stochastic_kind(
        input,
        adaptive(1, input, output_size),
        training,
        distribution,
        temperature,
        generator,
        seed,
        offset,
        return_indices,
    )


# fmt: off
@overload
def adaptive_stochastic_pool2d(
    input: Tensor, output_size: OutputSize, *, training: bool = ..., distribution: Distribution = ...,
    temperature: float = ..., generator: torch.Generator | None = ..., seed: int | Tensor | None = ...,
    offset: Sequence[int] = ..., return_indices: Literal[False] = ...
) -> Tensor: ...
@overload
def adaptive_stochastic_pool2d(
    input: Tensor, output_size: OutputSize, *, training: bool = ..., distribution: Distribution = ...,
    temperature: float = ..., generator: torch.Generator | None = ..., seed: int | Tensor | None = ...,
    offset: Sequence[int] = ..., return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def adaptive_stochastic_pool2d(
    input: Tensor, output_size: OutputSize, *, training: bool = ..., distribution: Distribution = ...,
    temperature: float = ..., generator: torch.Generator | None = ..., seed: int | Tensor | None = ...,
    offset: Sequence[int] = ..., return_indices: bool = ...
) -> Pooled: ...
# fmt: on
@_public
def adaptive_stochastic_pool2d(
    input: Tensor,
    output_size: OutputSize,
    *,
    training: bool = True,
    distribution: Distribution = "relu",
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
    offset: Sequence[int] = (0, 0),
    return_indices: bool = False,
) -> Pooled:
    """An element drawn from each of a given number of 2-D bins, or its expectation."""
    if has_torch_function_variadic(input, seed):
        return overridden(adaptive_stochastic_pool2d, locals())
    return stochastic_kind(
        input,
        adaptive(2, input, output_size),
        training,
        distribution,
        temperature,
        generator,
        seed,
        offset,
        return_indices,
    )


# fmt: off
@overload
def adaptive_stochastic_pool3d(
    input: Tensor, output_size: OutputSize, *, training: bool = ..., distribution: Distribution = ...,
    temperature: float = ..., generator: torch.Generator | None = ..., seed: int | Tensor | None = ...,
    offset: Sequence[int] = ..., return_indices: Literal[False] = ...
) -> Tensor: ...
@overload
def adaptive_stochastic_pool3d(
    input: Tensor, output_size: OutputSize, *, training: bool = ..., distribution: Distribution = ...,
    temperature: float = ..., generator: torch.Generator | None = ..., seed: int | Tensor | None = ...,
    offset: Sequence[int] = ..., return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def adaptive_stochastic_pool3d(
    input: Tensor, output_size: OutputSize, *, training: bool = ..., distribution: Distribution = ...,
    temperature: float = ..., generator: torch.Generator | None = ..., seed: int | Tensor | None = ...,
    offset: Sequence[int] = ..., return_indices: bool = ...
) -> Pooled: ...
# fmt: on
@_public
def adaptive_stochastic_pool3d(
    input: Tensor,
    output_size: OutputSize,
    *,
    training: bool = True,
    distribution: Distribution = "relu",
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
    offset: Sequence[int] = (0, 0),
    return_indices: bool = False,
) -> Pooled:
    """An element drawn from each of a given number of 3-D bins, or its expectation."""
    if has_torch_function_variadic(input, seed):
        return overridden(adaptive_stochastic_pool3d, locals())
    return stochastic_kind(
        input,
        adaptive(3, input, output_size),
        training,
        distribution,
        temperature,
        generator,
        seed,
        offset,
        return_indices,
    )


# fmt: off
@overload
def global_stochastic_pool(
    input: Tensor, keepdim: bool = ..., *, training: bool = ..., distribution: Distribution = ...,
    temperature: float = ..., generator: torch.Generator | None = ..., seed: int | Tensor | None = ...,
    offset: Sequence[int] = ..., return_indices: Literal[False] = ...
) -> Tensor: ...
@overload
def global_stochastic_pool(
    input: Tensor, keepdim: bool = ..., *, training: bool = ..., distribution: Distribution = ...,
    temperature: float = ..., generator: torch.Generator | None = ..., seed: int | Tensor | None = ...,
    offset: Sequence[int] = ..., return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def global_stochastic_pool(
    input: Tensor, keepdim: bool = ..., *, training: bool = ..., distribution: Distribution = ...,
    temperature: float = ..., generator: torch.Generator | None = ..., seed: int | Tensor | None = ...,
    offset: Sequence[int] = ..., return_indices: bool = ...
) -> Pooled: ...
# fmt: on
@_public
def global_stochastic_pool(
    input: Tensor,
    keepdim: bool = True,
    *,
    training: bool = True,
    distribution: Distribution = "relu",
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    seed: int | Tensor | None = None,
    offset: Sequence[int] = (0, 0),
    return_indices: bool = False,
) -> Pooled:
    """An element drawn from every channel, or its expectation."""
    if has_torch_function_variadic(input, seed):
        return overridden(global_stochastic_pool, locals())
    return stochastic_kind(
        *whole(input, keepdim), training, distribution, temperature, generator, seed, offset, return_indices
    )


@_public
def soft_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    beta: float | Tensor = 1.0,
) -> Tensor:
    """The mean of 1-D windows, weighted by the soft-max of the elements."""
    if has_torch_function_variadic(input, beta):
        return overridden(soft_pool1d, locals())
    return pooled("soft", input, sliding(1, input, kernel_size, stride, padding, dilation, ceil_mode), beta)


@_public
def soft_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    beta: float | Tensor = 1.0,
) -> Tensor:
    """The mean of 2-D windows, weighted by the soft-max of the elements."""
    if has_torch_function_variadic(input, beta):
        return overridden(soft_pool2d, locals())
    return pooled("soft", input, sliding(2, input, kernel_size, stride, padding, dilation, ceil_mode), beta)


@_public
def soft_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    beta: float | Tensor = 1.0,
) -> Tensor:
    """The mean of 3-D windows, weighted by the soft-max of the elements."""
    if has_torch_function_variadic(input, beta):
        return overridden(soft_pool3d, locals())
    return pooled("soft", input, sliding(3, input, kernel_size, stride, padding, dilation, ceil_mode), beta)


@_public
def adaptive_soft_pool1d(
    input: Tensor,
    output_size: OutputSize,
    *,
    beta: float | Tensor = 1.0,
) -> Tensor:
    """The mean of each of a given number of 1-D bins, weighted by the soft-max of the elements."""
    if has_torch_function_variadic(input, beta):
        return overridden(adaptive_soft_pool1d, locals())
    return pooled("soft", input, adaptive(1, input, output_size), beta)


@_public
def adaptive_soft_pool2d(
    input: Tensor,
    output_size: OutputSize,
    *,
    beta: float | Tensor = 1.0,
) -> Tensor:
    """The mean of each of a given number of 2-D bins, weighted by the soft-max of the elements."""
    if has_torch_function_variadic(input, beta):
        return overridden(adaptive_soft_pool2d, locals())
    return pooled("soft", input, adaptive(2, input, output_size), beta)


@_public
def adaptive_soft_pool3d(
    input: Tensor,
    output_size: OutputSize,
    *,
    beta: float | Tensor = 1.0,
) -> Tensor:
    """The mean of each of a given number of 3-D bins, weighted by the soft-max of the elements."""
    if has_torch_function_variadic(input, beta):
        return overridden(adaptive_soft_pool3d, locals())
    return pooled("soft", input, adaptive(3, input, output_size), beta)


@_public
def global_soft_pool(
    input: Tensor,
    keepdim: bool = True,
    *,
    beta: float | Tensor = 1.0,
) -> Tensor:
    """The mean of every channel, weighted by the soft-max of the elements."""
    if has_torch_function_variadic(input, beta):
        return overridden(global_soft_pool, locals())
    return pooled("soft", *whole(input, keepdim), beta)


@_public
def lse_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    r: float | Tensor = 1.0,
) -> Tensor:
    """The log-mean-exp of 1-D windows."""
    if has_torch_function_variadic(input, r):
        return overridden(lse_pool1d, locals())
    return pooled("lse", input, sliding(1, input, kernel_size, stride, padding, dilation, ceil_mode), r)


@_public
def lse_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    r: float | Tensor = 1.0,
) -> Tensor:
    """The log-mean-exp of 2-D windows."""
    if has_torch_function_variadic(input, r):
        return overridden(lse_pool2d, locals())
    return pooled("lse", input, sliding(2, input, kernel_size, stride, padding, dilation, ceil_mode), r)


@_public
def lse_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    r: float | Tensor = 1.0,
) -> Tensor:
    """The log-mean-exp of 3-D windows."""
    if has_torch_function_variadic(input, r):
        return overridden(lse_pool3d, locals())
    return pooled("lse", input, sliding(3, input, kernel_size, stride, padding, dilation, ceil_mode), r)


@_public
def adaptive_lse_pool1d(
    input: Tensor,
    output_size: OutputSize,
    *,
    r: float | Tensor = 1.0,
) -> Tensor:
    """The log-mean-exp of each of a given number of 1-D bins."""
    if has_torch_function_variadic(input, r):
        return overridden(adaptive_lse_pool1d, locals())
    return pooled("lse", input, adaptive(1, input, output_size), r)


@_public
def adaptive_lse_pool2d(
    input: Tensor,
    output_size: OutputSize,
    *,
    r: float | Tensor = 1.0,
) -> Tensor:
    """The log-mean-exp of each of a given number of 2-D bins."""
    if has_torch_function_variadic(input, r):
        return overridden(adaptive_lse_pool2d, locals())
    return pooled("lse", input, adaptive(2, input, output_size), r)


@_public
def adaptive_lse_pool3d(
    input: Tensor,
    output_size: OutputSize,
    *,
    r: float | Tensor = 1.0,
) -> Tensor:
    """The log-mean-exp of each of a given number of 3-D bins."""
    if has_torch_function_variadic(input, r):
        return overridden(adaptive_lse_pool3d, locals())
    return pooled("lse", input, adaptive(3, input, output_size), r)


@_public
def global_lse_pool(
    input: Tensor,
    keepdim: bool = True,
    *,
    r: float | Tensor = 1.0,
) -> Tensor:
    """The log-mean-exp of every channel."""
    if has_torch_function_variadic(input, r):
        return overridden(global_lse_pool, locals())
    return pooled("lse", *whole(input, keepdim), r)


@_public
def gem_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    p: float | Tensor = 3.0,
    eps: float = 1e-6,
) -> Tensor:
    """The generalised mean of 1-D windows."""
    if has_torch_function_variadic(input, p):
        return overridden(gem_pool1d, locals())
    return pooled("gem", input, sliding(1, input, kernel_size, stride, padding, dilation, ceil_mode), p, eps)


@_public
def gem_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    p: float | Tensor = 3.0,
    eps: float = 1e-6,
) -> Tensor:
    """The generalised mean of 2-D windows."""
    if has_torch_function_variadic(input, p):
        return overridden(gem_pool2d, locals())
    return pooled("gem", input, sliding(2, input, kernel_size, stride, padding, dilation, ceil_mode), p, eps)


@_public
def gem_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    p: float | Tensor = 3.0,
    eps: float = 1e-6,
) -> Tensor:
    """The generalised mean of 3-D windows."""
    if has_torch_function_variadic(input, p):
        return overridden(gem_pool3d, locals())
    return pooled("gem", input, sliding(3, input, kernel_size, stride, padding, dilation, ceil_mode), p, eps)


@_public
def adaptive_gem_pool1d(
    input: Tensor,
    output_size: OutputSize,
    *,
    p: float | Tensor = 3.0,
    eps: float = 1e-6,
) -> Tensor:
    """The generalised mean of each of a given number of 1-D bins."""
    if has_torch_function_variadic(input, p):
        return overridden(adaptive_gem_pool1d, locals())
    return pooled("gem", input, adaptive(1, input, output_size), p, eps)


@_public
def adaptive_gem_pool2d(
    input: Tensor,
    output_size: OutputSize,
    *,
    p: float | Tensor = 3.0,
    eps: float = 1e-6,
) -> Tensor:
    """The generalised mean of each of a given number of 2-D bins."""
    if has_torch_function_variadic(input, p):
        return overridden(adaptive_gem_pool2d, locals())
    return pooled("gem", input, adaptive(2, input, output_size), p, eps)


@_public
def adaptive_gem_pool3d(
    input: Tensor,
    output_size: OutputSize,
    *,
    p: float | Tensor = 3.0,
    eps: float = 1e-6,
) -> Tensor:
    """The generalised mean of each of a given number of 3-D bins."""
    if has_torch_function_variadic(input, p):
        return overridden(adaptive_gem_pool3d, locals())
    return pooled("gem", input, adaptive(3, input, output_size), p, eps)


@_public
def global_gem_pool(
    input: Tensor,
    keepdim: bool = True,
    *,
    p: float | Tensor = 3.0,
    eps: float = 1e-6,
) -> Tensor:
    """The generalised mean of every channel."""
    if has_torch_function_variadic(input, p):
        return overridden(global_gem_pool, locals())
    return pooled("gem", *whole(input, keepdim), p, eps)


@_public
def mean_std_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    correction: float = 0,
) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of 1-D windows."""
    if has_torch_function_unary(input):
        return overridden(mean_std_pool1d, locals())
    return pooled_twice(
        "mean_std", input, sliding(1, input, kernel_size, stride, padding, dilation, ceil_mode), correction
    )


@_public
def mean_std_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    correction: float = 0,
) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of 2-D windows."""
    if has_torch_function_unary(input):
        return overridden(mean_std_pool2d, locals())
    return pooled_twice(
        "mean_std", input, sliding(2, input, kernel_size, stride, padding, dilation, ceil_mode), correction
    )


@_public
def mean_std_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    correction: float = 0,
) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of 3-D windows."""
    if has_torch_function_unary(input):
        return overridden(mean_std_pool3d, locals())
    return pooled_twice(
        "mean_std", input, sliding(3, input, kernel_size, stride, padding, dilation, ceil_mode), correction
    )


@_public
def adaptive_mean_std_pool1d(
    input: Tensor,
    output_size: OutputSize,
    *,
    correction: float = 0,
) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of each of a given number of 1-D bins."""
    if has_torch_function_unary(input):
        return overridden(adaptive_mean_std_pool1d, locals())
    return pooled_twice("mean_std", input, adaptive(1, input, output_size), correction)


@_public
def adaptive_mean_std_pool2d(
    input: Tensor,
    output_size: OutputSize,
    *,
    correction: float = 0,
) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of each of a given number of 2-D bins."""
    if has_torch_function_unary(input):
        return overridden(adaptive_mean_std_pool2d, locals())
    return pooled_twice("mean_std", input, adaptive(2, input, output_size), correction)


@_public
def adaptive_mean_std_pool3d(
    input: Tensor,
    output_size: OutputSize,
    *,
    correction: float = 0,
) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of each of a given number of 3-D bins."""
    if has_torch_function_unary(input):
        return overridden(adaptive_mean_std_pool3d, locals())
    return pooled_twice("mean_std", input, adaptive(3, input, output_size), correction)


@_public
def global_mean_std_pool(
    input: Tensor,
    keepdim: bool = True,
    *,
    correction: float = 0,
) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of every channel."""
    if has_torch_function_unary(input):
        return overridden(global_mean_std_pool, locals())
    return pooled_twice("mean_std", *whole(input, keepdim), correction)


@_public
def gated_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    weight: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """A blend of maximum and mean of 1-D windows, which a learned filter mixes."""
    if has_torch_function_variadic(input, weight, bias):
        return overridden(gated_pool1d, locals())
    return gated_kind(input, sliding(1, input, kernel_size, stride, padding, dilation, ceil_mode), weight, bias)


@_public
def gated_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    weight: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """A blend of maximum and mean of 2-D windows, which a learned filter mixes."""
    if has_torch_function_variadic(input, weight, bias):
        return overridden(gated_pool2d, locals())
    return gated_kind(input, sliding(2, input, kernel_size, stride, padding, dilation, ceil_mode), weight, bias)


@_public
def gated_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    weight: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """A blend of maximum and mean of 3-D windows, which a learned filter mixes."""
    if has_torch_function_variadic(input, weight, bias):
        return overridden(gated_pool3d, locals())
    return gated_kind(input, sliding(3, input, kernel_size, stride, padding, dilation, ceil_mode), weight, bias)


@_public
def tree_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    leaves: Tensor,
    gates: Tensor,
) -> Tensor:
    """A learned tree of filters over 1-D windows."""
    if has_torch_function_variadic(input, leaves, gates):
        return overridden(tree_pool1d, locals())
    return tree_kind(input, sliding(1, input, kernel_size, stride, padding, dilation, ceil_mode), leaves, gates)


@_public
def tree_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    leaves: Tensor,
    gates: Tensor,
) -> Tensor:
    """A learned tree of filters over 2-D windows."""
    if has_torch_function_variadic(input, leaves, gates):
        return overridden(tree_pool2d, locals())
    return tree_kind(input, sliding(2, input, kernel_size, stride, padding, dilation, ceil_mode), leaves, gates)


@_public
def tree_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    leaves: Tensor,
    gates: Tensor,
) -> Tensor:
    """A learned tree of filters over 3-D windows."""
    if has_torch_function_variadic(input, leaves, gates):
        return overridden(tree_pool3d, locals())
    return tree_kind(input, sliding(3, input, kernel_size, stride, padding, dilation, ceil_mode), leaves, gates)


# End of what is written.


@_public
def avg_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: Size = 1,
) -> Tensor:
    """The mean of 1-D windows."""
    if has_torch_function_unary(input):
        return overridden(avg_pool1d, locals())
    windows = sliding(1, input, kernel_size, stride, padding, dilation, ceil_mode)
    return avg_kind(input, windows, count_include_pad, divisor_override)


@_public
def avg_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: Size = 1,
) -> Tensor:
    """The mean of 2-D windows."""
    if has_torch_function_unary(input):
        return overridden(avg_pool2d, locals())
    windows = sliding(2, input, kernel_size, stride, padding, dilation, ceil_mode)
    return avg_kind(input, windows, count_include_pad, divisor_override)


@_public
def avg_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: Size = 1,
) -> Tensor:
    """The mean of 3-D windows."""
    if has_torch_function_unary(input):
        return overridden(avg_pool3d, locals())
    windows = sliding_within(3, input, kernel_size, stride, padding, dilation, ceil_mode)
    return avg_kind(input, windows, count_include_pad, divisor_override)


@_public
def adaptive_avg_pool1d(input: Tensor, output_size: OutputSize) -> Tensor:
    """The mean of each of a given number of 1-D bins."""
    if has_torch_function_unary(input):
        return overridden(adaptive_avg_pool1d, locals())
    return avg_kind(input, adaptive(1, input, output_size))


@_public
def adaptive_avg_pool2d(input: Tensor, output_size: OutputSize) -> Tensor:
    """The mean of each of a given number of 2-D bins."""
    if has_torch_function_unary(input):
        return overridden(adaptive_avg_pool2d, locals())
    return avg_kind(input, adaptive(2, input, output_size))


@_public
def adaptive_avg_pool3d(input: Tensor, output_size: OutputSize) -> Tensor:
    """The mean of each of a given number of 3-D bins."""
    if has_torch_function_unary(input):
        return overridden(adaptive_avg_pool3d, locals())
    return avg_kind(input, adaptive(3, input, output_size))


@_public
def global_avg_pool(input: Tensor, keepdim: bool = True) -> Tensor:
    """The mean of every channel."""
    if has_torch_function_unary(input):
        return overridden(global_avg_pool, locals())
    return avg_kind(*whole(input, keepdim))


@_public
def lp_pool1d(
    input: Tensor,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    dilation: Size = 1,
) -> Tensor:
    """The power mean of 1-D windows, as in torch."""
    if has_torch_function_unary(input):
        return overridden(lp_pool1d, locals())
    return lp_kind(input, sliding(1, input, kernel_size, stride, padding, dilation, ceil_mode), norm_type)


@_public
def lp_pool2d(
    input: Tensor,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    dilation: Size = 1,
) -> Tensor:
    """The power mean of 2-D windows, as in torch."""
    if has_torch_function_unary(input):
        return overridden(lp_pool2d, locals())
    return lp_kind(input, sliding(2, input, kernel_size, stride, padding, dilation, ceil_mode), norm_type)


@_public
def lp_pool3d(
    input: Tensor,
    norm_type: float,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    dilation: Size = 1,
) -> Tensor:
    """The power mean of 3-D windows, as in torch."""
    if has_torch_function_unary(input):
        return overridden(lp_pool3d, locals())
    return lp_kind(input, sliding(3, input, kernel_size, stride, padding, dilation, ceil_mode), norm_type)


@_public
def spatial_pyramid_pool1d(
    input: Tensor | Sequence[Tensor],
    levels: Levels = (4, 2, 1),
    *,
    mode: Mode = "max",
    bins: Bins = "adaptive",
    flatten: Flatten = "level",
    **options: Any,
) -> Tensor:
    """1-D bins of several sizes, flattened to one vector per sample whatever the size of the input."""
    if has_torch_function(tensors_of(input, options)):
        return overridden(spatial_pyramid_pool1d, locals())
    return pyramid_kind(1, input, levels, mode, bins, flatten, options)


@_public
def spatial_pyramid_pool2d(
    input: Tensor | Sequence[Tensor],
    levels: Levels = (4, 2, 1),
    *,
    mode: Mode = "max",
    bins: Bins = "adaptive",
    flatten: Flatten = "level",
    **options: Any,
) -> Tensor:
    """2-D bins of several sizes, flattened to one vector per sample whatever the size of the input."""
    if has_torch_function(tensors_of(input, options)):
        return overridden(spatial_pyramid_pool2d, locals())
    return pyramid_kind(2, input, levels, mode, bins, flatten, options)


@_public
def spatial_pyramid_pool3d(
    input: Tensor | Sequence[Tensor],
    levels: Levels = (4, 2, 1),
    *,
    mode: Mode = "max",
    bins: Bins = "adaptive",
    flatten: Flatten = "level",
    **options: Any,
) -> Tensor:
    """3-D bins of several sizes, flattened to one vector per sample whatever the size of the input."""
    if has_torch_function(tensors_of(input, options)):
        return overridden(spatial_pyramid_pool3d, locals())
    return pyramid_kind(3, input, levels, mode, bins, flatten, options)


def _sppf_arguments(kernel_size: Size, repeats: int) -> tuple[tuple[int, ...], int]:
    kernels = per_axis("kernel_size", exact("kernel_size", kernel_size), 2, 1)
    if any(k % 2 == 0 for k in kernels):
        raise ValueError(f"kernel_size must be odd on every axis, so that the size stays, got {kernel_size}")
    count = as_int(repeats)
    if count is None:
        raise TypeError(f"repeats must be an int, got {repeats!r}")
    if count < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    return kernels, count


def sppf2d(input: Tensor, kernel_size: Size = 5, repeats: int = 3) -> Tensor:
    """The input beside its maxima over growing 2-D windows, as detection models take them: "SPPF".

    ``cat([x, m(x), m(m(x)), ...], 1)`` with ``repeats`` maxima beside x, where m is max pooling with stride 1 that
    keeps the size. As m applied i times is the maximum over a window of ``i * (kernel_size - 1) + 1``, this equals the
    "SPP" of windows 5, 9 and 13 for less work. Ties, NaN and -inf as in max pooling; padding is never an element. Each
    gradient goes to the element that its maximum chose, step by step, and all that arrive are summed.

    Args:
        input: ``(N, C, H, W)`` or ``(C, H, W)``, float16, bfloat16, float32 or float64.
        kernel_size: the window's size: an odd int, or a pair of them.
        repeats: how many maxima, at least 1.

    Returns:
        A tensor of the input's dtype and layout, ``(N, (repeats + 1) * C, H, W)`` or without N. An empty batch gives an
        empty result.

    Raises:
        TypeError, ValueError: for an argument that is not as described, before anything is computed.
        RuntimeError: for a device that this build has no kernels for.

    Example:
        >>> import torch, fastpool
        >>> x = torch.tensor([0.0, 5.0, 0.0, 0.0, 0.0, 1.0]).reshape(1, 1, 1, 6)
        >>> fastpool.sppf2d(x, 3, repeats=2)[0, :, 0]
        tensor([[0., 5., 0., 0., 0., 1.],
                [5., 5., 5., 0., 1., 1.],
                [5., 5., 5., 5., 1., 1.]])

    Reference:
        He, Zhang, Ren, Sun: Spatial pyramid pooling in deep convolutional networks (TPAMI 2015), whose pyramid the
        YOLO detectors turned into maxima of one size; done in steps since YOLOv5.
    """
    if has_torch_function_unary(input):
        return overridden(sppf2d, locals())
    kernels, count = _sppf_arguments(kernel_size, repeats)
    result = beside_maxima(input, sliding(2, input, kernels, 1, "same", 1, False), count)
    if result is not None:
        return result
    maps = [input]
    for _ in range(count):
        maps.append(max_pool2d(maps[-1], kernels, 1, "same"))
    return torch.cat(maps, -3)


sppf2d.__prepare_scriptable__ = refuse_scripting("sppf2d")  # type: ignore[attr-defined]
