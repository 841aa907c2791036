"""Small ONNX graphs, made by hand."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

RNG = np.random.default_rng(0)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name, *shape):
    return numpy_helper.from_array(RNG.normal(size=shape).astype(np.float32), name)


def numbers(name, *entries):
    return numpy_helper.from_array(np.array(entries, np.int64), name)


def write(path, nodes, inputs, outputs, weights=(), opsets=(("", 17),), **settings):
    """Save a graph; a node is ``(operation, inputs, outputs)`` in words, and attributes."""
    made = [
        helper.make_node(kind, reads.split(), makes.split(), **dict(*attributes))
        for kind, reads, makes, *attributes in nodes
    ]
    graph = helper.make_graph(made, "g", inputs, outputs, weights)
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets]
    save(helper.make_model(graph, opset_imports=imports, ir_version=8), path, **settings)
    return str(path)


def residual(path, **settings):
    """conv → relu → conv, and a skip around the second; pooled and classified; sizes and batch are open."""
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        ("Conv", "x w1 b1", "/stem/Conv_output_0", pads),
        ("Relu", "/stem/Conv_output_0", "/stem/Relu_output_0"),
        ("Conv", "/stem/Relu_output_0 w2", "/body/Conv_output_0", pads),
        ("Add", "/body/Conv_output_0 /stem/Relu_output_0", "sum"),
        ("MaxPool", "sum", "pooled", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Shape", "pooled", "shape"),
        ("Gather", "shape zero", "batch"),
        ("Concat", "batch rest", "sizes", {"axis": 0}),
        ("ReduceMean", "pooled", "mean", {"axes": [2, 3], "keepdims": 1}),
        ("Reshape", "mean sizes", "flat"),
        ("Gemm", "flat w3 b3", "logits", {"transB": 1}),
    ]
    weights = [weight("w1", 4, 3, 3, 3), weight("b1", 4), weight("w2", 4, 4, 3, 3), weight("w3", 5, 4), weight("b3", 5)]
    weights += [numbers("zero", 0), numbers("rest", -1)]
    shape = ["batch", 3, "height", "width"]
    return write(path, nodes, [value("x", shape)], [value("logits", ["batch", 5])], weights, **settings)


def two_inputs(path):
    """Two inputs, the second read late; two outputs, the first made early."""
    nodes = [
        ("MatMul", "a w1", "early"),
        ("Tanh", "early", "first"),
        ("MatMul", "first w2", "mixed"),
        ("Add", "mixed b", "second"),
    ]
    inputs, outputs = [value("a", [1, 4]), value("b", [1, 4])], [value("first", [1, 4]), value("second", [1, 4])]
    return write(path, nodes, inputs, outputs, [weight("w1", 4, 4), weight("w2", 4, 4)])


def recurrent(path):
    """A frame, a gain that is a constant in use, and a state that is taken apart at the start."""
    nodes = [
        ("Slice", "state from to axis", "half"),
        ("MatMul", "x w1", "encoded"),
        ("Mul", "encoded gain", "scaled"),
        ("Relu", "scaled", "positive"),
        ("MatMul", "half w2", "carried"),
        ("Add", "positive carried", "mixed"),
        ("Tanh", "mixed", "hidden"),
        ("Concat", "hidden half", "next", {"axis": 1}),
        ("MatMul", "hidden w3", "score"),
    ]
    inputs = [value("x", [1, 6]), value("state", [1, 8]), value("gain", [])]
    weights = [weight("w1", 6, 4), weight("w2", 4, 4), weight("w3", 4, 2)]
    weights += [numbers("from", 0), numbers("to", 4), numbers("axis", 1)]
    return write(path, nodes, inputs, [value("score", [1, 2]), value("next", [1, 8])], weights)


def values_decide(path):
    """The places of positive values: nobody knows how many before."""
    nodes = [("Relu", "x", "y"), ("NonZero", "y", "places"), ("Cast", "places", "found", {"to": TensorProto.FLOAT})]
    return write(path, nodes, [value("x", [1, 4])], [value("found", [2, None])])
