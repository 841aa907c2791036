"""Export: the edge's half as a file that runs without this package, by torch.export and ONNX."""
