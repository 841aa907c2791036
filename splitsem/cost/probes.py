"""Networks that nobody trains: blocks of random sizes, so that a machine's file knows many kinds of operations.

A predictor learns from sizes that it saw. Ten networks of three families show few of them; these show sizes spread over
what small and middling networks use, as kernel benchmarks do (Zhang et al., nn-Meter, MobiSys 2021).
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Rng = np.random.Generator
_ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU, nn.Sigmoid, nn.LeakyReLU,
)  # fmt: skip


def probe_networks(seed: int = 0, num: int = 24) -> Iterator[tuple[str, nn.Module, tuple[int, ...]]]:
    """Name, network and input shape without the batch; each of six styles in turn, ever new sizes."""
    rng = np.random.default_rng(seed)
    styles: tuple[Callable[[Rng], tuple[nn.Module, tuple[int, ...]]], ...] = (
        _plain,
        _mobile,
        _tokens,
        _grouped,
        _steps,
        _narrow,
    )
    for number in range(num):
        style = styles[number % len(styles)]
        torch.manual_seed(seed + number)
        network, shape = style(rng)
        yield f"probe {number} ({style.__name__.strip('_')})", network.eval(), shape


def _between(rng: Rng, low: float, high: float, multiple: int = 8) -> int:
    """A number that is as likely to be small as large by its logarithm, a multiple of ``multiple``."""
    return max(multiple, round(float(np.exp(rng.uniform(np.log(low), np.log(high)))) / multiple) * multiple)


def _activation(rng: Rng) -> nn.Module:
    return _ACTIVATIONS[int(rng.integers(len(_ACTIVATIONS)))]()


def _size(rng: Rng) -> int:
    return int(rng.choice([32, 48, 64, 80, 96, 112, 128]))


def _plain(rng: Rng) -> tuple[nn.Module, tuple[int, ...]]:
    """Convolutions of full depth, with pools, skips and a classifier of large products."""
    size = _size(rng)
    width, layers, at = 3, list[nn.Module](), size
    for _ in range(9):
        out, window = _between(rng, 8, 768 if at < 12 else 384 if at < 24 else 96), int(rng.choice([1, 3, 3, 3, 5, 7]))
        stride = 2 if at > 6 and rng.random() < 0.35 else 1
        layers += [nn.Conv2d(width, out, window, stride, window // 2), nn.BatchNorm2d(out), _activation(rng)]
        if rng.random() < 0.4:
            layers.append(_Skip(nn.Conv2d(out, out, 3, padding=1)))
        width, at = out, -(-at // stride)
        if at > 6 and rng.random() < 0.25:
            layers.append([nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2), nn.AvgPool2d(2)][int(rng.integers(3))])
            at = -(-at // 2)
    hidden = _between(rng, 64, 4096)
    layers += [nn.AdaptiveAvgPool2d(int(rng.integers(1, 8))), nn.Flatten(), nn.LazyLinear(hidden), nn.ReLU()]
    layers += [nn.Linear(hidden, hidden), nn.ReLU()]
    return _ready([*layers, nn.Linear(hidden, 100)], (3, size, size))


def _mobile(rng: Rng) -> tuple[nn.Module, tuple[int, ...]]:
    """Inverted bottlenecks with depthwise convolutions and squeeze-and-excitation."""
    size = _size(rng)
    width, at = _between(rng, 8, 40), size // 2
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), _activation(rng)]
    for _ in range(7):
        out, stride = _between(rng, 8, 256 if at < 16 else 64), 2 if at > 4 and rng.random() < 0.4 else 1
        hidden = min(1152, 8 * max(1, int(width * rng.uniform(1, 6)) // 8))
        layers.append(_Inverted(rng, width, hidden, out, stride))
        width, at = out, -(-at // stride)
    last = _between(rng, 256, 1536)
    layers += [nn.Conv2d(width, last, 1), nn.BatchNorm2d(last), _activation(rng), nn.AdaptiveAvgPool2d(1)]
    return _ready([*layers, nn.Flatten(), nn.Linear(last, 1000)], (3, size, size))


def _grouped(rng: Rng) -> tuple[nn.Module, tuple[int, ...]]:
    """Grouped bottlenecks, concatenations, shuffles and branches; upsampling at the end."""
    size = _size(rng)
    width, at = _between(rng, 16, 64), size // 2
    window = int(rng.choice([3, 5, 7]))
    layers: list[nn.Module] = [nn.Conv2d(3, width, window, 2, window // 2), nn.BatchNorm2d(width), nn.ReLU()]
    for _ in range(5):
        each = int(rng.choice([8, 16, 24, 32]))
        inner, out = each * int(rng.integers(2, 10)), _between(rng, 16, 384 if at < 16 else 128)
        stride = 2 if at > 4 and rng.random() < 0.4 else 1
        layers += [
            nn.Sequential(nn.Conv2d(width, inner, 1), nn.BatchNorm2d(inner), nn.ReLU()),
            nn.Sequential(
                nn.Conv2d(inner, inner, 3, stride, 1, groups=inner // each), nn.BatchNorm2d(inner), nn.ReLU()
            ),
            _Branches(rng, inner, out),
        ]
        width, at = 2 * out, -(-at // stride)
    layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, 32, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(8, 12, 1)]
    return _ready(layers, (3, size, size))


def _tokens(rng: Rng) -> tuple[nn.Module, tuple[int, ...]]:
    """Patches, attention over all tokens, products of any width, depthwise mixing with layers or convolutions."""
    size, patch = _size(rng), int(rng.choice([4, 8, 16]))
    heads = int(rng.choice([1, 2, 3, 4, 6, 8, 12]))
    width = heads * int(rng.choice([16, 32, 64]))
    kinds = [int(rng.choice(3, p=[0.5, 0.2, 0.3])) for _ in range(4)]
    blocks = [
        _Attention(rng, width, heads) if kind == 0 else _Depthwise(rng, width, is_linear=kind == 1) for kind in kinds
    ]
    return _ready([nn.Conv2d(3, width, patch, patch), *blocks, _Pooled(), nn.Linear(width, 100)], (3, size, size))


def _steps(rng: Rng) -> tuple[nn.Module, tuple[int, ...]]:
    """Two LSTMs, which are one call each, and a GRU, which is a call a step, over a series, with a head."""
    inputs, length = int(rng.integers(1, 33)), _between(rng, 8, 96, 4)
    kinds, widths = (nn.LSTM, nn.LSTM, nn.GRU), [_between(rng, 16, 256) for _ in range(3)]
    layers = [
        kind(width, hidden, int(rng.integers(1, 3)), batch_first=True)
        for kind, width, hidden in zip(kinds, [inputs, *widths], widths, strict=False)
    ]
    return _Series(layers, widths[-1], _between(rng, 8, 128)), (length, inputs)


def _narrow(rng: Rng) -> tuple[nn.Module, tuple[int, ...]]:
    """Many channels at few pixels, where the weights take the time; half of them with channels last."""
    size, width = int(rng.integers(2, 8)), _between(rng, 128, 1024)
    shape = width, size, size
    layers: list[nn.Module] = [_ChannelNorm(width)] if rng.random() < 0.5 else []
    for _ in range(6):
        window = int(rng.choice([1, 1, 3]))
        out = _between(rng, 128, 2048 if window == 1 else 512)
        layers += [nn.Conv2d(width, out, window, padding=window // 2, bias=bool(rng.random() < 0.5)), _activation(rng)]
        width = out
    return _ready(layers, shape)


def _ready(layers: list[nn.Module], shape: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    network = nn.Sequential(*layers).eval()
    with torch.no_grad():
        network(torch.zeros(1, *shape))  # what is lazy takes its size
    return network, shape


class _Skip(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.inner(x))


class _Inverted(nn.Module):
    def __init__(self, rng: Rng, width: int, hidden: int, out: int, stride: int) -> None:
        super().__init__()
        window, act = int(rng.choice([3, 3, 5, 7])), _activation(rng)
        self.body = nn.Sequential(
            nn.Conv2d(width, hidden, 1, bias=False), nn.BatchNorm2d(hidden), act,
            nn.Conv2d(hidden, hidden, window, stride, window // 2, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden), act,
        )  # fmt: skip
        less = max(8, hidden // 16)
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(hidden, less, 1), nn.ReLU(), nn.Conv2d(less, hidden, 1), nn.Sigmoid()
        )
        self.project = nn.Sequential(nn.Conv2d(hidden, out, 1, bias=False), nn.BatchNorm2d(out))
        self.is_squeezed, self.has_skip = bool(rng.random() < 0.5), width == out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        y = self.project(y * self.squeeze(y) if self.is_squeezed else y)
        return x + y if self.has_skip else y


class _Branches(nn.Module):
    def __init__(self, rng: Rng, width: int, out: int) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(width, out, 1), nn.Conv2d(width, out, 3, padding=1)
        self.norm, self.width, self.shuffles = nn.BatchNorm2d(2 * out), 2 * out, bool(rng.random() < 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm(torch.cat([self.one(x), self.other(x)], dim=1)))
        if not self.shuffles:
            return y
        return y.unflatten(1, (2, self.width // 2)).transpose(1, 2).flatten(1, 2)


class _Attention(nn.Module):
    def __init__(self, rng: Rng, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.is_fused = heads, bool(rng.random() < 0.6)
        hidden = _between(rng, width, 4 * width)
        self.before, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-1]
        t = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.before(t)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if self.is_fused:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            mixed = torch.softmax(q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1), dim=-1) @ v
        t = t + self.out(mixed.transpose(1, 2).flatten(2))
        t = t + self.mlp(t)
        return t.transpose(1, 2).unflatten(2, (size, size)).contiguous()


class _Depthwise(nn.Module):
    def __init__(self, rng: Rng, width: int, is_linear: bool) -> None:
        super().__init__()
        hidden, window = _between(rng, width, 4 * width), int(rng.choice([3, 5, 7]))
        self.mix = nn.Conv2d(width, width, window, padding=window // 2, groups=width)
        self.norm, self.is_linear = _ChannelNorm(width), is_linear
        made = nn.Linear if is_linear else partial(nn.Conv2d, kernel_size=1)
        self.up, self.down = made(width, hidden), made(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.mix(x))
        if not self.is_linear:
            return x + self.down(functional.gelu(self.up(y)))
        return x + self.down(functional.gelu(self.up(y.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)


class _ChannelNorm(nn.LayerNorm):
    """Over the channels, which lie last in memory from then on."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Series(nn.Module):
    def __init__(self, layers: list[nn.Module], hidden: int, inner: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.head = nn.Sequential(nn.Linear(hidden, inner), nn.ReLU(), nn.Linear(inner, 8))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)[0]
        return self.head(x[:, -1])


class _Pooled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))
