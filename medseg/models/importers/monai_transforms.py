"""MONAI's usual preprocessing, read as facts: axis order, spacing, what becomes of HU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from medseg.errors import ModelImportError
from medseg.models.importers.foreign import Scale
from medseg.models.importers.monai_config import BundleConfig, target

# Loading, types and devices: no effect on the numbers that the network sees.
_NEUTRAL = {"LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "CastToTyped", "ToTensord", "ToDeviced", "Identityd"}
# The network sees the whole scan here: a window further from the organs instead of a box around the body.
_PASSED_OVER = {"CropForegroundd", "SpatialPadd", "DivisiblePadd"}
_POST_NEUTRAL = {"Invertd", "SaveImaged", "EnsureTyped", "ToTensord"}
_POST_CLEANING = {"KeepLargestConnectedComponentd", "FillHolesd", "RemoveSmallObjectsd"}
_ADVICE = "Write the step as one of the usual transforms, or convert the model by hand."


@dataclass(frozen=True)
class Seen:
    """What the preprocessing says; None where it says nothing. `passed_over`: steps that are left out."""

    codes: str | None = None
    spacing: tuple[float, float, float] | None = None
    scale: Scale = field(default_factory=Scale)
    passed_over: tuple[str, ...] = ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is done otherwise here, for people."""
        return tuple(f"{name} of the bundle is left out: windows cover the whole scan." for name in self.passed_over)


def read_preprocessing(config: BundleConfig) -> Seen:
    """Follow the transforms in their order.

    Raises:
        ModelImportError: a transform, or an argument of one, that is not understood.
    """
    seen = Seen()
    for place, node in _steps(config, "preprocessing", "pre_transforms"):
        name = target(node)
        if name in _NEUTRAL:
            continue
        if name in _PASSED_OVER:
            seen = replace(seen, passed_over=(*seen.passed_over, name))
            continue
        if name not in _READERS:
            raise ModelImportError(
                config.path, f"{place} is {name or 'no transform'}, which is not understood.", advice=_ADVICE
            )
        arguments = {key: config.literal(value, f"{place}.{key}") for key, value in node.items() if str(key)[0] != "_"}
        try:
            seen = _READERS[name](seen, arguments)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelImportError(
                config.path, f"{place} ({name}) is not understood: {error}.", advice=_ADVICE
            ) from error
    return seen


def read_postprocessing(config: BundleConfig) -> tuple[str, tuple[str, ...]]:
    """The head, 'softmax' or 'regions' (sigmoid), and remarks.

    Raises:
        ModelImportError: a transform that would make another mask.
    """
    sigmoid, remarks = False, []
    for place, node in _steps(config, "postprocessing", "post_transforms"):
        name = target(node)
        if name == "Activationsd":
            sigmoid = sigmoid or bool(config.literal(node.get("sigmoid", False), place))
        elif name == "AsDiscreted":
            _check_decision(config, node, place)
        elif name in _POST_CLEANING:
            remarks.append(f"{name} of the bundle is left out: nothing is removed from the masks or filled.")
        elif name not in _POST_NEUTRAL:
            raise ModelImportError(
                config.path, f"{place} is {name or 'no transform'}, which is not understood.", advice=_ADVICE
            )
    return "regions" if sigmoid else "softmax", tuple(remarks)


def _check_decision(config: BundleConfig, node: Mapping[str, Any], place: str) -> None:
    threshold = config.literal(node.get("threshold"), place)
    if threshold not in (None, 0.5, True):
        raise ModelImportError(config.path, f"{place} decides at {threshold}, not at 0.5.", advice=_ADVICE)


def _steps(config: BundleConfig, *sections: str) -> list[tuple[str, Mapping[str, Any]]]:
    node = config.section(*sections)
    steps = config.follow(node.get("transforms"), f"{sections[0]}::transforms") if target(node) == "Compose" else node
    if not isinstance(steps, list):
        raise ModelImportError(config.path, f"{sections[0]} is no Compose of transforms.", advice=_ADVICE)
    rows = [(f"{sections[0]}::{n}", config.follow(step, f"{sections[0]}::{n}")) for n, step in enumerate(steps)]
    for place, step in rows:
        if not isinstance(step, Mapping) or step.get("_disabled_", False) not in (True, False):
            raise ModelImportError(config.path, f"{place} is no transform.", advice=_ADVICE)
    return [(place, step) for place, step in rows if not step.get("_disabled_", False)]


def _orientation(seen: Seen, arguments: Mapping[str, Any]) -> Seen:
    _only(arguments, "keys", "axcodes", "as_closest_canonical", "allow_missing_keys", "lazy", "labels")
    codes = "RAS" if arguments.get("as_closest_canonical") else str(arguments["axcodes"])
    if arguments.get("labels") or seen.spacing or seen.codes:
        raise ValueError("axes must be ordered once, before the spacing, with the usual letters")
    return replace(seen, codes=codes)


def _spacing(seen: Seen, arguments: Mapping[str, Any]) -> Seen:
    _only(
        arguments, "keys", "pixdim", "mode", "padding_mode", "align_corners", "dtype", "allow_missing_keys", "diagonal",
        "scale_extent", "recompute_affine", "min_pixdim", "max_pixdim", "ensure_same_shape", "lazy",
    )  # fmt: skip
    i, j, k = (float(step) for step in arguments["pixdim"])
    if min(i, j, k) <= 0 or arguments.get("diagonal"):
        raise ValueError("spacings must be given for each axis")
    return replace(seen, spacing=(i, j, k))


def _range(seen: Seen, arguments: Mapping[str, Any]) -> Seen:
    _only(arguments, "keys", "a_min", "a_max", "b_min", "b_max", "clip", "dtype", "allow_missing_keys")
    a_min, a_max = float(arguments["a_min"]), float(arguments["a_max"])
    b_min, b_max = (
        (0.0, 1.0) if arguments.get("b_min") is None else (float(arguments["b_min"]), float(arguments["b_max"]))
    )
    slope = (b_max - b_min) / (a_max - a_min)
    scale = _then(seen.scale, slope, b_min - slope * a_min)
    return replace(seen, scale=_clipped(scale, b_min, b_max) if arguments.get("clip") else scale)


def _normalise(seen: Seen, arguments: Mapping[str, Any]) -> Seen:
    _only(arguments, "keys", "subtrahend", "divisor", "nonzero", "channel_wise", "dtype", "allow_missing_keys")
    subtrahend, divisor = arguments.get("subtrahend"), arguments.get("divisor")
    fresh = seen.scale.factor == 1.0 and seen.scale.offset == 0.0
    if arguments.get("nonzero") and not (fresh and subtrahend is None):
        raise ValueError("nonzero is understood for HU only")
    if (subtrahend is None) != (divisor is None):
        raise ValueError("give both subtrahend and divisor, or none")
    if subtrahend is not None:
        by = float(_one(divisor))
        return replace(seen, scale=_then(seen.scale, 1 / by, -float(_one(subtrahend)) / by))
    if seen.passed_over:  # another scale for the network, not just another window around the body
        raise ValueError(f"mean and deviation are taken after {', '.join(seen.passed_over)}, here of the whole scan")
    return replace(seen, scale=Scale(seen.scale.window_hu, intensity="z-score"))


_READERS: dict[str, Callable[[Seen, Mapping[str, Any]], Seen]] = {
    "Orientationd": _orientation,
    "Spacingd": _spacing,
    "ScaleIntensityRanged": _range,
    "NormalizeIntensityd": _normalise,
}
KNOWN = {*_NEUTRAL, *_PASSED_OVER, *_POST_NEUTRAL, *_POST_CLEANING, *_READERS, "Activationsd", "AsDiscreted"}


def _then(scale: Scale, factor: float, offset: float) -> Scale:
    """`scale`, followed by one more linear step."""
    if factor <= 0:
        raise ValueError("the scale must not be turned upside down")
    return replace(scale, factor=scale.factor * factor, offset=scale.offset * factor + offset)


def _clipped(scale: Scale, low: float, high: float) -> Scale:
    """`scale` with its result clipped, said as a window of HU."""
    if scale.intensity == "z-score":
        raise ValueError("clipping after a z-score")
    a, b = ((limit - scale.offset) / scale.factor for limit in (low, high))
    return replace(scale, window_hu=(max(a, scale.window_hu[0]), min(b, scale.window_hu[1])))


def _one(value: Any) -> Any:
    if isinstance(value, list):
        (value,) = value
    return value


def _only(arguments: Mapping[str, Any], *known: str) -> None:
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ValueError(f"argument {', '.join(unknown)}")
