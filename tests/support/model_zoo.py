"""One small model for every kind of layer that is covered, and samples for it.

They are handed over as a training loop leaves them: in training mode, with dropout on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples

CLASSES, VOCABULARY, TOKENS, PADDING = 3, 20, 6, 0


class Pooled(nn.Module):
    """Token ids (b, T) to logits: rows of an embedding, a body (b, T, 8) -> (b, T, 8), the mean of what is attended."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 8, padding_idx=PADDING)
        self.body = body
        self.head = nn.Linear(8, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        attended = tokens != PADDING
        hidden = self.body(self.words(tokens), ~attended) * attended[..., None]
        return self.head(hidden.sum(1) / attended.sum(1, keepdim=True))


class Encoder(nn.Module):
    """torch's own transformer encoder, in either layout."""

    def __init__(self, *, batch_first: bool, nested: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.3, batch_first=batch_first)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
        self.batch_first = batch_first
        # The layers start as copies of one.
        for one in self.layers.parameters():
            nn.init.normal_(one, std=0.3)

    def forward(self, hidden: Tensor, padded: Tensor) -> Tensor:
        hidden = hidden if self.batch_first else hidden.transpose(0, 1)
        out = self.layers(hidden, src_key_padding_mask=padded)
        return out if self.batch_first else out.transpose(0, 1)


class CrossWidths(nn.Module):
    """Attention whose keys and values have widths of their own, called by keyword, with sequence first."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Linear(8, 5)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.3, kdim=5, vdim=6)
        nn.init.normal_(self.attention.in_proj_bias)

    def forward(self, hidden: Tensor, padded: Tensor) -> Tensor:
        first = hidden.transpose(0, 1)
        mixed, _ = self.attention(query=first, key=self.narrow(first), value=first[..., :6], key_padding_mask=padded)
        return mixed.transpose(0, 1)


class FusedAttention(nn.Module):
    """Linear projections around torch's fused attention, as Hugging Face's models have it."""

    def __init__(self) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.norm = nn.RMSNorm(8)

    def forward(self, hidden: Tensor, padded: Tensor) -> Tensor:
        q, k, v = (one(hidden).unflatten(-1, (2, 4)).transpose(1, 2) for one in self.projections)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=~padded[:, None, None])
        return self.norm(hidden + mixed.transpose(1, 2).flatten(2))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(8, 8, batch_first=True)

    def forward(self, hidden: Tensor, padded: Tensor) -> Tensor:
        return self.cell(hidden)[0]


class Tied(nn.Module):
    """A decoder that shares the embedding's weight: (b, T) tokens to (b, VOCABULARY) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 8)
        self.mix = nn.Linear(8, 8)
        self.decoder = nn.Linear(8, VOCABULARY)
        self.decoder.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.decoder(self.mix(self.words(tokens).mean(1)).tanh())


class Twice(nn.Module):
    """One layer called twice, inside nested modules with two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(8, 8)
        self.branches = nn.ModuleDict({"left": nn.Sequential(self.shared, nn.Tanh()), "right": nn.Linear(8, 8)})
        self.head = nn.Linear(8, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        both = self.branches["left"](inputs) + self.branches["right"](inputs)
        return self.head(self.shared(both))


class Branching(nn.Module):
    """Control flow that depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Linear(8, CLASSES), nn.Linear(8, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([self.near(one) if float(one.sum()) > 0 else self.far(one) for one in inputs.split(1)])


class Writing(nn.Module):
    """Results written into a tensor that the model makes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        out = torch.zeros(len(inputs), CLASSES, dtype=inputs.dtype, device=inputs.device)
        out += self.layer(inputs)
        return out


class HuggingFace(nn.Module):
    """An encoder from a config, and a linear head on the mean of its attended tokens."""

    def __init__(self, encoder: nn.Module, *, own_mask: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(16, CLASSES)
        self.own_mask = own_mask

    def forward(self, tokens: Tensor) -> Tensor:
        attended = tokens != PADDING
        mask = attended.long()
        if self.own_mask:
            blocked = torch.where(attended, 0.0, -1e9).to(self.head.weight.dtype)
            mask = blocked[:, None, None].expand(-1, 1, TOKENS, TOKENS)
        hidden = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state * attended[..., None]
        return self.head(hidden.sum(1) / attended.sum(1, keepdim=True))


def bert(attention: str, *, own_mask: bool = False) -> nn.Module:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=TOKENS, attn_implementation=attention,
    )  # fmt: skip
    return HuggingFace(BertModel(config, add_pooling_layer=False), own_mask=own_mask)


def distilbert(attention: str) -> nn.Module:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(
        vocab_size=VOCABULARY, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=TOKENS,
        attn_implementation=attention,
    )  # fmt: skip
    return HuggingFace(DistilBertModel(config))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, CLASSES))


def images_network() -> nn.Module:
    """Every image layer: convolutions, transposed ones with groups, and the normalisations with affine parameters."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2),
        nn.GroupNorm(2, 6),
        nn.Dropout2d(0.5),
        nn.Conv2d(6, 4, 2, groups=2, bias=False),
        nn.InstanceNorm2d(4, affine=True),
        nn.LayerNorm((7, 7)),
        nn.Flatten(),
        nn.Linear(4 * 49, CLASSES),
    )


def sequence_network() -> nn.Module:
    """The same along one axis, (b, 2, 16)."""
    return nn.Sequential(
        nn.Conv1d(2, 4, 3),
        nn.BatchNorm1d(4),
        nn.ConvTranspose1d(4, 2, 3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(32, 6),
        nn.BatchNorm1d(6),
        nn.Linear(6, CLASSES),
    )


def volume_network() -> nn.Module:
    """The same in three dimensions, (b, 1, 4, 4, 2)."""
    return nn.Sequential(
        nn.Conv3d(1, 2, (3, 3, 1)),
        nn.BatchNorm3d(2),
        nn.ConvTranspose3d(2, 2, 2, bias=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(54, CLASSES),
    )


INPUTS: Mapping[str, tuple[int, ...]] = {"images": (2, 4, 4), "sequence": (2, 16), "volume": (1, 4, 4, 2)}
"""Shapes of one continuous input, where it is not (8,)."""

CONTINUOUS: Mapping[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "images": images_network,
    "sequence": sequence_network,
    "volume": volume_network,
    "twice": Twice,
}

TEXT: Mapping[str, Callable[[], nn.Module]] = {
    "encoder, batch first": lambda: Pooled(Encoder(batch_first=True)),
    "encoder, nested tensors": lambda: Pooled(Encoder(batch_first=True, nested=True)),
    "encoder, sequence first": lambda: Pooled(Encoder(batch_first=False)),
    "attention, other widths": lambda: Pooled(CrossWidths()),
    "fused attention": lambda: Pooled(FusedAttention()),
    "tied": Tied,
    "bert with a mask of its own": lambda: bert("sdpa", own_mask=True),
}

NOT_MAPPED: Mapping[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Pooled(Recurrent()),
    "branching": Branching,
    "writing": Writing,
    "bert, eager": lambda: bert("eager"),
    "bert, sdpa": lambda: bert("sdpa"),
    "distilbert, eager": lambda: distilbert("eager"),
    "distilbert, sdpa": lambda: distilbert("sdpa"),
}
"""Models that vmap cannot run."""

EVERY: Mapping[str, Callable[[], nn.Module]] = {**CONTINUOUS, **TEXT, **NOT_MAPPED}


def texts(count: int = 5, seed: int = 0) -> Samples:
    """Token sequences (count, TOKENS), the first of them padded at the end."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, VOCABULARY, (count, TOKENS), generator=generator)
    for place in range(min(count, 3)):
        tokens[place, TOKENS - place :] = PADDING
    return Samples(tokens, torch.arange(count) % CLASSES)


def vectors(*shape: int, count: int = 5, seed: int = 0) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    return Samples(inputs, torch.arange(count) % CLASSES)


def problem(name: str) -> tuple[Objective, Samples]:
    """A model by name, with weights and statistics that are nowhere special, and samples."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = EVERY[name]()
        for one in module.modules():
            if isinstance(one, nn.modules.batchnorm._BatchNorm):
                nn.init.normal_(one.running_mean, std=0.3)
                nn.init.uniform_(one.running_var, 0.5, 2)
            if next(one.children(), None) is None and not isinstance(one, nn.Embedding):
                for parameter in one.parameters(recurse=False):
                    if parameter.ndim == 1:
                        nn.init.normal_(parameter)
    takes_tokens = name in TEXT or name == "lstm" or "bert" in name
    samples = texts() if takes_tokens else vectors(*INPUTS.get(name, (8,)))
    assert module.training
    return Objective(module, cross_entropy, 0.0), samples
