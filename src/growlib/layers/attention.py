"""Attention, written out."""

from torch import Tensor, nn


class Attention(nn.Module):
    """Tokens that look at one another, through four plain linear layers: query, key, value and project.

    Args:
        width: Of a token.
        heads: Parts of a token that look for themselves.
    """

    def __init__(self, width: int, heads: int = 1):
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads cannot share a token of width {width} evenly")
        self.heads = heads
        self.query, self.key, self.value, self.project = (nn.Linear(width, width) for _ in range(4))

    def mass(self, queries: Tensor, keys: Tensor) -> Tensor:
        """How much every token looks at every other: (B, heads, tokens that look, tokens looked at), rows sum to 1."""
        queries, keys = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (queries, keys))
        return (queries @ keys.transpose(2, 3) * keys.shape[3] ** -0.5).softmax(3)

    def gather(self, mass: Tensor, tokens: Tensor) -> Tensor:
        """What every token finds where it looks, each head in its own part: (B, tokens, width)."""
        parts = tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, tokens, width / heads)
        return (mass @ parts).transpose(1, 2).flatten(2)

    def forward(self, tokens: Tensor) -> Tensor:
        mass = self.mass(self.query(tokens), self.key(tokens))
        return self.project(self.gather(mass, self.value(tokens)))  # (B, tokens, width)
