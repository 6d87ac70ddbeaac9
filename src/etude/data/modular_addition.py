"""Sums modulo p as a data set, and networks that others have trained on them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from etude.data.locate import SOURCES, Source, listing, locate

if TYPE_CHECKING:
    import torch
    from jaxtyping import Int
    from torch import Tensor

RIB_CHECKPOINTS = Source(
    "rib-checkpoints",
    files=listing(
        """
        699f06e40d5aa5fc53c7d07b86d40f90f1cf028fab3740fcf00a073c2b839033 21864 edge-ablations.json.gz
        cc6dcfd1484ec6ca65284f7019ea5623966d3ed430f928726f1d42767e86f371 911261 modular-arithmetic-seed0.safetensors
        028c50bd6bc3e0ec079e0367fd7a48df5e348bd3581d9bf2cbf26d184da046a6 911261 modular-arithmetic-seed1.safetensors
        901287b443b905308a0cf5cdc5eaa5b91e05d5acaaa94019af5d2494344449dc 911261 modular-arithmetic-seed2.safetensors
        9894d20cb66cb31dc6f342fe50736aa8247ce337ba3ff196409f9eef1ef1c422 911261 modular-arithmetic-seed3.safetensors
        44a3d997ce4c4822590c2b1097dd9abf3ea61805ff9501cd74e5625841cda89f 911261 modular-arithmetic-seed4.safetensors
        """
    ),
)
"""The networks that come with the authors' program of the local interaction basis (ApolloResearch/rib, MIT licence).

There they are pickled; this set holds the same tensors as safetensors files, for which there is no public address.
"""
SOURCES[RIB_CHECKPOINTS.name] = RIB_CHECKPOINTS


@dataclass(frozen=True, eq=False)
class ModularAddition:
    """All pairs (x, y) with their sum modulo p.

    Attributes:
        tokens: x, y and the sign "=" (token p), (p^2, 3), ordered by x and then y.
        sums: (x + y) mod p, (p^2,).
        train: which pairs are learnt from.
        test: the others.
    """

    tokens: Int[Tensor, "pairs 3"]
    sums: Int[Tensor, " pairs"]
    train: Int[Tensor, " train"]
    test: Int[Tensor, " test"]


def modular_addition(modulus: int, fraction: float, generator: torch.Generator) -> ModularAddition:
    """Sums modulo p, divided at random.

    Args:
        modulus: p, at least 2.
        fraction: how much of the pairs is learnt from, in (0, 1), rounded down.
        generator: which ones; on the processor.

    Raises:
        ValueError: a number out of range, or a part without pairs.
    """
    import torch

    if modulus < 2:
        raise ValueError(f"modulus={modulus}: give a number of at least 2")
    count = int(modulus**2 * fraction) if 0 < fraction < 1 else 0
    if not 0 < count < modulus**2:
        raise ValueError(f"fraction={fraction}: give a number between 0 and 1 that leaves pairs on both sides")
    x, y = torch.meshgrid(torch.arange(modulus), torch.arange(modulus), indexing="ij")
    tokens = torch.stack([x, y, torch.full_like(x, modulus)], -1).flatten(0, 1)
    order = torch.randperm(modulus**2, generator=generator)
    return ModularAddition(tokens, tokens[:, :2].sum(1) % modulus, order[:count], order[count:])


@dataclass(frozen=True, eq=False)
class AdditionCheckpoint:
    """A transformer trained on sums modulo 113, and what its authors measured.

    Attributes:
        weights: a state dictionary of ``etude.nn.one_layer_transformer(114, 3)``.
        data: the sums, divided as they were for all five networks.
        accuracy: of the network on the test pairs, as recorded.
        edges_needed: for ``"PCA"`` and ``"interaction"``, how many edges behind the embedding, the attention and the
            hidden layer keep the test accuracy within 0.001, as recorded.
        scores: for each basis and the same three places, the test accuracy by the number of edges kept, as recorded.
    """

    weights: dict[str, Tensor]
    data: ModularAddition
    accuracy: float
    edges_needed: Mapping[str, tuple[int, ...]]
    scores: Mapping[str, tuple[Mapping[int, float], ...]]


@lru_cache(maxsize=5)
def addition_checkpoint(number: int) -> AdditionCheckpoint:
    """One of the five modular-addition networks of the local interaction basis's authors.

    Treat the tensors as constants: they are read once.

    Args:
        number: 0 to 4, the seed of its training.

    Raises:
        ValueError: another number.
        MissingData: the set is not at hand.

    Source: Bushnaq et al., arXiv 2405.10928; trained for 60,000 full-batch steps of AdamW with weight decay 1.
    """
    import torch
    from safetensors.torch import load_file

    if number not in range(5):
        raise ValueError(f"number={number}: give 0 to 4")
    paths = locate(RIB_CHECKPOINTS).paths
    found = load_file(paths[f"modular-arithmetic-seed{number}.safetensors"])
    inner = {name.removeprefix("blocks.0."): value for name, value in found.items()}
    attention = [inner[f"attn.W_{letter}"].mT.flatten(0, 1) for letter in "QKV"]
    weights = {
        "embed.tokens.weight": inner["embed.W_E"],
        "embed.positions": inner["pos_embed.W_pos"],
        "attention.attention.qkv.weight": torch.cat(attention),
        "attention.attention.qkv.bias": torch.cat([inner[f"attn.b_{letter}"].flatten() for letter in "QKV"]),
        "attention.attention.project.weight": inner["attn.W_O"].flatten(0, 1).T,
        "attention.attention.project.bias": inner["attn.b_O"],
        "hidden.up.weight": inner["mlp.W_in"].T,
        "hidden.up.bias": inner["mlp.b_in"],
        "hidden.down.weight": inner["mlp.W_out"].T,
        "hidden.down.bias": inner["mlp.b_out"],
        "read_out.weight": inner["unembed.W_U"].T,
        "read_out.bias": inner["unembed.b_U"],
    }
    with gzip.open(paths["edge-ablations.json.gz"]) as file:
        recorded = json.load(file)
    layers = ("ln1.0", "ln2.0", "unembed")  # what the authors call the places behind which edges start
    runs = {"PCA": recorded[f"pca_seed{number}"], "interaction": recorded[f"rib_seed{number}"]}
    return AdditionCheckpoint(
        {name: value.contiguous() for name, value in weights.items()},
        modular_addition(113, 0.3, torch.Generator().manual_seed(0)),
        runs["PCA"]["no_ablation_result"],
        {basis: tuple(run["n_edges_required"][layer] for layer in layers) for basis, run in runs.items()},
        {
            basis: tuple({int(count): score for count, score in run["results"][layer].items()} for layer in layers)
            for basis, run in runs.items()
        },
    )
