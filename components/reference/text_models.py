"""A small reference model of texts.

Axes: b samples, T tokens, w width, h heads, V tokens of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from oubli.components.errors import ConfigurationError


# Keyword arguments are the options that a training record stores.
def text_encoder(
    vocabulary: int,
    length: int,
    classes: int,
    *,
    width: int = 32,
    heads: int = 2,
    layers: int = 1,
    feedforward: int = 64,
    padding: int = 0,
    dropout: float = 0.0,
) -> nn.Module:
    """A transformer encoder (Vaswani et al., NeurIPS 2017) that classifies texts.

    (b, T) int64 token ids to (b, classes) logits. Embedding and learned positions, layers that normalise first (Xiong
    et al., ICML 2020), the mean over attended tokens, a linear `head`. No token attends to padding, and the mean leaves
    it out; a text of padding alone has the mean 0.

    Args:
        vocabulary: V.
        length: The largest T.
        classes: Logits of one output.
        width: w, a multiple of `heads`.
        heads: h.
        layers: How many.
        feedforward: Width of their inner layers.
        padding: The token that fills up short texts.
        dropout: Probability.

    Raises:
        ConfigurationError: `heads` does not divide `width`, or `padding` is outside the vocabulary.
    """
    if width % heads:
        raise ConfigurationError(
            f"A width of {width} cannot be shared among {heads} heads.", remedy="Use a width that is a multiple."
        )
    if not 0 <= padding < vocabulary:
        raise ConfigurationError(
            f"Padding is token {padding}, outside the vocabulary of {vocabulary}.", remedy="Name a token in it."
        )
    return TextEncoder(vocabulary, length, classes, width, heads, layers, feedforward, padding, dropout)


class TextEncoder(nn.Module):
    """See `text_encoder`."""

    # The arguments of `text_encoder`.
    def __init__(
        self,
        vocabulary: int,
        length: int,
        classes: int,
        width: int,
        heads: int,
        layers: int,
        feedforward: int,
        padding: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.padding = padding
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, feedforward, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)
        # The default of 1 a component drowns the layers of a narrow encoder.
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=width**-0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        attended = inputs != self.padding
        places = torch.arange(inputs.shape[1], device=inputs.device)
        hidden = self.dropout(self.tokens(inputs) + self.positions(places))
        for layer in self.layers:
            hidden = layer(hidden, attended)
        weights = attended.to(hidden.dtype)[:, :, None]
        mean = (self.norm(hidden) * weights).sum(1) / weights.sum(1).clamp(min=1)
        outputs: Tensor = self.head(mean)
        return outputs


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each on the normalised input and added to it."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.before_feedforward = nn.LayerNorm(width)
        self.enter = nn.Linear(width, feedforward)
        self.leave = nn.Linear(feedforward, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """One layer.

        Args:
            hidden: (b, T, w).
            attended: (b, T) bool, False for padding.

        Returns:
            (b, T, w).
        """
        hidden = hidden + self.dropout(self.attention(self.before_attention(hidden), attended))
        inner = functional.gelu(self.enter(self.before_feedforward(hidden)))
        leaving: Tensor = self.dropout(self.leave(inner))
        return hidden + leaving


class SelfAttention(nn.Module):
    """Scaled dot-product attention of h heads, with a linear layer each for query, key, value and output."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """Attention of each token to all that are attended.

        Args:
            hidden: (b, T, w).
            attended: (b, T) bool, False for padding.

        Returns:
            (b, T, w).
        """
        split = (*hidden.shape[:2], self.heads, -1)
        query, key, value = (layer(hidden).view(split).transpose(1, 2) for layer in (self.query, self.key, self.value))
        # Added, not a bool mask: a text of padding alone would give NaN. -1e4 fits every floating-point type.
        mask = (~attended).to(hidden.dtype)[:, None, None, :] * -1e4
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        projected: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return projected
