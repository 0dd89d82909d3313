"""The workshop: a model package -> ONNX, int8 and shared kernels, each behind the parity gate."""
