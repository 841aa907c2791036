"""The device's half as a file that runs without this package: torch.export and ONNX."""
