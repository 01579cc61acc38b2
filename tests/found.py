"""Models of other people, small, and what growable finds in them."""

import torch
from torch import nn
from torch.nn.functional import glu, linear, pad, relu
from torchvision.models.convnext import LayerNorm2d


class Residual(nn.Module):
    """A stem, a block that adds, and a head: the stem and the end of the block make one width."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.inner, self.back = nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.Conv2d(5, 6, 3, padding=1)
        self.scale = nn.Parameter(torch.full((1,), 1e-6))
        self.head = nn.Linear(6, 4)

    def forward(self, images):
        stream = relu(self.norm(self.stem(images)))
        stream = stream + self.scale * self.back(relu(self.inner(stream)))
        return self.head(stream.mean((2, 3)))


class Beside(nn.Module):
    """Two branches, side by side, normalised and read together, after one of them was also read alone."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1)
        self.norm, self.read = nn.BatchNorm2d(13), nn.Linear(13 * 4, 5)

    def forward(self, images):
        left = self.left(images)
        both = torch.cat([left, self.right(relu(left)), images], 1)
        return self.read(relu(self.norm(both)).flatten(1))


class Gate(nn.Module):
    """Squeeze and excitation around a depthwise convolution."""

    def __init__(self):
        super().__init__()
        self.expand, self.depth = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, images):
        units = self.depth(relu(self.expand(images)))
        gate = torch.sigmoid(self.excite(relu(self.squeeze(nn.functional.adaptive_avg_pool2d(units, 1)))))
        return self.head(gate * units).flatten(1)


class OwnUnits(nn.Module):
    """A layer that reads its own units: x + f(x)."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.head = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, inputs):
        units = relu(self.first(inputs))
        return self.head(units + relu(self.again(units)))


class Tied(nn.Module):
    """Two layers that share one weight, and a layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.twice, self.head = (nn.Linear(n, m) for n, m in [(5, 4), (5, 4), (4, 4), (4, 3)])
        self.right.weight = self.left.weight

    def forward(self, inputs):
        return self.head(relu(self.left(inputs)) - self.twice(relu(self.right(inputs))))


class TiedReaders(nn.Module):
    """Two widths that meet nowhere but in the weight of the layers that read them."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.read, self.read_too = (nn.Linear(n, m) for n, m in [(5, 4), (5, 4), (4, 3), (4, 3)])
        self.read_too.weight = self.read.weight

    def forward(self, inputs):
        return self.read(relu(self.left(inputs))) + self.read_too(torch.tanh(self.right(inputs)))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Linear(5, 8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down, self.head = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, tokens):
        stream = self.embed(tokens)
        seen = self.norm(stream)
        stream = stream + self.attention(seen, seen, seen, need_weights=False)[0]
        stream = stream + self.down(nn.functional.gelu(self.up(stream)))
        return self.head(stream.mean(1))


def groups():
    return nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.GroupNorm(3, 12), nn.ReLU(), nn.Conv2d(12, 12, 3, groups=4), nn.Conv2d(12, 2, 1)
    )


def layernorm():
    return nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 7), nn.Linear(7, 3))


def channels_first():
    return nn.Sequential(nn.Conv2d(3, 5, 2), LayerNorm2d(5), nn.GELU(), nn.Conv2d(5, 2, 1), nn.Flatten())


def flat():
    return nn.Sequential(
        nn.Conv1d(3, 4, 3), nn.MaxPool1d(2), nn.Flatten(), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 3)
    )


SMALL_IMAGES, IMAGES, ROWS, TOKENS = (4, 3, 2, 2), (4, 3, 6, 6), (4, 5), (4, 6, 5)
FOUND = {
    Residual: (SMALL_IMAGES, {"stem": 1, "inner": 1}),
    Beside: (SMALL_IMAGES, {"left": 1, "right": 1}),
    Gate: (SMALL_IMAGES, {"expand": 1, "squeeze": 1}),
    OwnUnits: (ROWS, {"first": 1}),
    Tied: (ROWS, {"left": 1}),
    TiedReaders: (ROWS, {"left": 1}),
    Transformer: (TOKENS, {"embed": 4, "up": 1}),
    groups: ((4, 3, 4, 4), {"0": 12}),
    layernorm: (ROWS, {"0": 1, "3": 1}),
    channels_first: ((4, 3, 4, 4), {"0": 1}),
    flat: ((4, 3, 8), {"0": 1}),
}


class Two(nn.Module):
    """Two layers with something between: `between(self, units)`."""

    between = None

    def __init__(self, width=16, read=16):
        super().__init__()
        self.make, self.read = nn.Linear(5, width), nn.Linear(read, 3)

    def forward(self, inputs):
        return self.read(type(self).between(self, self.make(inputs)))


def two(between, width=16, read=None):
    return type("Two", (Two,), {"between": between})(width, read or width)


def images(*layers):
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


class Norm(nn.BatchNorm2d):
    """A subclass with an activation, as timm has them."""

    def forward(self, x):
        return relu(super().forward(x))


class Functional(nn.Module):
    """Tensors on the model itself, used by functions."""

    def __init__(self):
        super().__init__()
        self.first, self.shift = nn.Parameter(torch.randn(7, 5)), nn.Parameter(torch.randn(7))
        self.second = nn.Parameter(torch.randn(7, 3))

    def forward(self, inputs):
        return torch.tanh(linear(inputs, self.first, self.shift)) @ self.second


class Tokens(nn.Module):
    """Ids in, a dict out, with an embedding that is read again by the head."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Embedding(11, 8), nn.RMSNorm(8)
        self.up, self.down, self.head = nn.Linear(8, 12), nn.Linear(6, 8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids, *, scale=None):
        stream = self.embed(ids) if scale is None else self.embed(ids) * scale
        first, second = self.up(self.norm(stream)).chunk(2, -1)
        stream = stream + self.down(first * torch.sigmoid(second))
        return {"logits": self.head(self.norm(stream)), "none": None}


class Heads(nn.Module):
    """Attention with its own numbers, as timm writes it."""

    def __init__(self, width=8, heads=2):
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = heads, 5, heads * 5
        self.qkv, self.proj = nn.Linear(width, 3 * self.attn_dim), nn.Linear(self.attn_dim, width)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(seen.transpose(1, 2).reshape(b, n, self.attn_dim))


CASES = {
    "functional": (Functional, ROWS, {"first": 1}),
    "branch on a shape": (lambda: two(lambda s, h: relu(h) if h.shape[0] < 20 else h), ROWS, {"make": 1}),
    "glu": (lambda: two(lambda s, h: glu(h), 16, 8), ROWS, {"make": 1}),
    "chunk": (lambda: two(lambda s, h: h.chunk(2, 1)[0] + h.chunk(2, 1)[1], 16, 8), ROWS, {"make": 1}),
    "prelu": (lambda: images(nn.Conv2d(3, 6, 3), nn.PReLU(6), nn.Conv2d(6, 6, 1)), IMAGES, {"0": 1, "2": 1}),
    "interpolate": (
        lambda: images(nn.Conv2d(3, 6, 3), nn.Upsample(scale_factor=2), nn.Conv2d(6, 6, 1)),
        IMAGES,
        {"0": 1, "2": 1},
    ),
    "transposed": (
        lambda: images(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 6, 2, 2), nn.BatchNorm2d(6), nn.ReLU()),
        IMAGES,
        {"0": 1, "1": 1},
    ),
    "subclass": (lambda: images(nn.Conv2d(3, 6, 3), Norm(6), nn.Conv2d(6, 6, 1)), IMAGES, {"0": 1, "2": 1}),
    "pad": (lambda: two(lambda s, h: pad(h, (1, 2)), 16, 19), ROWS, {"make": 1}),
    "depthwise": (
        lambda: images(nn.Conv2d(3, 6, 1), type("Same", (nn.Conv2d,), {})(6, 6, 3, padding=1, groups=6)),
        IMAGES,
        {"0": 1},
    ),
    "one apart": (lambda: two(lambda s, h: h + h[:, :1]), ROWS, {"make": 1}),
    "heads": (Heads, (2, 7, 8), {"qkv": 5}),
}
