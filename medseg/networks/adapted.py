"""A network that was trained elsewhere, behind this project's seam: RAS order and -1 ... 3 in, organ logits out.

What the original tool does around its network for every window (axis order, intensity scale, mirror images, mean
of several folds, overlapping regions) happens here, so that inference, export and quantisation see one module.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError

_AXIS = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
HEADS = ("softmax", "regions")


class Orientation:
    """The way from arrays in RAS order to arrays whose axes grow towards `codes`, and back.

    Raises:
        ConfigError: `codes` does not name one direction of each axis.
    """

    def __init__(self, codes: str) -> None:
        axes = [_AXIS.get(letter, -1) for letter in codes]
        if sorted(axes) != [0, 1, 2]:
            raise ConfigError(f"Orientation {codes!r} is not one of the 48, such as RAS, LPS or SPL.")
        self.axes = axes
        self.order = [0, 1, *(axis + 2 for axis in axes)]
        self.inverse = [0, 1, *(axes.index(axis) + 2 for axis in range(3))]
        self.flipped = [n + 2 for n, letter in enumerate(codes) if letter in "LPI"]

    def there(self, x: Tensor) -> Tensor:
        """[N, C, i, j, k] in RAS order -> theirs."""
        x = x.permute(self.order)
        return x.flip(self.flipped) if self.flipped else x

    def back(self, x: Tensor) -> Tensor:
        """The inverse of `there`."""
        x = x.flip(self.flipped) if self.flipped else x
        return x.permute(self.inverse)


class Adapted(nn.Module):
    """Mean of `members` over folds and mirror images, seen in their own axis order and scale.

    Args:
        members: networks with the same channels; their logits are averaged.
        orientation: where the axes of their arrays grow to, e.g. 'SPL' for slices, rows, columns of an LPS scan.
        scale, shift: their input is ours * scale + shift, after `clip`.
        clip: range of our input that they know; None where it needs no clipping.
        mirror_axes: axes of their arrays along which every combination of mirror images is averaged.
        head: 'softmax': one channel a class, background first; 'regions': one channel a region that may
            overlap with others, of which the last one that is more likely than not counts.
        channels: for each of our channels the one of theirs; None where they agree.

    Raises:
        ConfigError: an option out of range.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        *,
        orientation: str = "RAS",
        scale: float = 1.0,
        shift: float = 0.0,
        clip: tuple[float, float] | None = None,
        mirror_axes: Sequence[int] = (),
        head: str = "softmax",
        channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if head not in HEADS or not members or not set(mirror_axes) <= {0, 1, 2}:
            raise ConfigError(f"Adapted: head {head!r}, mirror axes {list(mirror_axes)} or no members.")
        self.members = nn.ModuleList(members)
        self.orientation = Orientation(orientation)
        self.scale, self.shift, self.clip, self.head = scale, shift, clip, head
        self.channels = None if channels is None else list(channels)
        axes = [axis + 2 for axis in mirror_axes]
        self.flips = [list(c) for c in chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1))]

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.clip is None else x.clamp(*self.clip)
        x = self.orientation.there(x * self.scale + self.shift).contiguous()
        out = self.orientation.back(self._mean(x))
        out = regions_to_logits(out) if self.head == "regions" else out
        return out if self.channels is None else out[:, self.channels]

    def _mean(self, x: Tensor) -> Tensor:
        total: Tensor | None = None
        for flip in self.flips:
            seen = x.flip(flip) if flip else x
            for member in self.members:
                out = member(seen).float()
                out = out.flip(flip) if flip else out
                total = out if total is None else total + out
        assert total is not None  # there is always the unmirrored image
        return total / (len(self.flips) * len(self.members))


def regions_to_logits(regions: Tensor) -> Tensor:
    """Logits of regions [N, R, ...] (sigmoid) -> logits of background and labels [N, R + 1, ...] (softmax).

    The largest channel is the last region whose logit is positive, or background where none is; for a
    single region the probability is its sigmoid.
    """
    *earlier, later = regions.split(1, dim=1)
    own = [later]
    for region in reversed(earlier):
        own.append(torch.minimum(region, -later))
        later = torch.maximum(region, later)
    return torch.cat([-later, *reversed(own)], dim=1) / 2


class Merged(nn.Module):
    """Several networks that each know some organs, as one: TotalSegmentator's five parts, for instance.

    An organ's logit is its part's margin over that part's background, so that each part decides alone where
    the others see background, and the surer one wins where two claim a voxel.

    Args:
        parts: networks [N, 1, i, j, k] -> [N, C, i, j, k], background first.
        channels: for each of our channels (background first) the one of the parts' organs in a row.
    """

    def __init__(self, parts: Sequence[nn.Module], *, channels: Sequence[int] | None = None) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.channels = None if channels is None else list(channels)

    def forward(self, x: Tensor) -> Tensor:
        margins = []
        for part in self.parts:
            out = part(x)
            margins.append(out[:, 1:] - out[:, :1])
        merged = torch.cat([torch.zeros_like(margins[0][:, :1]), *margins], dim=1)
        return merged if self.channels is None else merged[:, self.channels]
