"""Several foreign models of one grid as one, by their labels: TotalSegmentator's `total` is five such folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from medseg.errors import ModelImportError
from medseg.models.card import NetworkSpec
from medseg.models.importers.foreign import ForeignModel


def merge(models: Sequence[ForeignModel], values: Mapping[str, int] | None = None) -> tuple[ForeignModel, NetworkSpec]:
    """Several models of one grid as one.

    Args:
        models: their organs follow each other where `values` does not say otherwise.
        values: {organ: value}, numbered 1, 2, 3 ...; organs of the models that it does not name are left out.

    Raises:
        ModelImportError: different grids, an organ that two models know, or values that do not fit.
    """
    first = models[0]
    for other in models[1:]:
        _same_grid(first, other)
    organs = [organ for model in models for organ in model.labels]
    names, channels = _numbering(organs, values, first.path)
    window = (min(m.scale.window_hu[0] for m in models), max(m.scale.window_hu[1] for m in models))
    weights = {f"parts.{n}.{key}": tensor for n, m in enumerate(models) for key, tensor in m.weights.items()}
    merged = ForeignModel(
        path=first.path,
        tool=first.tool,
        labels=names,
        network="Merged",
        options={"parts": [_part(model, window) for model in models], "channels": channels},
        weights=weights,
        # Beyond the scan each part would see its own zero; together they see the mean of these.
        scale=type(first.scale)(
            window_hu=window,
            offset=fmean(m.scale.offset / m.scale.factor for m in models),
            intensity=first.scale.intensity,
        ),
        spacing_mm=first.spacing_mm,
        patch_size=first.patch_size,
        overlap_ratio=first.overlap_ratio,
        blend=first.blend,
        spread=first.spread,
        fitted=first.fitted,
        mirror_axes=first.mirror_axes,
        mirror_even=first.mirror_even,
        facts={"parts": [dict(model.facts) for model in models]},
        remarks=tuple(dict.fromkeys(remark for model in models for remark in model.remarks)),
        description=f"{len(models)} {first.tool} models in one: {', '.join(model.path.name for model in models)}.",
    )
    return merged, NetworkSpec(name="Merged", options=dict(merged.options))


def _same_grid(first: ForeignModel, other: ForeignModel) -> None:
    def grid(model: ForeignModel) -> tuple[object, ...]:
        windows = model.patch_size, model.overlap_ratio, model.blend, model.spread, model.fitted
        images = model.mirror_axes, model.mirror_even
        return model.tool, model.scale.intensity, model.spacing_mm, *windows, *images

    if grid(first) != grid(other):
        reason = f"{grid(other)} differs from {first.path.name}, {grid(first)}."
        raise ModelImportError(other.path, reason, advice="Import it as a model of its own.")


def _numbering(
    organs: Sequence[str], values: Mapping[str, int] | None, path: Path
) -> tuple[tuple[str, ...], list[int] | None]:
    twice = sorted({organ for organ in organs if organs.count(organ) > 1})
    if twice:
        raise ModelImportError(path, f"several models know {', '.join(twice)}.", advice="Rename them at their source.")
    if values is None:
        return tuple(organs), None
    names = sorted(values, key=lambda organ: values[organ])
    unknown = [organ for organ in names if organ not in organs]
    if unknown or [values[organ] for organ in names] != list(range(1, len(names) + 1)):
        reason = (
            f"the label map names {', '.join(unknown) or 'values'} that do not fit: {len(organs)} organs are there."
        )
        raise ModelImportError(path, reason, advice="Give {organ: value} with values 1, 2, 3 ...")
    return tuple(names), [0, *(organs.index(organ) + 1 for organ in names)]


def _part(model: ForeignModel, window: tuple[float, float]) -> dict[str, Any]:
    """Options of a part that is given the common window: it clips to its own and scales from there."""
    if model.scale.intensity.endswith("z-score"):
        return model.adapted_options
    low, high = window
    clip = [4 * (limit - low) / (high - low) - 1 for limit in model.scale.window_hu]
    scale, shift = model.scale.adapted(window)
    return model.adapted_options | {"clip": clip, "scale": scale, "shift": shift}
