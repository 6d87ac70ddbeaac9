"""Connectionist temporal classification with a purpose: alignments, and a loss that prefers the better of two.

A network gives P(v | x, t) for every frame t = 1..T and label v, one of which is the blank. An alignment a in V^T has
P(a | x) = prod_t P(a_t | x, t) and collapses to a text: repeats merge, then blanks go. The CTC loss maximises the sum
over all alignments of a text and is indifferent between them. Align With Purpose adds a preference: alignments are
sampled from the network, a property improves each a little, and a hinge asks that the improved one be the more
probable.

Log-probabilities are laid out as `torch.nn.functional.ctc_loss` takes them, (T, B, V), and so are targets (B, S) and
the two vectors of lengths; alignments have time last, (..., B, T).

Source: Segev, Alroy et al., Align With Purpose, ICLR 2024 (arXiv 2307.01715), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from etude.training.schedules import Schedule

Lengths = Int[Tensor, " batch"] | Sequence[int]
Score = Literal["mean_log_probability", "log_probability", "probability"]
Property = Callable[
    [
        Int[Tensor, "samples batch frames"],
        Int[Tensor, " batch"],
        Int[Tensor, "batch symbols"],
        Int[Tensor, " batch"],
    ],
    Int[Tensor, "samples batch frames"],
]
"""``property(alignments, input_lengths, targets, target_lengths)`` -> better alignments of the same shape."""

__all__ = [
    "AlignWithPurpose",
    "ComposedProperty",
    "EarlierEmission",
    "Emissions",
    "FewerWordErrors",
    "LaterEmission",
    "Property",
    "alignment_scores",
    "check_ctc",
    "check_emissions",
    "collapse_alignments",
    "collapses_to",
    "sample_alignments",
    "viterbi_align",
]


class Emissions(NamedTuple):
    """The texts that alignments collapse to, and where each token is.

    Attributes:
        labels: the tokens from the left, -1 behind the last.
        counts: how many there are.
        first: the first frame of each, -1 behind the last.
        last: the last frame of each, -1 behind the last.
        index: the token that each frame belongs to, -1 for blanks and frames beyond the length.
    """

    labels: Int[Tensor, "*batch frames"]
    counts: Int[Tensor, "*batch"]
    first: Int[Tensor, "*batch frames"]
    last: Int[Tensor, "*batch frames"]
    index: Int[Tensor, "*batch frames"]


# ---- alignments ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def sample_alignments(
    log_probs: Float[Tensor, "frames batch vocabulary"],
    input_lengths: Lengths,
    n: int,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    blank: int = 0,
) -> Int[Tensor, "{n} batch frames"]:
    """Draw alignments from the network: every frame's label independently from its own distribution.

    Args:
        log_probs: log P(v | x, t), (T, B, V).
        input_lengths: frames of each utterance; frames beyond are given the blank.
        n: alignments of each utterance, at least 1.
        temperature: labels are drawn from P^(1 / temperature), normalised; above 0.
        generator: where the numbers come from; by default torch's own.
        blank: the blank label.

    Returns:
        (n, B, T). No gradient flows through it.

    Raises:
        ValueError: an argument out of range.

    Source: section 3.1; one draw of a uniform number a frame and a search in the cumulative distribution.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"n={n!r}: give a whole number of alignments, at least 1")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature={temperature!r}: give a finite number above 0")
    frames, batch, vocabulary = log_probs.shape
    lengths = _lengths("input_lengths", input_lengths, batch, log_probs.device)
    wide = log_probs.float() if log_probs.dtype in (torch.float16, torch.bfloat16) else log_probs
    probabilities = wide.exp() if temperature == 1 else (wide / temperature).softmax(-1)
    cumulative = probabilities.transpose(0, 1).contiguous().cumsum(-1)
    # A uniform number below the last sum never finds a label of probability 0, whatever the rounding of the sum.
    uniform = _uniform((batch, frames, n), generator, cumulative)
    labels = torch.searchsorted(cumulative, uniform * cumulative[..., -1:], right=True).clamp_(max=vocabulary - 1)
    beyond = torch.arange(frames, device=lengths.device) >= lengths[:, None]
    return labels.permute(2, 0, 1).contiguous().masked_fill_(beyond, blank)


def collapse_alignments(
    alignments: Int[Tensor, "*batch frames"], lengths: Int[Tensor, ...], *, blank: int = 0
) -> Emissions:
    """The texts of alignments: repeats merged, blanks removed, with the frames of each token.

    Args:
        alignments: labels, (..., T).
        lengths: frames that count, of a shape that broadcasts to (...).
        blank: the blank label.

    Returns:
        `Emissions`, padded to T tokens so that nothing needs to be read back from a device.
    """
    frames = alignments.shape[-1]
    position = torch.arange(frames, device=alignments.device)
    spoken = (alignments != blank) & (position < lengths[..., None])
    starts = spoken.clone()
    starts[..., 1:] &= alignments[..., 1:] != alignments[..., :-1]
    rank = starts.long().cumsum(-1) - 1
    # Frames that hold no token write into an extra column, which is cut off.
    slots = (*alignments.shape[:-1], frames + 1)
    at = torch.where(starts, rank, frames)
    place = position.expand_as(alignments)
    labels, first, last = (torch.full(slots, -1, dtype=torch.long, device=alignments.device) for _ in range(3))
    labels.scatter_(-1, at, alignments.long())
    first.scatter_(-1, at, place)
    last.scatter_reduce_(-1, torch.where(spoken, rank, frames), place, "amax")
    return Emissions(
        labels[..., :frames],
        starts.sum(-1),
        first[..., :frames],
        last[..., :frames],
        torch.where(spoken, rank, -1),
    )


def alignment_scores(
    log_probs: Float[Tensor, "frames batch vocabulary"],
    alignments: Int[Tensor, "samples batch frames"],
    input_lengths: Lengths,
    *,
    score: Score = "log_probability",
) -> Float[Tensor, "samples batch"]:
    """How probable alignments are.

    Args:
        log_probs: log P(v | x, t), (T, B, V).
        alignments: labels, (n, B, T).
        input_lengths: frames of each utterance; those beyond do not count.
        score: ``"log_probability"``, log P(a | x) = sum_t log P(a_t | x, t); ``"mean_log_probability"``, that over the
            number of frames; or ``"probability"``, P(a | x) itself.

    Returns:
        (n, B), differentiable in `log_probs`.
    """
    frames, batch, _ = log_probs.shape
    lengths = _lengths("input_lengths", input_lengths, batch, log_probs.device)
    # In half precision the sum over frames would lose what tells two alignments apart.
    chosen = log_probs.transpose(0, 1).gather(2, alignments.permute(1, 2, 0))
    chosen = chosen.float() if chosen.dtype in (torch.float16, torch.bfloat16) else chosen
    beyond = torch.arange(frames, device=lengths.device) >= lengths[:, None]
    total = chosen.masked_fill(beyond[..., None], 0).sum(1).T
    if score == "mean_log_probability":
        return total / lengths
    return total if score == "log_probability" else total.exp()


def collapses_to(
    alignments: Int[Tensor, "*samples batch frames"],
    input_lengths: Lengths,
    targets: Int[Tensor, "batch symbols"],
    target_lengths: Lengths,
    *,
    blank: int = 0,
) -> Bool[Tensor, "*samples batch"]:
    """Whether alignments collapse to the target: those that the CTC loss sums over.

    Args:
        alignments: labels, (..., B, T).
        input_lengths: frames of each utterance.
        targets: texts, (B, S).
        target_lengths: symbols of each text.
        blank: the blank label.
    """
    batch = targets.shape[0]
    tokens = collapse_alignments(
        alignments, _lengths("input_lengths", input_lengths, batch, alignments.device), blank=blank
    )
    counts = _lengths("target_lengths", target_lengths, batch, alignments.device)
    width = min(targets.shape[1], alignments.shape[-1])
    inside = torch.arange(width, device=counts.device) < counts[:, None]
    same = (tokens.labels[..., :width] == targets[:, :width]) | ~inside
    return same.all(-1) & (tokens.counts == counts)


@torch.no_grad()
def viterbi_align(
    log_probs: Float[Tensor, "frames batch vocabulary"],
    targets: Int[Tensor, "batch symbols"],
    input_lengths: Lengths,
    target_lengths: Lengths,
    *,
    blank: int = 0,
) -> Int[Tensor, "batch frames"]:
    """The most probable alignment that collapses to the target: a forced alignment.

    The states are the target's symbols with blanks around each; one step stays, moves on by one, or skips a blank
    between two different symbols.

    Args:
        log_probs: log P(v | x, t), (T, B, V).
        targets: texts, (B, S).
        input_lengths: frames of each utterance.
        target_lengths: symbols of each text.
        blank: the blank label.

    Returns:
        (B, T), the blank beyond each length.

    Raises:
        ValueError: as for `check_ctc`.

    Source: Graves et al., Connectionist Temporal Classification, ICML 2006, section 4.1, with max in place of sum.
    """
    check_ctc(log_probs, targets, input_lengths, target_lengths, blank=blank)
    frames, batch, _ = log_probs.shape
    lengths = _lengths("input_lengths", input_lengths, batch, log_probs.device)
    counts = _lengths("target_lengths", target_lengths, batch, log_probs.device)
    states = torch.full((batch, 2 * targets.shape[1] + 1), blank, device=log_probs.device)
    states[:, 1::2] = targets.long()
    skips = torch.zeros_like(states, dtype=torch.bool)
    skips[:, 3::2] = states[:, 3::2] != states[:, 1:-2:2]
    emitted = log_probs.gather(2, states.expand(frames, -1, -1))
    best = torch.full_like(emitted[0], -torch.inf)
    best[:, :2] = emitted[0, :, :2]
    steps = []
    for t in range(1, frames):
        one = nn.functional.pad(best, (1, 0), value=-torch.inf)[:, :-1]
        two = nn.functional.pad(best, (2, 0), value=-torch.inf)[:, :-2].masked_fill(~skips, -torch.inf)
        best_now, step = torch.stack([best, one, two]).max(0)
        running = (t < lengths)[:, None]
        best = torch.where(running, best_now + emitted[t], best)
        steps.append(torch.where(running, step, 0))
    ends = torch.stack([2 * counts, (2 * counts - 1).clamp(min=0)], 1)
    state = ends.gather(1, best.gather(1, ends).argmax(1, keepdim=True))
    path = [state]
    for step in reversed(steps):
        state = state - step.gather(1, state)
        path.append(state)
    labels = states.gather(1, torch.cat(path[::-1], 1))
    return labels.masked_fill(torch.arange(frames, device=lengths.device) >= lengths[:, None], blank)


# ---- checks --------------------------------------------------------------------------------------------------------


def check_ctc(
    log_probs: Float[Tensor, "frames batch vocabulary"],
    targets: Int[Tensor, "batch symbols"],
    input_lengths: Lengths,
    target_lengths: Lengths,
    *,
    blank: int = 0,
) -> None:
    """Refuse what would make a CTC loss infinite, wrong or meaningless, naming the argument and the item.

    It reads the values, which makes a device wait: meant for the start of a training, or for data.

    Args:
        log_probs: log P(v | x, t), (T, B, V): finite, and normalised over V.
        targets: texts, (B, S), padded with any label.
        input_lengths: frames of each utterance, 1 to T.
        target_lengths: symbols of each text, 0 to S. A text needs a frame a symbol and one more between equal ones.
        blank: the blank label, 0 to V - 1; no target holds it.

    Raises:
        ValueError: what is wrong, with the number of the first item where it is.
    """
    lengths, counts = _check_shapes(log_probs, targets, input_lengths, target_lengths, blank)
    frames, _, vocabulary = log_probs.shape
    with torch.no_grad():
        inside = torch.arange(frames, device=lengths.device)[:, None] < lengths
        _refuse(~log_probs.isfinite().all(-1) & inside, "log_probs: a value is not finite at (frame, item) {}")
        total = log_probs.float().logsumexp(-1)
        _refuse(
            (total.abs() > 0.05) & inside,
            "log_probs: probabilities do not sum to 1 at (frame, item) {}; give log_softmax(logits, -1)",
        )
    _check_texts(frames, vocabulary, targets, lengths, counts, blank)


def _check_texts(frames: int, vocabulary: int, targets: Tensor, lengths: Tensor, counts: Tensor, blank: int) -> None:
    _refuse(
        (lengths < 1) | (lengths > frames), f"input_lengths: item {{}} is not in 1 to {frames}, the frames there are"
    )
    width = targets.shape[1]
    _refuse(
        (counts < 0) | (counts > width), f"target_lengths: item {{}} is not in 0 to {width}, the columns of targets"
    )
    inside = torch.arange(width, device=counts.device) < counts[:, None]
    _refuse(
        ((targets < 0) | (targets >= vocabulary) | (targets == blank)) & inside,
        f"targets: the label at (item, symbol) {{}} is the blank ({blank}) or not in 0 to {vocabulary - 1}",
    )
    repeats = ((targets[:, 1:] == targets[:, :-1]) & inside[:, 1:]).sum(1)
    _refuse(
        lengths < counts + repeats,
        "targets: item {} has more symbols, with a blank between equal ones, than input_lengths gives it frames: "
        "no alignment exists and the loss would be infinite",
    )


def check_emissions(
    log_probs: Float[Tensor, "frames batch vocabulary"], input_lengths: Lengths, *, blank: int = 0
) -> None:
    """Refuse a network that has collapsed to the blank: every frame's most probable label is the blank.

    Early in training with CTC networks do that, and some stay there. It reads the values.

    Args:
        log_probs: log P(v | x, t), (T, B, V).
        input_lengths: frames of each utterance.
        blank: the blank label.

    Raises:
        ValueError: no frame of any utterance prefers another label.
    """
    frames, batch, _ = log_probs.shape
    lengths = _lengths("input_lengths", input_lengths, batch, log_probs.device)
    inside = torch.arange(frames, device=lengths.device)[:, None] < lengths
    if not bool(((log_probs.argmax(-1) != blank) & inside).any()):
        raise ValueError(
            f"log_probs: the most probable label is the blank ({blank}) in every frame of all {batch} utterances. The "
            "network emits nothing yet, or has collapsed to the blank: train longer with the CTC loss alone, with a "
            "larger or warmed-up learning rate, or begin with shorter utterances"
        )


# ---- properties ----------------------------------------------------------------------------------------------------


class EarlierEmission:
    """The property "low latency": the same text, emitted one frame earlier from a random place on.

    A frame is removed that repeats its predecessor's label (or the first, if it is blank), what comes after moves one
    frame to the left, and a blank is put at the end. Each such frame is as probable as another. The text stays, and
    no token begins later. Alignments without such a frame stay as they are.

    Args:
        k: how many frames are removed, one after the other; at least 1.
        blank: the blank label.
        generator: where the choices come from; by default torch's own.

    Raises:
        ValueError: k is out of range.

    Source: section 3.2. The authors' code never chooses the last candidate, fails where there is one only, and may
    remove frames from the padding; this one does none of that.
    """

    def __init__(self, k: int = 1, *, blank: int = 0, generator: torch.Generator | None = None) -> None:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ValueError(f"k={k!r}: give a whole number of frames, at least 1")
        self.k, self.blank, self.generator = k, blank, generator

    def __call__(
        self,
        alignments: Int[Tensor, "samples batch frames"],
        input_lengths: Int[Tensor, " batch"],
        targets: Int[Tensor, "batch symbols"] | None = None,
        target_lengths: Int[Tensor, " batch"] | None = None,
    ) -> Int[Tensor, "samples batch frames"]:
        """Better alignments; targets are not looked at."""
        for _ in range(self.k):
            alignments = self._earlier(alignments, input_lengths)
        return alignments

    def _earlier(self, alignments: Tensor, lengths: Tensor) -> Tensor:
        position = torch.arange(alignments.shape[-1], device=alignments.device)
        end = lengths[:, None]
        removable = torch.empty_like(alignments, dtype=torch.bool)
        removable[..., 0] = alignments[..., 0] == self.blank
        removable[..., 1:] = alignments[..., 1:] == alignments[..., :-1]
        chosen, some = _choose(removable & (position < end), self.generator)
        follows = (position >= chosen[..., None]) & some[..., None] & (position < end)
        shifted = nn.functional.pad(alignments[..., 1:], (0, 1), value=self.blank)
        shifted.scatter_(-1, (end - 1).expand(*alignments.shape[:-1], 1), self.blank)
        # Arithmetic, for torch.where on the processor is many times slower where conditions are hard to predict.
        return alignments + follows * (shifted - alignments)


class LaterEmission(EarlierEmission):
    """The mirror image of `EarlierEmission`: the same text, emitted one frame later up to a random place.

    A frame is removed that equals its successor (or the last, if it is blank), what comes before moves to the right,
    and a blank is put at the start. A control: the direction of the rule, not the rule as such, should move emissions.

    Args:
        k: how many frames are removed, one after the other; at least 1.
        blank: the blank label.
        generator: where the choices come from; by default torch's own.

    Raises:
        ValueError: k is out of range.
    """

    def _earlier(self, alignments: Tensor, lengths: Tensor) -> Tensor:
        position = torch.arange(alignments.shape[-1], device=alignments.device)
        # Reversed in time within the length; frames beyond it are their own mirror image.
        mirror = torch.where(position < lengths[:, None], lengths[:, None] - 1 - position, position)
        mirror = mirror.expand_as(alignments)
        return super()._earlier(alignments.gather(-1, mirror), lengths).gather(-1, mirror)


class FewerWordErrors:
    """The property "minimum word error rate": one wrong word is put right, at the frames where its letters are.

    The text of an alignment and its target are aligned word by word by edit distance. Candidates are the substituted
    pairs of *every* least-cost alignment whose two words are equally long and differ in at most `max_changes` letters;
    one is drawn, and the wrong letters are overwritten at all their frames. Repeated spaces count as one. A repair
    whose letter would merge with its neighbour is not made. Where an alignment is changed its number of word errors
    falls by exactly 1, as the rest of the least-cost alignment stays.

    Args:
        space: the label between words.
        max_changes: letters in which the words may differ, at least 1.
        blank: the blank label.
        generator: where the choices come from; by default torch's own.

    Raises:
        ValueError: an argument is out of range.

    Source: section 3.3. The authors' code looks at one least-cost alignment only.
    """

    def __init__(
        self, space: int, *, max_changes: int = 2, blank: int = 0, generator: torch.Generator | None = None
    ) -> None:
        if isinstance(max_changes, bool) or not isinstance(max_changes, int) or max_changes < 1:
            raise ValueError(f"max_changes={max_changes!r}: give a whole number of letters, at least 1")
        if space == blank:
            raise ValueError(f"space={space!r}: it is the blank; give the label between words")
        self.space, self.max_changes, self.blank, self.generator = space, max_changes, blank, generator

    def __call__(
        self,
        alignments: Int[Tensor, "samples batch frames"],
        input_lengths: Int[Tensor, " batch"],
        targets: Int[Tensor, "batch symbols"],
        target_lengths: Int[Tensor, " batch"],
    ) -> Int[Tensor, "samples batch frames"]:
        """Better alignments."""
        samples = alignments.shape[0]
        paths = alignments.flatten(0, 1)
        tokens = collapse_alignments(paths, input_lengths.repeat(samples), blank=self.blank)
        # Letters without a blank between them would merge if they became equal.
        touching = nn.functional.pad(tokens.first[:, 1:] == tokens.last[:, :-1] + 1, (0, 1))
        said = _words(tokens.labels, tokens.counts, self.space, touching)
        meant = _words(targets.long(), target_lengths, self.space)
        meant = _Words(*(part.repeat(samples, *[1] * (part.ndim - 1)) for part in meant))
        longest = max(said.letters.shape[2], meant.letters.shape[2])
        said, meant = said.widened(longest), meant.widened(longest)
        pair, some = _choose(self._repairable(said, meant).flatten(1), self.generator)
        wrong, right = pair // meant.letters.shape[1], pair % meant.letters.shape[1]

        rows = torch.arange(len(paths), device=paths.device)[:, None]
        inside = (said.word == wrong[:, None]) & some[:, None]
        repaired = torch.where(inside, meant.letters[rows, right[:, None], said.place], tokens.labels)
        frames = repaired.gather(1, tokens.index.clamp(min=0))
        return torch.where(tokens.index >= 0, frames, paths).view_as(alignments)

    def _repairable(self, said: _Words, meant: _Words) -> Tensor:
        """The pairs (word said, word meant) whose exchange puts one word right, (paths, words said, words meant)."""
        different = (said.letters[:, :, None] != meant.letters[:, None]).sum(-1)
        alike = said.sizes[:, :, None] == meant.sizes[:, None]
        cost = ((different > 0) | ~alike).long()
        before = _edit_distances(cost)
        end = (said.counts[:, None, None], meant.counts[:, None, None])
        i, j = (torch.arange(size, device=cost.device) for size in cost.shape[1:])
        rows = torch.arange(len(cost), device=cost.device)[:, None, None]
        # The distance of what follows a pair is that of the two texts read backwards.
        back = cost[rows, (end[0] - 1 - i[:, None]).clamp(min=0), (end[1] - 1 - j).clamp(min=0)]
        after = _edit_distances(back)[rows, (end[0] - 1 - i[:, None]).clamp(min=0), (end[1] - 1 - j).clamp(min=0)]
        total = before[rows, end[0], end[1]]
        on_a_best_path = before[:, :-1, :-1] + 1 + after == total
        exists = (i[:, None] < end[0]) & (j < end[1])
        doubled = meant.letters[..., 1:] == meant.letters[..., :-1]
        merges = (said.touching[:, :, None, :-1] & doubled[:, None]).any(-1)
        return exists & (cost > 0) & alike & (different <= self.max_changes) & on_a_best_path & ~merges


class ComposedProperty:
    """Several properties one after the other, as one.

    Args:
        properties: each takes the alignments that the one before returned.

    Raises:
        ValueError: none was given.
    """

    def __init__(self, *properties: Property) -> None:
        if not properties:
            raise ValueError("properties: none was given; give at least one")
        self.properties = properties

    def __call__(
        self,
        alignments: Int[Tensor, "samples batch frames"],
        input_lengths: Int[Tensor, " batch"],
        targets: Int[Tensor, "batch symbols"],
        target_lengths: Int[Tensor, " batch"],
    ) -> Int[Tensor, "samples batch frames"]:
        """Better alignments."""
        for improve in self.properties:
            alignments = improve(alignments, input_lengths, targets, target_lengths)
        return alignments


# ---- the loss ------------------------------------------------------------------------------------------------------


class AlignWithPurpose(nn.Module):
    """The loss to add to a CTC loss: improved alignments should be more probable than those the network samples.

    ``weight * mean_i max(0, s(a_i) - s(improve(a_i)) + margin)`` over `samples` alignments a_i of each utterance, where
    s is a score of how probable an alignment is. Sampling is not differentiated; both scores are. Pairs that the
    property left equal count as zero, margin or not.

    Args:
        property: the preference: `EarlierEmission`, `FewerWordErrors` or a function of yours, which takes
            ``(alignments, input_lengths, targets, target_lengths)`` of shapes (n, B, T), (B,), (B, S), (B,) and returns
            better alignments (n, B, T) as a new tensor. It is tried on made-up alignments at once.
        vocabulary: number of labels V, the blank included.
        weight: a number of at least 0, or a schedule of the step such as ``AfterStep(2_000, 0.1)``: a network that
            emits nothing yet has nothing to prefer, so the loss is best added when most words are right.
        samples: alignments sampled from the network for each utterance (the paper's N).
        margin: by how much the improved score should be above (the paper's lambda), at least 0.
        score: what is compared: ``"mean_log_probability"`` (the default, as in the authors' code),
            ``"log_probability"``, or ``"probability"`` as in the paper's equation, whose gradient vanishes for all but
            short utterances.
        preserves_text: whether the property must keep the collapsed text; a property that is allowed to change it,
            such as `FewerWordErrors`, says ``False``.
        temperature: of the sampling.
        blank: the blank label.
        generator: where samples come from; by default torch's own.

    Attributes:
        diagnostics: of the last call with a positive weight, as tensors on the device: ``changed``, the share of
            alignments that the property changed; ``violated``, the share of those that were more probable than (or
            within the margin of) what it made of them; ``gap``, the mean of s(improved) - s(sampled) over those
            changed.

    Raises:
        ValueError: an argument out of range, or a property that returns another shape, labels outside the vocabulary,
            frames beyond an utterance's length or its own argument changed, or (unless ``preserves_text=False``)
            another text.

    Example:
        Three lines in a loop of your own; the new loss takes the four arguments of torch's ``ctc_loss``:

        >>> import torch
        >>> from torch.nn.functional import ctc_loss
        >>> from etude.training import AfterStep, AlignWithPurpose, EarlierEmission
        >>> recogniser = torch.nn.Conv1d(40, 11, kernel_size=5, padding=2)           # your network
        >>> optimizer = torch.optim.Adam(recogniser.parameters())
        >>> earlier = AlignWithPurpose(EarlierEmission(), 11, weight=AfterStep(2, 0.1))        # 1
        >>> features, frames = torch.randn(8, 40, 60), torch.full((8,), 60)
        >>> digits, counts = torch.randint(1, 11, (8, 4)), torch.full((8,), 4)
        >>> for step in range(4):
        ...     log_probs = recogniser(features).permute(2, 0, 1).log_softmax(-1)    # (T, B, V)
        ...     loss = ctc_loss(log_probs, digits, frames, counts)
        ...     extra = earlier(log_probs, digits, frames, counts, step=step)                  # 2
        ...     loss = loss + extra                                                            # 3
        ...     optimizer.zero_grad()
        ...     loss.backward()
        ...     optimizer.step()
        >>> bool(extra > 0)
        True

    Source: equation 5 and section 3.
    """

    def __init__(
        self,
        property: Property,
        vocabulary: int,
        *,
        weight: float | Schedule,
        samples: int = 5,
        margin: float = 0.0,
        score: Score = "mean_log_probability",
        preserves_text: bool = True,
        temperature: float = 1.0,
        blank: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (("vocabulary", vocabulary, 2), ("samples", samples, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r}: give a whole number of at least {least}")
        if not isinstance(blank, int) or not 0 <= blank < vocabulary:
            raise ValueError(f"blank={blank!r}: give one of the labels 0 to {vocabulary - 1}")
        for name, number in {"margin": margin, **({} if callable(weight) else {"weight": weight})}.items():
            if not (math.isfinite(number) and number >= 0):
                raise ValueError(f"{name}={number!r}: give a finite number of at least 0")
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature={temperature!r}: give a finite number above 0")
        if score not in ("mean_log_probability", "log_probability", "probability"):
            raise ValueError(f"score={score!r}: give 'mean_log_probability', 'log_probability' or 'probability'")
        if not callable(property):
            raise ValueError(
                f"property={property!r}: give a function of (alignments, lengths, targets, target lengths)"
            )
        _try_property(property, vocabulary, blank, preserves_text)
        self.property, self.vocabulary, self.weight, self.samples = property, vocabulary, weight, samples
        self.margin, self.score, self.temperature, self.blank = margin, score, temperature, blank
        self.generator = generator
        self.diagnostics: dict[str, Tensor] = {}
        self._inputs_checked = self._emissions_checked = False

    def forward(
        self,
        log_probs: Float[Tensor, "frames batch vocabulary"],
        targets: Int[Tensor, "batch symbols"],
        input_lengths: Lengths,
        target_lengths: Lengths,
        step: int | None = None,
    ) -> Float[Tensor, ""]:
        """The loss, to be added to ``ctc_loss(log_probs, targets, input_lengths, target_lengths)``.

        Shapes are checked in every call and values in the first (on the processor, lengths and targets in every one:
        a device would have to wait for them to be read); in the first call with a positive weight also that the
        network emits anything.

        Args:
            log_probs: log P(v | x, t), (T, B, V).
            targets: texts, padded, (B, S).
            input_lengths: frames of each utterance.
            target_lengths: symbols of each text.
            step: the training step, from 0; needed where the weight is a schedule.

        Returns:
            A number; 0 without a graph where the weight is 0.

        Raises:
            ValueError: as for `check_ctc` and `check_emissions`, another vocabulary than promised, no `step` for a
                schedule, or a property that returns another shape.
        """
        if callable(self.weight) and step is None:
            raise ValueError("step: the weight is a schedule; give the training step, from 0")
        if log_probs.ndim == 3 and log_probs.shape[2] != self.vocabulary:
            raise ValueError(f"log_probs: {log_probs.shape[2]} labels, but vocabulary={self.vocabulary} was promised")
        lengths, counts = _check_shapes(log_probs, targets, input_lengths, target_lengths, self.blank)
        if not self._inputs_checked:
            check_ctc(log_probs, targets, lengths, counts, blank=self.blank)
            self._inputs_checked = True
        elif log_probs.device.type == "cpu":
            _check_texts(len(log_probs), self.vocabulary, targets, lengths, counts, self.blank)
        weight = self.weight(step) if callable(self.weight) else self.weight  # type: ignore[arg-type]
        if weight == 0:
            return log_probs.new_zeros(())
        if not self._emissions_checked:
            check_emissions(log_probs, lengths, blank=self.blank)
            self._emissions_checked = True
        with torch.no_grad():
            sampled = sample_alignments(
                log_probs,
                lengths,
                self.samples,
                temperature=self.temperature,
                generator=self.generator,
                blank=self.blank,
            )
            improved = self.property(sampled, lengths, targets, counts)
            if not isinstance(improved, Tensor) or improved.shape != sampled.shape:
                got = tuple(improved.shape) if isinstance(improved, Tensor) else type(improved).__name__
                raise ValueError(f"property: it returned {got} for alignments of shape {tuple(sampled.shape)}")
            changed = (improved != sampled).any(-1)
        scores = alignment_scores(log_probs, torch.cat([sampled, improved]), lengths, score=self.score)
        gap = scores[self.samples :] - scores[: self.samples]
        hinge = (self.margin - gap).relu() * changed
        with torch.no_grad():
            many = changed.sum().clamp(min=1)
            self.diagnostics = {
                "changed": changed.float().mean(),
                "violated": (hinge > 0).sum() / many,
                "gap": (gap * changed).sum() / many,
            }
        return weight * hinge.mean()


# ---- parts ---------------------------------------------------------------------------------------------------------


class _Words(NamedTuple):
    """Texts as words.

    Attributes:
        letters: (texts, words, letters), -1 behind each word's last and for words that do not exist.
        sizes: letters of each word, (texts, words).
        counts: words of each text, (texts,).
        word: for each symbol of the text the word it is in, -1 for spaces and padding, (texts, symbols).
        place: for each symbol its place in that word, 0 outside, (texts, symbols).
        touching: whether nothing lies between a letter and the next, (texts, words, letters).
    """

    letters: Tensor
    sizes: Tensor
    counts: Tensor
    word: Tensor
    place: Tensor
    touching: Tensor

    def widened(self, letters: int) -> _Words:
        more = (0, letters - self.letters.shape[2])
        return self._replace(
            letters=nn.functional.pad(self.letters, more, value=-1), touching=nn.functional.pad(self.touching, more)
        )


def _words(labels: Tensor, counts: Tensor, space: int, touching: Tensor | None = None) -> _Words:
    position = torch.arange(labels.shape[1], device=labels.device)
    letter = (labels != space) & (position < counts[:, None])
    starts = letter.clone()
    starts[:, 1:] &= ~letter[:, :-1]
    word = torch.where(letter, starts.long().cumsum(1) - 1, -1)
    begin = torch.where(starts, position, 0).cummax(1).values
    place = torch.where(letter, position - begin, 0)
    many = starts.sum(1)
    # How many words and letters there are decides the sizes of what follows: the one value read back.
    words, letters = (max(int(n), 1) for n in torch.stack([many.max(), place.max() + 1]).tolist())
    at = torch.where(letter, word * letters + place, words * letters)

    def by_word(values: Tensor) -> Tensor:
        table = torch.full((len(labels), words * letters + 1), -1, dtype=torch.long, device=labels.device)
        return table.scatter_(1, at, values.long())[:, :-1].view(len(labels), words, letters)

    table = by_word(labels)
    touches = by_word(labels.new_zeros(labels.shape) if touching is None else touching) > 0
    return _Words(table, (table >= 0).sum(2), many, word, place, touches)


def _edit_distances(cost: Tensor) -> Tensor:
    """Edit distances of all pairs of beginnings, (paths, m + 1, n + 1), given the costs of substitution (paths, m, n).

    A row follows from the one before at once: insertions add j - k to the best place k they can start from.
    """
    paths, m, n = cost.shape
    position = torch.arange(n + 1, device=cost.device)
    row = position.expand(paths, -1)
    rows = [row]
    for i in range(m):
        without = row + 1
        without = torch.cat([without[:, :1], torch.minimum(without[:, 1:], row[:, :-1] + cost[:, i])], 1)
        row = (without - position).cummin(1).values + position
        rows.append(row)
    return torch.stack(rows, 1)


def _choose(candidates: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """The place of one true entry in each row, all equally probable, and whether there is one."""
    counts = candidates.cumsum(-1)
    many = counts[..., -1]
    uniform = _uniform(many.shape, generator, candidates)
    rank = torch.minimum((uniform * many).long(), (many - 1).clamp(min=0))
    return torch.searchsorted(counts, rank[..., None], right=True).squeeze(-1), many > 0


def _uniform(shape: Sequence[int], generator: torch.Generator | None, like: Tensor) -> Tensor:
    device = like.device if generator is None else generator.device
    dtype = like.dtype if like.dtype.is_floating_point else torch.float32
    return torch.rand(tuple(shape), generator=generator, device=device, dtype=dtype).to(like.device)


def _lengths(name: str, lengths: Lengths, batch: int, device: torch.device) -> Tensor:
    given = torch.as_tensor(lengths, device=device)
    if given.shape != (batch,) or given.dtype.is_floating_point:
        raise ValueError(
            f"{name}: {tuple(given.shape)} of {given.dtype}; give a whole number for each of {batch} items"
        )
    return given.long()


def _check_shapes(
    log_probs: Tensor, targets: Tensor, input_lengths: Lengths, target_lengths: Lengths, blank: int
) -> tuple[Tensor, Tensor]:
    if log_probs.ndim != 3 or not log_probs.dtype.is_floating_point:
        raise ValueError(
            f"log_probs: {tuple(log_probs.shape)} of {log_probs.dtype}; give floating (frames, batch, vocabulary)"
        )
    batch, vocabulary = log_probs.shape[1:]
    if not 0 <= blank < vocabulary:
        raise ValueError(f"blank={blank!r}: give one of the labels 0 to {vocabulary - 1}")
    if targets.ndim != 2 or targets.shape[0] != batch or targets.dtype.is_floating_point:
        raise ValueError(
            f"targets: {tuple(targets.shape)} of {targets.dtype}; give padded labels ({batch}, symbols), for instance "
            "by torch.nn.utils.rnn.pad_sequence(..., batch_first=True)"
        )
    return (
        _lengths("input_lengths", input_lengths, batch, log_probs.device),
        _lengths("target_lengths", target_lengths, batch, log_probs.device),
    )


def _refuse(wrong: Tensor, message: str) -> None:
    if bool(wrong.any()):
        where = wrong.nonzero()[0].tolist()
        raise ValueError(message.format(where[0] if len(where) == 1 else tuple(where)))


def _try_property(improve: Property, vocabulary: int, blank: int, preserves_text: bool) -> None:
    """Refuse a property that does not do what the loss relies on, on made-up alignments of several lengths."""
    samples, batch, frames, symbols = 8, 16, 24, 5
    draws = torch.Generator().manual_seed(0)
    labels = torch.randint(vocabulary, (samples, batch, frames), generator=draws)
    labels[torch.rand(labels.shape, generator=draws) < 0.4] = blank
    # Labels last a few frames, as a network's do, so that there is something to shorten.
    held = torch.rand(labels.shape, generator=draws) < 0.6
    held[..., 0] = False
    source = torch.where(held, 0, torch.arange(frames)).cummax(-1).values
    lengths = torch.arange(frames, frames - batch, -1)
    beyond = torch.arange(frames) >= lengths[:, None]
    alignments = labels.gather(-1, source).masked_fill_(beyond, blank)
    targets = torch.randint(vocabulary - 1, (batch, symbols), generator=draws)
    targets += targets >= blank
    counts = torch.arange(batch) % symbols + 1
    given = alignments.clone()
    with torch.random.fork_rng(devices=[]):  # trying must not move the numbers that training draws
        torch.manual_seed(0)
        better = improve(given, lengths, targets, counts)
    if not isinstance(better, Tensor) or better.shape != alignments.shape or better.dtype.is_floating_point:
        got = f"{tuple(better.shape)} of {better.dtype}" if isinstance(better, Tensor) else type(better).__name__
        raise ValueError(f"property: it returned {got} for alignments {tuple(alignments.shape)} of torch.int64")
    if not torch.equal(given, alignments):
        raise ValueError("property: it changes the alignments it is given; return a new tensor")
    _refuse(
        (better < 0) | (better >= vocabulary),
        f"property: it returned a label outside 0 to {vocabulary - 1} at (sample, item, frame) {{}}",
    )
    _refuse(
        (better != alignments) & beyond,
        "property: it changed a frame beyond the utterance's length at (sample, item, frame) {}",
    )
    if preserves_text:
        before, after = (collapse_alignments(each, lengths, blank=blank).labels for each in (alignments, better))
        wrong = (before != after).any(-1)
        if bool(wrong.any()):
            sample, item = wrong.nonzero()[0].tolist()
            texts = [text[sample, item][text[sample, item] >= 0].tolist() for text in (before, after)]
            raise ValueError(
                f"property: it changes the collapsed text, from {texts[0]} to {texts[1]} on a made-up alignment; "
                "give preserves_text=False if that is meant"
            )
