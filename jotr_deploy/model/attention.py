"""Post-norm transformer layers with positions added to queries and keys only (docs/network.md section 8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention with packed q, k, v projections, no masks; tokens are (B, N, C)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, N, C), (B, M, C), (B, M, C) -> (B, N, C)."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
        return self.attend(q, k, v)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same from already projected q, k, v."""
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class EncoderLayer(nn.Module):
    """Self-attention, then a ReLU feed-forward network."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads, dropout)
        self.linear1, self.linear2 = nn.Linear(width, ffn), nn.Linear(ffn, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """(B, N, C), (N, C) -> (B, N, C)."""
        placed = x + position
        return self.feed_forward(self.norm1(x + self.dropout(self.self_attn(placed, placed, x))))

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half of the layer."""
        hidden = self.dropout(torch.relu(self.linear1(x)))
        out: Tensor = self.norm2(x + self.dropout(self.linear2(hidden)))
        return out


class Encoder(nn.Module):
    """Encoder layers; the voxel encoder ends in a norm, the 2-D encoder does not."""

    def __init__(self, layers: int, width: int, heads: int, ffn: int, dropout: float, final_norm: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads, ffn, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width) if final_norm else nn.Identity()

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """(B, N, C), (N, C) -> (B, N, C)."""
        for layer in self.layers:
            x = layer(x, position)
        out: Tensor = self.norm(x)
        return out


class DecoderLayer(nn.Module):
    """Self-attention among the queries, attention to the memory, feed-forward."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads, dropout)
        self.multihead_attn = Attention(width, heads, dropout)
        self.linear1, self.linear2 = nn.Linear(width, ffn), nn.Linear(ffn, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, t: Tensor, query_position: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, Q, C), (Q, C), keys and values (B, M, C) -> (B, Q, C)."""
        placed = t + query_position
        t = self.norm1(t + self.dropout(self.self_attn(placed, placed, t)))
        t = self.norm2(t + self.dropout(self.multihead_attn(t + query_position, key, value)))
        hidden = self.dropout(torch.relu(self.linear1(t)))
        out: Tensor = self.norm3(t + self.dropout(self.linear2(hidden)))
        return out
