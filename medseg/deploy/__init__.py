"""The workshop: a model package -> ONNX, int8 and shared kernels, each behind the parity gate."""

from medseg.deploy.onnx_export import export_onnx
from medseg.deploy.package import Request, export_package
from medseg.deploy.parity import Gate
from medseg.deploy.quantize import Quantization
from medseg.deploy.sharing import ParameterSharing
