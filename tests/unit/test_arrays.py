"""Structures of arrays survive their payload, and nothing that is damaged or too large gets through."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from splitsem.errors import ConfigError, PayloadError
from splitsem.remote.tensor_arrays import as_arrays, as_tensors
from splitsem.trees import is_same
from splitsem_device import arrays
from splitsem_device.fields import CRC_BYTES, Pieces, crc32, varint

DTYPES = sorted(arrays._NATIVE)
TORCH_DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32),
    *(torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.complex32),
]


def same(one, other):
    """Whether two structures are equal, dtypes and kinds of containers included."""
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return type(other) is dict and list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(DTYPES).flatmap(
        lambda name: npst.arrays(np.dtype(name), npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(trees, st.sampled_from(arrays.COMPRESSIONS))
@settings(max_examples=150)
def test_any_structure_survives(tree, compression):
    payload = arrays.pack(tree, compression)
    assert same(tree, arrays.unpack(payload))
    middle = len(payload) // 2
    assert same(tree, arrays.unpack(Pieces([payload[:middle], payload[middle:]])))


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_tensors_of_every_dtype_survive(dtype, shape):
    tensor = torch.randint(0, 2, (2, 3)).to(dtype)[:0].reshape(shape) if 0 in shape else torch.ones(shape).to(dtype)
    found = as_tensors(arrays.unpack(arrays.pack(as_arrays({"z": [tensor]}))))["z"][0]
    assert found.dtype == dtype
    assert found.shape == tensor.shape
    assert found.reshape(-1).view(torch.uint8).equal(tensor.reshape(-1).view(torch.uint8))


def test_tensors_in_odd_memory_orders_and_with_gradients_survive():
    tensor = torch.randn(2, 3, 4, 5, requires_grad=True).to(memory_format=torch.channels_last).mT
    assert is_same(tensor, as_tensors(arrays.unpack(arrays.pack(as_arrays(tensor)))))
    assert torch.equal(as_tensors(as_arrays(torch.ones(2, dtype=torch.complex64).conj())), torch.ones(2) + 0j)


def test_arrays_that_arrive_may_be_written_and_share_nothing():
    given = np.arange(4)
    found = arrays.unpack(arrays.pack(given))
    found += 1
    assert given[0] == 0


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"a": [object()]}, r"the value\['a'\]\[0\] is a object"),
        ({1: 2}, "has the key 1: keys must be texts"),
        (np.array(["a"]), "has the dtype str"),
        (np.array([None]), "has the dtype object"),
        (torch.ones(1), "is a Tensor"),
    ],
)
def test_what_cannot_travel_is_refused_with_its_place(tree, says):
    with pytest.raises(ConfigError, match=says):
        arrays.pack(tree)


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (torch.ones(2, device="meta"), "is on meta: give tensor.cpu()"),
        (torch.ones(2).to_sparse(), "sparse or quantised"),
    ],
)
def test_tensors_elsewhere_are_refused(tensor, says):
    with pytest.raises(ConfigError, match=says):
        as_arrays([tensor])


def test_every_damaged_byte_is_noticed():
    payload = arrays.pack((np.arange(3), "x"), "zstd")
    for position in range(len(payload)):
        damaged = bytearray(payload)
        damaged[position] ^= 1
        with pytest.raises(PayloadError):
            arrays.unpack(bytes(damaged))
    for end in range(len(payload)):
        with pytest.raises(PayloadError):
            arrays.unpack(payload[:end])


def forged(header, body=b"", code=0):
    """A payload whose checksum is right."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    front = arrays.MAGIC + bytes((arrays.VERSION, code)) + varint(len(text)) + text + body
    return front + crc32(front).to_bytes(CRC_BYTES, "little")


@pytest.mark.parametrize(
    "payload",
    [
        forged(["a", "float32", 1 << 40]),
        forged(["a", "float32", 1 << 62, 1 << 62]),
        forged(["a", "float32", -1]),
        forged(["a", "float32", 2.0]),
        forged(["a", "float32", True]),
        forged(["a", "object", 1], bytes(8)),
        forged(["a", "float32", 2], bytes(7)),
        forged(["a", ["float32"], 2], bytes(8)),
        forged(["a", "float32", *[1] * 40], bytes(4)),
        forged(["x"]),
        forged(["=", [1]]),
        forged(["="]),
        forged([]),
        forged({}),
        forged(3),
        forged(["d", ["k"]]),
        forged(["l", 3]),
        forged(b"[" * 100_000),
        forged(b"\xff"),
        forged(["a", "uint8", 4], b"\x28\xb5\x2f\xfd" + bytes(9), code=1),
        forged(["="], code=9),
    ],
)
def test_a_forged_header_is_refused_before_memory_is_taken(payload):
    with pytest.raises(PayloadError):
        arrays.unpack(payload)


def test_arrays_beyond_the_limit_are_refused():
    payload = arrays.pack(np.zeros(1 << 20, np.uint8), "zstd")
    assert len(payload) < 1000
    with pytest.raises(PayloadError, match="expected arrays of at most 1000 bytes, got 1048576"):
        arrays.unpack(payload, most_bytes=1000)
