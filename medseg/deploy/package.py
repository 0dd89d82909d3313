"""`medseg export`: a copy of a package with its variants, each behind the gate."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from medseg.deploy.calibration import calibration_tiles, find_scans, split
from medseg.deploy.distil import STEPS, distil
from medseg.deploy.onnx_export import export_onnx
from medseg.deploy.parity import Gate, Judge
from medseg.deploy.quantize import Quantization
from medseg.deploy.references import References
from medseg.deploy.sharing import ParameterSharing
from medseg.errors import ConfigError, ModelError
from medseg.imaging.emit import emit, emit_text, sha256_file
from medseg.inference.backends.onnxruntime_backend import OnnxRuntimePredictor
from medseg.inference.backends.openvino_backend import OpenVinoPredictor
from medseg.inference.backends.predictor import ONNX_FP32, ONNX_INT8, Predictor, patch_of
from medseg.inference.backends.torch_backend import load_network
from medseg.models.card import ModelCard, Variant
from medseg.models.store import CARD, WEIGHTS, ModelPackage

Say = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """What became of an export.

    Attributes:
        folder: the new package.
        card: its card, with the variants that passed.
        refused: variant -> why it stayed outside.
    """

    folder: Path
    card: ModelCard
    refused: dict[str, list[str]]


@dataclass(frozen=True)
class Request:
    """What to export.

    Attributes:
        out: folder of the new package; must be new or empty.
        int8: also quantise.
        share: tie the kernels of deep layers first: a tenth of the size in place of a quarter, and some Dice lost.
        calibrate: CT scans, half of which calibrate; the other half is judged by.
        references: contours of these scans.
        gate: what a variant may lose; None for the usual limits.
        tune_steps: how long a network with tied kernels learns from the one before, on windows of the scans.
    """

    out: Path
    int8: bool = False
    share: bool = False
    calibrate: Path | None = None
    references: Path | None = None
    gate: Gate | None = None
    tune_steps: int = STEPS

    @property
    def limits(self) -> Gate:
        """The gate: the one that was given, else the usual one; tied kernels may lose 1.2 points of Dice."""
        return self.gate or (Gate(max_dice_loss=0.012, max_organ_dice_loss=0.03) if self.share else Gate())


def export_package(package: ModelPackage, request: Request, say: Say = lambda _: None) -> Exported:
    """Write `package` with `model.onnx`, and `model.int8.onnx` where asked for, to a new folder.

    The card is written last: a folder without it is not taken for a package.

    Raises:
        ConfigError: the wish contradicts itself, the folder is in use, or a library of medseg[deploy] is missing.
        ModelError: the model has no network, or its ONNX file does not give PyTorch's results.
        InputError, DataError: a scan or reference that cannot be used.
    """
    _check(package, request)
    return _Workshop(package, request, say).run()


def _check(package: ModelPackage, request: Request) -> None:
    if package.card.network is None:
        raise ModelError(f"Model {package.card.id} has no network to export.", advice="")
    if request.share and not request.int8:
        raise ConfigError("Shared kernels are stored in the int8 file.", advice="Give --int8 with --share.")
    if request.int8 and request.calibrate is None:
        raise ConfigError("int8 needs real scans for calibration.", advice="Give --calibrate FOLDER_OF_CT.")
    if request.references is not None and request.calibrate is None:
        raise ConfigError("References belong to scans.", advice="Give --calibrate with the folder of these scans.")
    if request.out.exists() and not (request.out.is_dir() and _unfinished(request.out, package)):
        raise ConfigError(f"{request.out} is in use.", advice="Give a new or empty folder.")


def _unfinished(folder: Path, package: ModelPackage) -> bool:
    """Empty, or what an export of this package left that was interrupted: its weights, maybe more, and no card."""
    names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".part-")}
    if not names:
        return True
    begun = WEIGHTS in names and sha256_file(folder / WEIGHTS) == package.card.files[WEIGHTS]
    return begun and names <= {*package.card.files, ONNX_FP32, ONNX_INT8}


class _Workshop:
    """One export: the copy, the variants that entered and those that did not."""

    def __init__(self, package: ModelPackage, request: Request, say: Say) -> None:
        self.source, self.request, self.say = package, request, say
        scans = [] if request.calibrate is None else find_scans(request.calibrate)
        self.calibrate, self.judged = split(scans) if scans else ([], [])
        references = None if request.references is None else References(request.references)
        if references is not None:
            references.require_some(self.judged, package.card.label_table.names)
            covered = sum(map(references.covers, self.judged))
            say(f"{covered} of {len(self.judged)} scans that are judged have references")
        self.judge = Judge(package, self.judged, references)
        self.variants: list[Variant] = []
        self.refused: dict[str, list[str]] = {}

    def run(self) -> Exported:
        own = {one.file for one in self.source.card.variants} | {ONNX_FP32, ONNX_INT8}
        kept = [name for name in self.source.card.files if name not in own]
        for name in kept:
            emit(self.request.out / name, partial(shutil.copyfile, self.source.file(name)))
        self._float()
        if self.request.int8:
            self._int8()
        files = [*kept, *(one.file for one in self.variants)]
        hashes = {name: sha256_file(self.request.out / name) for name in files}
        card = self.source.card.model_copy(update={"files": hashes, "variants": self.variants})
        emit_text(self.request.out / CARD, card.model_dump_json(indent=2) + "\n")
        return Exported(self.request.out, card, self.refused)

    def _float(self) -> None:
        self.say("Exporting to ONNX, and comparing with PyTorch ...")
        path = export_onnx(self.source, self.request.out / ONNX_FP32)
        objections = self._judge("fp32", path, OnnxRuntimePredictor(path, patch_of(self.source)))
        if objections:
            raise ModelError(f"The ONNX file is not the model: {'; '.join(objections)}.", advice="")

    def _int8(self) -> None:
        name = "int8 shared" if self.request.share else "int8"
        tiles, path = list(calibration_tiles(self.source, self.calibrate)), self.request.out / ONNX_INT8
        network = self._tied(tiles) if self.request.share else load_network(self.source)
        for keep_ends in (False, True):
            self.say(f"Quantising with {len(self.calibrate)} scans{', both ends in float' if keep_ends else ''} ...")
            Quantization(network, keep_ends=keep_ends, card=self.source.card).export(path, tiles)
            self.say(f"Judging {name} by {len(self.judged)} scans ...")
            objections = self._judge(name, path, OpenVinoPredictor(path, patch_of(self.source), "int8"))
            if not objections:
                return
            self.say(f"Refused: {'; '.join(objections)}.")
        path.unlink()
        self.refused[name] = objections

    def _tied(self, tiles: list[Tensor]) -> nn.Module:
        """The network with shared kernels, which then learns from the one before."""
        self.say("Tying kernels in groups of four ...")
        before = load_network(self.source)
        after = ParameterSharing(before).model
        if self.request.tune_steps:
            self.say(f"Fine-tuning on {len(tiles)} windows of these scans, {self.request.tune_steps} steps ...")
            distil(after, before, tiles, self.request.tune_steps, on_step=self._tell)
        return after

    def _tell(self, step: int, loss: float) -> None:
        if (step + 1) % 50 == 0:
            self.say(f"  step {step + 1}: {loss:.4f} from the network before")

    def _judge(self, name: str, path: Path, variant: Predictor) -> list[str]:
        """Let the variant in, or say why not."""
        figures = self.judge.figures(variant, path, (self.request.out / ONNX_FP32).stat().st_size)
        objections = self.request.limits.objections(figures, variant.precision)
        if not objections:
            fields = {"name": name, "file": path.name, "precision": variant.precision, "backend": variant.backend}
            self.variants.append(Variant.model_validate(fields | {"figures": figures}))
        return objections
