"""Small trained judges, several at once: each learns from labels of one aspect which of two responses is better.

Judge j scores a response x to a question by a network over hashed words and pairs of words near each other,

    f_j(x) = v_j tanh(U_j (s sum_{k in features(x)} E_jk) + c_j),

and prefers the response shown first with probability ``sigmoid(f_j(first) - f_j(second) + b_j)`` (Bradley and Terry),
b_j being its liking for the first position. The judges share nothing but the batch, so that training five takes one
loop, and little more time than one.

Example:
    In your own loop, on your own comparisons and labels (one column of 1, 2 and 0 an aspect)::

        judges = AspectJudges(["accuracy", "brevity"])
        first, second = (hashed(judges.buckets, questions, texts) for texts in (a, b))
        optimizer = torch.optim.Adam(judges.parameters())
        for step in range(100):
            loss = preference_loss(judges(first, second), better).sum()
            optimizer.zero_grad(); loss.backward(); optimizer.step()
        WideDeep(judges, 1, ["accuracy", "brevity"]).judge(comparison)
"""

from __future__ import annotations

import copy
import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, embedding_bag, pad

from etude.language.juries import Assignment, Review, Scale

REACH = 4
"""Two words make a pair if at most so many places apart."""


class AspectJudges(nn.Module):
    """Judges for `WideDeep`, one an aspect: an assignment's role says which of them reviews.

    Args:
        aspects: what each judge is called; names that differ.
        buckets: rows of each judge's table of features, at least 2.
        width: of the sum of features.
        hidden: units of the hidden layer.
        conformity: how far a judge in a later layer gives in to its colleagues, from 0 (not at all) to 1 (wholly):
            its margin becomes ``(1 - conformity) own + conformity mean of the others'``, margins as shares of the
            scale.
        scale: the least and the greatest score.
        generator: draws the weights.

    Raises:
        ValueError: no aspect, one twice, or a number out of range.
    """

    def __init__(
        self,
        aspects: Sequence[str],
        *,
        buckets: int = 16_384,
        width: int = 16,
        hidden: int = 32,
        conformity: float = 0.0,
        scale: Scale = (1, 10),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not aspects or isinstance(aspects, str) or len(set(aspects)) < len(aspects):
            raise ValueError(f"aspects: {aspects!r} was given; a list of at least one name, all different, is accepted")
        if buckets < 2 or width < 1 or hidden < 1:
            raise ValueError(f"buckets, width, hidden: {buckets}, {width}, {hidden}; at least 2, 1 and 1 are accepted")
        if not 0 <= conformity <= 1:
            raise ValueError(f"conformity: {conformity} was given; 0 to 1 is accepted")
        if not scale[0] < scale[1]:
            raise ValueError(f"scale: {scale} was given; a lower and a higher score are accepted")
        self.aspects, self.buckets, self.conformity, self.scale = tuple(aspects), buckets, conformity, scale
        n = len(aspects)

        def drawn(*shape: int, spread: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) * spread)

        self.table = drawn(buckets, n, width, spread=0.1)
        self.into = drawn(n, width, hidden, spread=width**-0.5)
        self.bias = nn.Parameter(torch.zeros(n, 1, hidden))
        self.out = drawn(n, hidden, 1, spread=hidden**-0.5)
        self.position = nn.Parameter(torch.zeros(n))

    def scores(self, features: Int[Tensor, "*judges batch length"]) -> Float[Tensor, "batch judges"]:
        """How good each response is to each judge.

        Args:
            features: of `hashed`, the same for all judges or, with a leading axis, each judge's own.
        """
        _, n, width = self.table.shape
        present = features != 0
        lengths = present.sum(-1).flatten()
        starts, rows = lengths.cumsum(0) - lengths, features[present]
        if features.dim() == 2:  # one look-up finds what all judges make of a feature
            summed = embedding_bag(rows, self.table.flatten(1), starts, mode="sum").view(-1, n, width).transpose(0, 1)
        else:
            judge = torch.arange(n, device=features.device)[:, None, None].expand_as(features)[present]
            summed = embedding_bag(rows * n + judge, self.table.flatten(0, 1), starts, mode="sum").view(n, -1, width)
        found: Tensor = (summed @ self.into + self.bias).tanh() @ self.out
        return found[..., 0].T

    def forward(
        self, first: Int[Tensor, "*judges batch length"], second: Int[Tensor, "*judges batch more"]
    ) -> Float[Tensor, "batch judges"]:
        """The logit of preferring the response shown first.

        Args:
            first: features of the responses shown first.
            second: features of those shown second.
        """
        longest = max(first.shape[-1], second.shape[-1])
        both = torch.cat([pad(side, (0, longest - side.shape[-1])) for side in (first, second)], -2)
        one, other = self.scores(both).chunk(2)
        return one - other + self.position

    def reviews(self, assignments: Sequence[Assignment]) -> list[Review | None]:
        """One review an assignment.

        Args:
            assignments: what to review; their roles are aspects.

        Raises:
            ValueError: a role that is none of the aspects.
        """
        unknown = {assignment.role for assignment in assignments} - set(self.aspects)
        if unknown:
            raise ValueError(f"role: {min(unknown)!r} was given; the aspects are {', '.join(self.aspects)}")
        # Each pair is read once in each order it is shown in, whoever reviews it.
        pairs = {(a.comparison.question, *a.shown): None for a in assignments}
        places = {pair: place for place, pair in enumerate(pairs)}
        questions = [pair[0] for pair in pairs]
        device = self.table.device
        first, second = (hashed(self.buckets, questions, [pair[i] for pair in pairs]).to(device) for i in (1, 2))
        with torch.no_grad():
            logits = torch.cat([self(one, two) for one, two in zip(first.split(1024), second.split(1024))])
        prefers = torch.sigmoid(logits.double()).tolist()
        low, high = self.scale
        found: list[Review | None] = []
        for assignment in assignments:
            of_pair = prefers[places[(assignment.comparison.question, *assignment.shown)]]
            share = of_pair[self.aspects.index(assignment.role)]
            if assignment.others and self.conformity:
                # Seen from the order shown, and added in an order that exchanging the responses does not change.
                sign = -1 if assignment.order else 1
                heard = sum(sorted(sign * review.margin for review in assignment.others)) / len(assignment.others)
                share += self.conformity * ((1 + heard / (high - low)) / 2 - share)
            text = f"{assignment.role}: {share:.0%} for response 1"
            found.append(assignment.review(low + (high - low) * share, high - (high - low) * share, text))
        return found


def hashed(buckets: int, questions: Sequence[str], responses: Sequence[str]) -> Int[Tensor, "n length"]:
    """Features of responses: the question's words, the response's words, and its pairs of words up to `REACH` apart.

    Args:
        buckets: features are numbered from 1 to ``buckets - 1`` by a hash; 0 fills up shorter rows.
        questions: one a response.
        responses: texts, compared without regard to case.

    Returns:
        One row a response, as long as the longest needs.

    Raises:
        ValueError: not one question a response, none at all, or buckets below 2.
    """
    if len(questions) != len(responses) or not responses:
        raise ValueError(
            f"questions, responses: {len(questions)} and {len(responses)} were given; as many, at least one, accepted"
        )
    if buckets < 2:
        raise ValueError(f"buckets: {buckets} was given; at least 2 is accepted")
    asked, said = _words(questions), _words(responses)
    parts = [asked * 3, said * 5]
    for apart in range(1, min(REACH, said.shape[1] - 1) + 1):
        one, other = said[:, :-apart], said[:, apart:]
        parts.append(np.where((one == 0) | (other == 0), 0, one * 1_000_003 + other * 7_919))
    codes = np.concatenate(parts, 1)
    kept = codes != 0
    numbers = np.where(kept, codes % np.uint64(buckets - 1) + np.uint64(1), 0).astype(np.int64)
    # Features first, filling behind them, so that no column is only filling.
    order = np.argsort(~kept, axis=1, kind="stable")[:, : max(1, int(kept.sum(1).max()))]
    return torch.from_numpy(np.take_along_axis(numbers, order, 1))


def preference_loss(
    margins: Float[Tensor, "batch judges"], better: Int[Tensor, "batch judges"]
) -> Float[Tensor, " judges"]:
    """Cross-entropy of each judge's preference: ``-t log sigmoid(m) - (1 - t) log sigmoid(-m)``.

    Args:
        margins: logits of preferring the first response.
        better: 1 for the first (t = 1), 2 for the second (t = 0), 0 for neither (t = 1/2).

    Returns:
        The mean over the batch; add the judges' up for `backward`, as they share no weight.
    """
    target = torch.where(better == 0, 0.5, (better == 1).to(margins.dtype))
    return binary_cross_entropy_with_logits(margins, target, reduction="none").mean(0)


def fit_judges(
    judges: AspectJudges,
    train: tuple[Tensor, Tensor, Int[Tensor, "n judges"]],
    validation: tuple[Tensor, Tensor, Int[Tensor, "n judges"]],
    *,
    epochs: int,
    batch: int,
    lr: float,
    generator: torch.Generator,
) -> Float[Tensor, "epochs judges"]:
    """Train judges side by side with Adam, and leave each with the weights of its own least validation loss.

    Args:
        judges: trained in place.
        train: features of the responses shown first, of those shown second, and which is better; features with a
            leading axis are each judge's own.
        validation: the same, of other comparisons.
        epochs: passes over the comparisons, at least 1.
        batch: comparisons a step.
        lr: the learning rate.
        generator: draws the order of the comparisons.

    Returns:
        Validation loss after each epoch.

    Raises:
        ValueError: epochs or batch below 1, or not as many labels as judges.
    """
    if epochs < 1 or batch < 1:
        raise ValueError(f"epochs, batch: {epochs} and {batch} were given; at least 1 each is accepted")
    first, second, better = train
    if better.shape[-1] != len(judges.aspects):
        raise ValueError(f"train: {better.shape[-1]} labels for {len(judges.aspects)} judges; one each is accepted")
    device = judges.table.device
    optimizer = torch.optim.Adam(judges.parameters(), lr=lr, fused=True)
    losses, best = [], torch.full((len(judges.aspects),), torch.inf, device=device)
    kept = copy.deepcopy(judges.state_dict())
    for _ in range(epochs):
        for chosen in torch.randperm(len(better), generator=generator).to(device).split(batch):
            margins = judges(first[..., chosen, :], second[..., chosen, :])
            optimizer.zero_grad()
            preference_loss(margins, better[chosen]).sum().backward()
            optimizer.step()
        with torch.no_grad():
            loss = preference_loss(judges(*validation[:2]), validation[2])
        losses.append(loss)
        improved = loss < best
        best = torch.where(improved, loss, best)
        for name, value in judges.state_dict().items():
            of_judge = 1 if name == "table" else 0
            kept[name].movedim(of_judge, 0)[improved] = value.movedim(of_judge, 0)[improved]
    judges.load_state_dict(kept)
    return torch.stack(losses)


@lru_cache(maxsize=100_000)
def _code(word: str) -> int:
    return zlib.crc32(word.encode()) or 1


def _words(texts: Sequence[str]) -> np.ndarray:
    """The codes of each text's words, one row a text, 0 behind the last."""
    found = [[_code(word) for word in re.findall(r"\w+|[^\w\s]", text.lower())] for text in texts]
    codes = np.zeros((len(found), max(1, max(map(len, found)))), dtype=np.uint64)
    for row, words in zip(codes, found):
        row[: len(words)] = words
    return codes
