"""Induction heads of item-label sequences: how to see them, how to break them, and models of how they come about.

A network that learns a class in context needs two layers of attention: in the first a label looks at the item before
it, in the second the target looks at the label that has seen an item like it. From the network down to a loss that can
be written out there is a ladder of models:

- `AttentionOnlyClassifier`: two layers of attention and a classifier;
- `MinimalInductionHead`: both layers with three numbers in all, and the same classifier;
- `NestedLogitLoss`: three logits, each inside the next; its gradient flow shows why the loss stays on a plateau and
  then falls, and when it does not.

The probes and interventions take attention of any transformer, yours too::

    hidden, maps = model(tokens, maps=True)
    scores = induction_scores(maps, batch)                    # batch of an ItemLabelTask; one number a head
    broken = model(tokens, edit={0: even_attention(label_to_item(8).any(-1))})

Source: Reddy, ICLR 2024 (arXiv 2312.03002), sections 2 to 5.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from torch.nn import functional

from etude.in_context.item_label import ItemLabelSequences, _at_least
from etude.in_context.probes import head_score
from etude.nn import Transformer

__all__ = [
    "AttentionOnlyClassifier",
    "InductionScores",
    "MinimalInductionHead",
    "NestedLogitLoss",
    "NestedLogits",
    "even_attention",
    "hidden_positions",
    "induction_scores",
    "label_to_item",
    "target_to_labels",
]

# ---- probes and interventions --------------------------------------------------------------------------------------


def label_to_item(pairs: int, device: torch.device | str | None = None) -> Bool[Tensor, "1 tokens tokens"]:
    """Targets of the first layer's head: each label of the context looks at the item just before it.

    Args:
        pairs: N, of ``x_1 l_1 ... x_N l_N x_target``; at least 1.
        device: of the mask.
    """
    _at_least("pairs", pairs, 1)
    targets = torch.zeros(1, 2 * pairs + 1, 2 * pairs + 1, dtype=torch.bool, device=device)
    item = torch.arange(0, 2 * pairs, 2, device=device)
    targets[:, item + 1, item] = True
    return targets


def target_to_labels(shown: Bool[Tensor, "n pairs"]) -> Bool[Tensor, "n 1 tokens"]:
    """Targets of the second layer's head: the target, which is the only query, looks at some labels of the context.

    Args:
        shown: which pairs' labels; ``batch.matches`` for those of the target's class.
    """
    targets = shown.new_zeros(len(shown), 1, 2 * shown.shape[1] + 1)
    targets[:, 0, 1::2] = shown
    return targets


@dataclass(frozen=True)
class InductionScores:
    """How far the heads of two layers have become an induction head; one number in [0, 1] for each head of a layer.

    Attributes:
        item_label: attention of the context's labels to the item before them, in the first layer (ILA1).
        target_item_label: attention of the target to the labels of its class, in the second layer (TILA2).
        target_label: attention of the target to all labels of the context, in the second layer (TLA2).
    """

    item_label: Float[Tensor, " heads"]
    target_item_label: Float[Tensor, " heads"]
    target_label: Float[Tensor, " heads"]


def induction_scores(
    maps: Sequence[Float[Tensor, "n heads _ tokens"]], sequences: ItemLabelSequences
) -> InductionScores:
    """The scores of the first and the last layer's heads.

    Args:
        maps: attention of each layer, two or more; the last layer's may be of the last query alone.
        sequences: what was attended to, the target's class being in each context.

    Raises:
        ValueError: fewer than two layers, or maps of sequences of another length.

    Source: Reddy (arXiv 2312.03002), section 3, "progress measures".
    """
    tokens = 2 * sequences.labels.shape[1] + 1
    if len(maps) < 2:
        raise ValueError(f"maps of {len(maps)} layers: an induction head takes two")
    for layer in maps:
        if layer.shape[-1] != tokens:
            raise ValueError(f"maps of {layer.shape[-1]} positions: the sequences have {tokens} tokens")
    first, last = maps[0], maps[-1][:, :, -1:]
    right = sequences.matches
    return InductionScores(
        head_score(first, label_to_item(sequences.labels.shape[1], first.device)),
        head_score(last, target_to_labels(right)),
        head_score(last, target_to_labels(torch.ones_like(right))),
    )


def even_attention(queries: Bool[Tensor, "... queries"]) -> Callable[[Tensor], Tensor]:
    """An edit of attention scores: these queries look at all that they see alike.

    Args:
        queries: which; one mask for all sequences will do.

    Returns:
        For ``edit`` of `etude.nn.Transformer`, whose scores are at minus infinity where a query does not see.
    """
    return lambda scores: scores.masked_fill(queries[..., None] & (scores > -torch.inf), 0.0)


def hidden_positions(positions: Bool[Tensor, "... queries positions"]) -> Callable[[Tensor], Tensor]:
    """An edit of attention scores: queries do not see these positions; what else they see keeps its proportions.

    Args:
        positions: which of them each query does not see; it must be left something.

    Returns:
        For ``edit`` of `etude.nn.Transformer`.
    """
    return lambda scores: scores.masked_fill(positions, -torch.inf)


# ---- the network ---------------------------------------------------------------------------------------------------


def _classifier(inputs: int, labels: int, width: int, generator: torch.Generator | None) -> nn.Sequential:
    """Three layers of rectified units and a linear read-out, initialised as the paper's."""
    widths = [inputs, width, width, width]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        linear = nn.Linear(before, after)
        nn.init.normal_(linear.weight, std=math.sqrt(2 / before), generator=generator)
        nn.init.normal_(linear.bias, std=math.sqrt(1 / before), generator=generator)
        layers += [linear, nn.ReLU()]
    read_out = nn.Linear(width, labels, bias=False)
    nn.init.normal_(read_out.weight, std=math.sqrt(1 / width), generator=generator)
    return nn.Sequential(*layers, read_out)


class AttentionOnlyClassifier(nn.Module):
    """Layers of attention that only add to what they read, then a classifier of the last token.

    ``u = x + A_1(x)``, ``v = u + A_2(u)``, ``logits = MLP(v_target)`` with
    ``A(x)_j = V sum_{i <= j} softmax_i((K x_i) . (Q x_j)) x_i``: no layer normalisation, no biases, no scaling. Q, K
    and V are drawn from N(0, 1/content).

    Args:
        content: D, numbers of a token that say what it is.
        positions: P, numbers of a token that say where it is (see `encode`); 0 for none.
        labels: L, at least 2.
        layers: of attention, at least 1.
        heads: of each layer; they divide ``positions + content``.
        width: units of each of the classifier's three hidden layers.
        generator: where the initial weights are drawn from; by default torch's own.

    Raises:
        ValueError: a number out of range.

    Example:
        In a loop of one's own::

            model = AttentionOnlyClassifier(63, positions=65, labels=32)
            loss = cross_entropy(model(encode(batch, label_vectors, positions=65, generator=generator)), batch.target)
            logits, maps = model(tokens, maps=True)

    Source: Reddy (arXiv 2312.03002), section 2. There the units of a hidden layer share one bias.
    """

    def __init__(
        self,
        content: int,
        *,
        positions: int,
        labels: int,
        layers: int = 2,
        heads: int = 1,
        width: int = 128,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("content", content, 1),
            ("positions", positions, 0),
            ("labels", labels, 2),
            ("width", width, 1),
        ):
            _at_least(name, value, least)
        total = positions + content
        self.attention = Transformer(
            total, layers, heads, positions=None, hidden=0, norm=False, bias=False, scale=1.0, project=False
        )
        for parameter in self.attention.parameters():
            nn.init.normal_(parameter, std=1 / math.sqrt(content), generator=generator)
        self.classifier = _classifier(total, labels, width, generator)

    def forward(
        self,
        tokens: Float[Tensor, "n tokens features"],
        *,
        maps: bool = False,
        edit: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
    ) -> Float[Tensor, "n labels"] | tuple[Float[Tensor, "n labels"], tuple[Float[Tensor, "n heads _ tokens"], ...]]:
        """Logits of the target's label; the last layer computes nothing but the last token.

        Args:
            tokens: the target last.
            maps: return ``(logits, maps)``, the last layer's map having one query.
            edit: for a layer's number, what changes its scores before the softmax.
        """
        found = self.attention(tokens, last=1, maps=maps, edit=edit)
        hidden, weights = found if maps else (found, ())
        logits = self.classifier(hidden[:, -1])
        return (logits, weights) if maps else logits


class MinimalInductionHead(nn.Module):
    """An induction head of three numbers, with the classifier of `AttentionOnlyClassifier`.

    With contents ``c_0 ... c_2N`` of the tokens, the target last::

        b_i = sum_{j < i} softmax_j(beta1 [j = i - 1]) c_j                               layer 1: what stood before
        o = sum_{i < 2N} softmax_i(alpha b_i . c_2N + beta2 [i is a label]) c_i          layer 2: what followed the like
        logits = MLP(c_2N, o)

    Args:
        content: D, numbers of a token.
        labels: L, at least 2.
        parameters: which of ``"beta1"``, ``"alpha"`` and ``"beta2"`` are trained; the others stay where they start.
            Without beta2 nothing helps the target find labels before it finds its own.
        start: their initial value.
        width: units of each of the classifier's three hidden layers.
        generator: where the classifier's initial weights are drawn from; by default torch's own.

    Raises:
        ValueError: a number out of range, or a parameter there is not.

    Example:
        In a loop of one's own; the three numbers need a larger learning rate::

            model = MinimalInductionHead(63, labels=32)
            loss = cross_entropy(model(interleave(batch.items, label_vectors[batch.labels])), batch.target)

    Source: Reddy (arXiv 2312.03002), section 4. The equations are put together from its description: layer 1 looks at
    strictly earlier tokens, and layer 2 at the context.
    """

    def __init__(
        self,
        content: int,
        *,
        labels: int,
        parameters: Sequence[Literal["beta1", "alpha", "beta2"]] = ("beta1", "alpha", "beta2"),
        start: float = 0.0,
        width: int = 128,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        names = ("beta1", "alpha", "beta2")
        if not set(parameters) <= set(names):
            raise ValueError(f"parameters={tuple(parameters)}: give some of {names}")
        for name, value, least in (("content", content, 1), ("labels", labels, 2), ("width", width, 1)):
            _at_least(name, value, least)
        for name in names:
            value = torch.tensor(float(start))
            if name in parameters:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)
        self.classifier = _classifier(2 * content, labels, width, generator)

    def forward(
        self, contents: Float[Tensor, "n tokens content"], *, maps: bool = False
    ) -> Float[Tensor, "n labels"] | tuple[Float[Tensor, "n labels"], tuple[Float[Tensor, "n 1 _ tokens"], ...]]:
        """Logits of the target's label.

        Args:
            contents: of items and labels (see `interleave`), an odd number of tokens, at least 3.
            maps: return ``(logits, maps)``: attention of both layers, the second of the target alone.

        Raises:
            ValueError: another number of tokens.
        """
        n, tokens = contents.shape[:2]
        if tokens % 2 == 0 or tokens < 3:
            raise ValueError(f"contents of {tokens} tokens: give pairs and a target, an odd number of at least 3")
        target = contents[:, -1]
        ones = torch.ones(tokens, tokens, dtype=contents.dtype, device=contents.device)
        earlier = ones.tril(-2) + self.beta1.exp() * ones.tril(-1).triu(-1)
        first = earlier / earlier.sum(1, keepdim=True).clamp(min=1e-30)  # nothing stands before the first token
        # b . c_target of all tokens from the products of their contents, which are N times as few.
        likeness = torch.einsum("ntc,nc->nt", contents[:, :-1], target) @ first[:-1, :-1].T
        is_label = torch.arange(tokens - 1, device=contents.device) % 2
        second = (self.alpha * likeness + self.beta2 * is_label).softmax(1)
        found = torch.einsum("nt,ntc->nc", second, contents[:, :-1])
        logits = self.classifier(torch.cat([target, found], 1))
        if not maps:
            return logits
        return logits, (first.expand(n, 1, tokens, tokens), functional.pad(second, (0, 1))[:, None, None])


# ---- three nested logits -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NestedLogits:
    """What `NestedLogitLoss` predicts; all of one shape, each in [0, 1].

    Attributes:
        item_label: a, attention of a label to the item before it (ILA1).
        target_item_label: q, attention of the target to its label (TILA2).
        context_label: probability that the answer is some label of the context (CLA).
        correct: p, that it is the right one (accuracy in context).
    """

    item_label: Float[Tensor, "*shape"]
    target_item_label: Float[Tensor, "*shape"]
    context_label: Float[Tensor, "*shape"]
    correct: Float[Tensor, "*shape"]


class NestedLogitLoss:
    """Loss of an induction head whose three parts are a logit each, one inside the other.

    ::

        a = e^beta1 / (e^beta1 + c)                     weight of layer 1 on the right item, among c others
        q = e^(alpha a) / (e^(alpha a) + 2N - 1)        weight of layer 2 on the right label
        r = 1 / (e^(alpha a) + 2N - 1)                  ... on any other token of the context
        p = e^(xi q) / (e^(xi q) + (N - 1) e^(xi r) + L - N)          the classifier
        loss = -log p

    At beta1 = alpha = xi = 0 only ``d log p / d xi = (1 - N/L) / 2N`` differs from zero: unless L = N the classifier
    first learns to name labels of the context (the loss falls to log N and stays), and only that makes the gradients
    of the head grow, alpha's with xi and beta1's with xi alpha. With L = N the start is a critical point.

    Args:
        pairs: N, at least 2.
        labels: L, at least N.
        competing: c, at least 0; N - 1, the mean over the context's labels, when left out.

    Raises:
        ValueError: a number out of range.

    Source: after Reddy (arXiv 2312.03002), section 5. The form is put together from its description and consistent
    with what it says of the critical point; its constants may differ.
    """

    def __init__(self, pairs: int, labels: int, *, competing: float | None = None) -> None:
        _at_least("pairs", pairs, 2)
        _at_least("labels", labels, pairs)
        self.pairs, self.labels = pairs, labels
        self.competing = pairs - 1 if competing is None else competing
        _at_least("competing", self.competing, 0)

    def _terms(self, beta1: Tensor, alpha: Tensor, xi: Tensor) -> tuple[Tensor, ...]:
        """a, q, r, and the logarithms of the masses on the right label and on all labels of the context."""
        others = torch.tensor(float(self.competing), dtype=beta1.dtype, device=beta1.device)
        a = (beta1 - others.log()).sigmoid()
        q = (alpha * a - math.log(2 * self.pairs - 1)).sigmoid()
        r = (1 - q) / (2 * self.pairs - 1)
        right, wrong = xi * q, xi * r + math.log(self.pairs - 1)
        context = torch.logaddexp(right, wrong)
        outside = self.labels - self.pairs
        total = torch.logaddexp(context, torch.full_like(context, math.log(outside))) if outside else context
        return a, q, r, right - total, context - total

    def __call__(
        self, beta1: Float[Tensor, "*#shape"], alpha: Float[Tensor, "*#shape"], xi: Float[Tensor, "*#shape"]
    ) -> Float[Tensor, "*shape"]:
        """``-log p``.

        Args:
            beta1: logit of layer 1.
            alpha: logit of layer 2 for what layer 1 brings.
            xi: logit of the classifier.
        """
        return -self._terms(beta1, alpha, xi)[3]

    def predictions(
        self, beta1: Float[Tensor, "*#shape"], alpha: Float[Tensor, "*#shape"], xi: Float[Tensor, "*#shape"]
    ) -> NestedLogits:
        """The progress measures; arguments as for `__call__`."""
        a, q, _, correct, context = torch.broadcast_tensors(*self._terms(beta1, alpha, xi))
        return NestedLogits(a, q, context.exp(), correct.exp())

    def gradient(
        self, beta1: Float[Tensor, "*#shape"], alpha: Float[Tensor, "*#shape"], xi: Float[Tensor, "*#shape"]
    ) -> Float[Tensor, "*shape 3"]:
        """Gradient of the loss in (beta1, alpha, xi), in closed form; arguments as for `__call__`.

        With s the mass on the context's wrong labels, ``d log p / d xi = (1 - p) q - s r``; with
        ``g = xi q ((1 - p) (1 - q) + s r)``, ``d log p / d alpha = a g`` and ``d log p / d beta1 = alpha a (1 - a) g``.
        """
        a, q, r, correct, context = torch.broadcast_tensors(*self._terms(beta1, alpha, xi))
        p = correct.exp()
        s = context.exp() - p
        g = xi * q * ((1 - p) * (1 - q) + s * r)
        return -torch.stack([alpha * a * (1 - a) * g, a * g, (1 - p) * q - s * r], -1)

    def flow(
        self, times: Float[Tensor, " times"], *, start: tuple[float, float, float] = (0.0, 0.0, 0.0)
    ) -> Float[Tensor, "times 3"]:
        """Gradient flow ``d theta / d t = -gradient`` of theta = (beta1, alpha, xi).

        Args:
            times: increasing, from 0 or later; the flow starts at time 0.
            start: theta at time 0.

        Returns:
            theta at the times, in double precision.

        Raises:
            ValueError: times that are negative or do not increase.
        """
        if not len(times) or not bool((times.diff() > 0).all() and times[0] >= 0):
            raise ValueError("times: give increasing numbers of at least 0")

        def slope(_: float, theta: np.ndarray) -> np.ndarray:
            return -self.gradient(*torch.from_numpy(theta)).numpy()

        end = float(times[-1])
        solved = solve_ivp(
            slope, (0.0, end), start, method="LSODA", t_eval=times.double().numpy(), rtol=1e-8, atol=1e-10
        )
        return torch.from_numpy(solved.y.T.copy())
