"""Any ONNX file is cut at its own tensors, and every cut computes what the file does, bit for bit."""

import numpy as np
import pytest
import torch

from splitsem.errors import ConfigError, SplitPointError

onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
ort = pytest.importorskip("onnxruntime", reason="the extra export is not installed")

from splitsem.api.parts import split  # noqa: E402
from splitsem.models.onnx_model import OnnxModel  # noqa: E402
from splitsem.splitting.graph import SplitGraph  # noqa: E402
from splitsem.splitting.onnx_graph import OnnxGraph  # noqa: E402
from splitsem.trees import is_same, leaves  # noqa: E402
from tests.unit import onnx_files  # noqa: E402

PICTURE = torch.rand(1, 3, 12, 10, generator=torch.Generator().manual_seed(0))
LEVELS = {"none": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED"}


def by_onnxruntime(path, optimisation="extended", **inputs):
    """What onnxruntime makes of the file itself, with the settings of the cuts."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[optimisation])
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    made = session.run(None, {name: np.asarray(value) for name, value in inputs.items()})
    return {output.name: torch.from_numpy(array) for output, array in zip(session.get_outputs(), made, strict=True)}


def through(cut, *inputs):
    return cut.tail(*cut.received(cut.head(*inputs)))


def check_all(graph, wanted, *inputs):
    """Each offered cut gives what is wanted, and sends what its point says."""
    for point in graph.points:
        cut = graph.cut(point)
        z = cut.head(*inputs)
        assert [(tuple(t.shape), t.dtype) for t in z] == [(t.shape, t.dtype) for t in point.tensors], point
        found = through(cut, *inputs)
        assert is_same(leaves(found), leaves(wanted)), point


@pytest.mark.parametrize("granularity", ["layer", "op"])
@pytest.mark.parametrize("optimisation", LEVELS)
def test_every_cut_is_exact(granularity, optimisation, tmp_path):
    path = onnx_files.residual(tmp_path / "net.onnx")
    model = OnnxModel(path, optimisation=optimisation)
    graph = OnnxGraph(model, PICTURE, granularity=granularity)
    wanted = by_onnxruntime(path, optimisation, x=PICTURE)["logits"]
    assert torch.equal(model(PICTURE), wanted)
    assert torch.equal(graph.sample, wanted)
    check_all(graph, wanted, PICTURE)


def test_points_are_called_after_tensors_and_a_skip_crosses(tmp_path):
    model = OnnxModel(onnx_files.residual(tmp_path / "net.onnx"), optimisation="none")
    graph = OnnxGraph(model, PICTURE, granularity="op")
    names = [point.name for point in graph.points]
    assert names == ["input", "stem.Conv", "stem.Relu", "body.Conv", "sum", "pooled", "mean", "flat", "output"]
    assert [len(point.tensors) for point in graph.points] == [1, 1, 1, 2, 1, 1, 1, 1, 1]
    assert graph.point("body.Conv").hook_bytes == graph.point("body.Conv").raw_bytes == 2 * 4 * 4 * 12 * 10
    layers = [point.name for point in OnnxGraph(model, PICTURE).points]
    assert layers == ["input", "stem.Relu", "sum", "flat", "output"]
    with pytest.raises(SplitPointError, match=r"no split point 'stem.relu'; did you mean 'stem.Relu'\?"):
        graph.point("stem.relu")


def test_costs_are_those_of_the_same_network_in_torch(tmp_path):
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(120, 5),
    )
    nodes = [
        ("Conv", "x w1 b1", "c", {"pads": [1, 1, 1, 1]}),
        ("Relu", "c", "r"),
        ("MaxPool", "r", "p", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Flatten", "p", "f"),
        ("Gemm", "f w2 b2", "y", {"transB": 1}),
    ]
    weights = [onnx.numpy_helper.from_array(w.detach().numpy(), n) for n, w in zip(
        ("w1", "b1", "w2", "b2"), net.parameters(), strict=True)]  # fmt: skip
    path = onnx_files.write(
        tmp_path / "net.onnx", nodes, [onnx_files.value("x", [1, 3, 12, 10])], [onnx_files.value("y", [1, 5])], weights
    )
    ours = OnnxGraph(OnnxModel(path, optimisation="none"), PICTURE, granularity="op").points
    theirs = SplitGraph(net, PICTURE, granularity="op").points
    for name in ("head_flops", "tail_flops", "head_param_bytes", "tail_param_bytes", "raw_bytes", "hook_bytes"):
        assert [getattr(p, name) for p in ours] == [getattr(p, name) for p in theirs], name
    assert [sum(op.bytes for op in p.head_ops) for p in ours] == [sum(op.bytes for op in p.head_ops) for p in theirs]


def test_several_inputs_and_outputs_go_by_position_and_by_name(tmp_path):
    path = onnx_files.two_inputs(tmp_path / "net.onnx")
    a, b = torch.rand(2, 1, 4, generator=torch.Generator().manual_seed(0))
    model = OnnxModel(path, optimisation="none")
    graph = split(model, a, b=b, granularity="op")
    wanted = by_onnxruntime(path, "none", a=a, b=b)
    assert list(graph.sample) == ["first", "second"]
    check_all(graph, wanted, a, b)
    cut = graph.cut("mixed")
    assert [len(point.tensors) for point in graph.points] == [2, 2, 2, 3, 2]
    assert is_same(cut.tail(*cut.head(b=b, a=a)), wanted)
    with pytest.raises(ConfigError, match=r"takes 2 inputs, a, b; got no\. 1"):
        model(a)


def test_outputs_can_be_chosen_also_from_inside(tmp_path):
    path = onnx_files.two_inputs(tmp_path / "net.onnx")
    a, b = torch.ones(1, 4), torch.zeros(1, 4)
    whole = by_onnxruntime(path, a=a, b=b)
    assert torch.equal(OnnxModel(path, outputs=["second"])(a, b), whole["second"])
    assert OnnxModel(path, outputs=["mixed"])(a, b).shape == (1, 4)
    with pytest.raises(ConfigError, match=r"returns 2 tensors, and the task takes one: choose it, outputs=\["):
        OnnxModel(path, output_shape=(4,))
    with pytest.raises(ConfigError, match="has no tensor 'third'; its outputs are first, second"):
        OnnxModel(path, outputs=["third"])


def test_a_stream_keeps_its_state_on_the_side_that_makes_it(tmp_path):
    path = onnx_files.recurrent(tmp_path / "net.onnx")
    model = OnnxModel(path, constants={"gain": 0.5}, state={"state": "next"}, optimisation="none")
    frames = torch.rand(4, 1, 6, generator=torch.Generator().manual_seed(0))
    graph = OnnxGraph(model, frames[0], granularity="op")
    assert [point.name for point in graph.points] == ["input", "encoded", "scaled", "positive", "next", "output"]
    assert set(graph.refused) == {"half", "carried", "mixed", "hidden"}
    assert graph.refused["mixed"] == "the head reads the state state, and its next value is made behind it"
    assert [point.tensors[0].shape[1] for point in graph.points] == [6, 4, 4, 4, 4, 2]  # never 8, the state's
    wanted, state = [], np.zeros((1, 8), np.float32)
    for frame in frames:
        made = by_onnxruntime(path, "none", x=frame, state=state, gain=np.float32(0.5))
        wanted.append(made["score"])
        state = made["next"].numpy()
    model.begin_stream()
    assert all(torch.equal(model(frame), y) for frame, y in zip(frames, wanted, strict=True))
    for point in graph.points:
        cut = graph.cut(point)
        assert torch.equal(through(cut, frames[0]), through(cut, frames[0]))  # no stream: each call begins anew
        cut.head.begin_stream()
        cut.tail.begin_stream()
        assert all(torch.equal(through(cut, frame), y) for frame, y in zip(frames, wanted, strict=True)), point


def test_a_state_is_an_input_like_any_other_where_it_is_not_named(tmp_path):
    path = onnx_files.recurrent(tmp_path / "net.onnx")
    x, state, gain = torch.ones(1, 6), torch.ones(1, 8), torch.tensor(2.0)
    graph = OnnxGraph(OnnxModel(path), x, state, gain, granularity="op")
    check_all(graph, by_onnxruntime(path, x=x, state=state, gain=gain), x, state, gain)


def test_what_is_inside_a_branch_is_computed_too(tmp_path):
    """A branch reads a tensor from outside of it, which its node does not list."""
    helper = onnx.helper
    then = helper.make_graph([helper.make_node("Mul", ["r", "r"], ["t"])], "then", [], [onnx_files.value("t", None)])
    other = helper.make_graph([helper.make_node("Neg", ["r"], ["o"])], "else", [], [onnx_files.value("o", None)])
    nodes = [
        ("Relu", "x", "r"),
        ("ReduceMax", "x", "most", {"keepdims": 0}),
        ("Greater", "most one", "is_large"),
        ("If", "is_large", "y", {"then_branch": then, "else_branch": other}),
        ("Tanh", "y", "z"),
    ]
    one = onnx.numpy_helper.from_array(np.float32(1), "one")
    path = onnx_files.write(
        tmp_path / "net.onnx", nodes, [onnx_files.value("x", [1, 4])], [onnx_files.value("z", [1, 4])], [one]
    )
    x = torch.linspace(-2, 2, 4)[None]
    graph = OnnxGraph(OnnxModel(path), x, granularity="op")
    for scale in (1, 0.1):
        check_all(graph, by_onnxruntime(path, x=scale * x)["z"], scale * x)


def test_nothing_is_offered_where_a_size_depends_on_values(tmp_path):
    path = onnx_files.values_decide(tmp_path / "net.onnx")
    with pytest.raises(
        ConfigError, match=r"at its end the size of found depends on values; choose other outputs of the model"
    ):
        OnnxGraph(OnnxModel(path), torch.ones(1, 4))
    assert len(OnnxGraph(OnnxModel(path, outputs=["y"]), torch.ones(1, 4)).points) == 2


def test_the_fingerprint_tells_graphs_and_the_digest_tells_weights(tmp_path):
    first = OnnxModel(onnx_files.residual(tmp_path / "a.onnx"))
    other = OnnxModel(onnx_files.residual(tmp_path / "b.onnx"))  # other random weights
    sizes = OnnxGraph(first, PICTURE), OnnxGraph(first, PICTURE[..., :8]), OnnxGraph(other, PICTURE)
    assert sizes[0].fingerprint == OnnxGraph(first, PICTURE).fingerprint == sizes[2].fingerprint
    assert sizes[0].fingerprint != sizes[1].fingerprint
    assert not torch.equal(first.state_dict()["sha256"], other.state_dict()["sha256"])


def test_a_batch_runs_as_its_samples_do(tmp_path):
    model = OnnxModel(onnx_files.residual(tmp_path / "net.onnx"))
    batch = torch.cat([PICTURE, 2 * PICTURE])
    assert torch.equal(model(batch), torch.cat([model(PICTURE), model(2 * PICTURE)]))


def test_a_half_is_a_file_of_its_own(tmp_path):
    path = onnx_files.residual(tmp_path / "net.onnx")
    cut = OnnxGraph(OnnxModel(path), PICTURE).cut("sum")
    onnx.save(cut.head.proto, tmp_path / "head.onnx")
    onnx.save(cut.tail.part.proto, tmp_path / "tail.onnx")
    z = by_onnxruntime(str(tmp_path / "head.onnx"), "none", x=PICTURE)
    y = by_onnxruntime(str(tmp_path / "tail.onnx"), "none", **z)
    assert torch.equal(y["logits"], by_onnxruntime(path, x=PICTURE)["logits"])


def test_external_data_is_read(tmp_path):
    path = onnx_files.residual(tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    assert OnnxModel(path)(PICTURE).shape == (1, 5)
    (tmp_path / "net.data").unlink()
    with pytest.raises(ConfigError, match=r"keeps weights in net\.data, which is not beside it: put it there"):
        OnnxModel(path)


@pytest.mark.parametrize("content", [b"", b"hello world", b"PK\x03\x04 and more"])
def test_what_is_no_onnx_file_is_refused(content, tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        OnnxModel(str(tmp_path / "net.onnx"))
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(ConfigError, match="is no ONNX file, or a damaged one"):
        OnnxModel(str(tmp_path / "net.onnx"))


@pytest.mark.parametrize(
    ("kind", "opsets", "said"),
    [
        ("Foo", [("", 17)], "lacks the operation Foo of opset ai.onnx 17; take a newer one than"),
        ("Foo", [("", 17), ("com.acme", 1)], r"lacks the operation com.acme:Foo \(opsets: ai.onnx 17, com.acme 1\)"),
        ("Relu", [("", 99)], r"lacks the opset 99 \(the file's: ai.onnx 99\); take a newer one than .* older opset"),
    ],
)
def test_what_this_onnxruntime_lacks_is_named_with_the_opset(kind, opsets, said, tmp_path):
    domain = {"domain": opsets[-1][0]}
    values = [onnx_files.value("x", [1, 4])], [onnx_files.value("y", [1, 4])]
    path = onnx_files.write(tmp_path / "net.onnx", [(kind, "x", "y", domain)], *values, opsets=opsets)
    with pytest.raises(ConfigError, match=said) as refused:
        OnnxModel(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.rand(1, 1, 12, 10), r"takes x as float32\[any, 3, any, any\], got float32\[1, 1, 12, 10\]"),
        (torch.rand(3, 12, 10), r"got float32\[3, 12, 10\]"),
        (torch.rand(1, 3, 12, 10).double(), r"got float64\[1, 3, 12, 10\]"),
    ],
)
def test_a_sample_of_another_form_is_refused(x, said, tmp_path):
    model = OnnxModel(onnx_files.residual(tmp_path / "net.onnx"))
    with pytest.raises(ConfigError, match=said):
        model(x)
    with pytest.raises(ConfigError, match=said):
        OnnxGraph(model, x)


def test_a_cut_takes_the_sizes_of_its_example_only(tmp_path):
    cut = OnnxGraph(OnnxModel(onnx_files.residual(tmp_path / "net.onnx")), PICTURE).cut("sum")
    with pytest.raises(ConfigError, match=r"was cut for x float32\[1, 3, 12, 10\], got float32\[1, 3, 8, 8\]"):
        cut.head(torch.rand(1, 3, 8, 8))


def test_constants_and_state_must_be_inputs(tmp_path):
    path = onnx_files.recurrent(tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match="has no input 'sr'; it has x, state, gain"):
        OnnxModel(path, constants={"sr": 16000})
    with pytest.raises(ConfigError, match=r"constants.gain must have 0 dimensions, got \[1, 2\]"):
        OnnxModel(path, constants={"gain": [1, 2]})
    with pytest.raises(ConfigError, match="score does not become the state state"):
        OnnxGraph(
            OnnxModel(path, constants={"gain": 1}, state={"state": "score"}, outputs=["hidden"]), torch.ones(1, 6)
        )
    with pytest.raises(ValueError, match="optimisation must be one of none, basic, extended, got 'all'"):
        OnnxModel(path, optimisation="all")
