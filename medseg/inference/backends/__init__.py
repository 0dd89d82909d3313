"""One door to everything that can run a network: PyTorch, ONNX Runtime, OpenVINO.

    predictor = build_predictor(package)          # the fastest on this machine, measured once
    logits = predictor(tiles)                     # float32 [B, 1, i, j, k] -> [B, C, i, j, k]
    predictor.choice.reason                       # why this one

Libraries are imported when a backend is built, never before.
"""

from medseg.inference.backends.build import BACKENDS, PRECISIONS, build_predictor
from medseg.inference.backends.choice import Choice
from medseg.inference.backends.predictor import Candidate, Predictor
from medseg.inference.backends.torch_backend import load_network
