"""Other ways to make a CTC network emit earlier, to compare `AlignWithPurpose` with.

Each adds one line to a loop of your own and changes neither the network nor the targets.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from etude.training.ctc import Lengths, _lengths, _uniform

__all__ = ["delay_penalised_ctc_loss", "peak_first_loss", "trim_tail"]


def delay_penalised_ctc_loss(
    log_probs: Float[Tensor, "frames batch vocabulary"],
    targets: Int[Tensor, "batch symbols"],
    input_lengths: Lengths,
    target_lengths: Lengths,
    *,
    weight: float,
    blank: int = 0,
    boundary: float = 0.99,
) -> Float[Tensor, ""]:
    """The CTC loss with a bonus on the blank that grows with time, in place of torch's.

    With the blank more probable late than early, alignments that emit early weigh more. So that long silences do not
    make the bonus grow without bound, it starts again wherever the blank is (nearly) certain:
    ``weight * (t - last t' <= t with P(blank | t') >= boundary)``, a saw-tooth, added to log P(blank | t).

    Args:
        log_probs: log P(v | x, t), (T, B, V).
        targets: texts, padded, (B, S).
        input_lengths: frames of each utterance.
        target_lengths: symbols of each text.
        weight: bonus a frame in nats, at least 0.
        blank: the blank label.
        boundary: probability of the blank from which the bonus starts again, in (0, 1].

    Returns:
        The mean over utterances of the loss a symbol, as torch's ``reduction="mean"``.

    Raises:
        ValueError: an argument out of range.

    Source: Kang et al., Delay-penalized CTC implemented based on finite state transducer (arXiv 2305.11539); the
        saw-tooth as described in icefall pull requests 662 and 669.
    """
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"weight={weight!r}: give a finite number of at least 0")
    if not 0 < boundary <= 1:
        raise ValueError(f"boundary={boundary!r}: give a probability above 0 and at most 1")
    frames, batch, vocabulary = log_probs.shape
    lengths = _lengths("input_lengths", input_lengths, batch, log_probs.device)
    counts = _lengths("target_lengths", target_lengths, batch, log_probs.device)
    position = torch.arange(frames, device=log_probs.device)[:, None]
    restarts = log_probs[..., blank].detach() >= math.log(boundary)
    bonus = weight * (position - torch.where(restarts, position, 0).cummax(0).values)
    # Lowering all other labels and taking the difference off the loss is the same, and nothing can overflow.
    others = torch.arange(vocabulary, device=log_probs.device) != blank
    lowered = log_probs - bonus[..., None] * others
    loss = nn.functional.ctc_loss(lowered, targets, lengths, counts, blank=blank, reduction="none")
    beyond = position >= lengths
    loss = loss - bonus.masked_fill(beyond, 0).sum(0)
    # torch's gradient has an extra exp(lowered), which only a softmax of the same numbers would remove; here it stays.
    extra = lowered.exp().masked_fill(beyond[..., None], 0).sum((0, 2))
    return ((loss - (extra - extra.detach())) / counts.clamp(min=1)).mean()


def peak_first_loss(log_probs: Float[Tensor, "frames batch vocabulary"], input_lengths: Lengths) -> Float[Tensor, ""]:
    """Each frame learns from its successor: ``mean_t KL(P(. | t + 1) || P(. | t))``, the first of them held fixed.

    Peaks wander to the left. To be multiplied by a weight and added to the CTC loss.

    Args:
        log_probs: log P(v | x, t), (T, B, V).
        input_lengths: frames of each utterance, at least 2 in one of them.

    Returns:
        The mean over all pairs of neighbouring frames.

    Raises:
        ValueError: no utterance has two frames.

    Source: Tian et al., Peak-First CTC (arXiv 2211.03284), equation 5.
    """
    frames, batch, _ = log_probs.shape
    if frames < 2:
        raise ValueError(f"log_probs: {frames} frames; give at least 2")
    lengths = _lengths("input_lengths", input_lengths, batch, log_probs.device)
    inside = torch.arange(1, frames, device=lengths.device)[:, None] < lengths
    next_one = log_probs[1:].detach()
    divergence = nn.functional.kl_div(log_probs[:-1], next_one, reduction="none", log_target=True).sum(-1)
    return divergence.masked_fill(~inside, 0).sum() / inside.sum().clamp(min=1)


def trim_tail(
    input_lengths: Int[Tensor, " batch"],
    longest: int,
    *,
    at_least: Int[Tensor, " batch"] | int = 1,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " batch"]:
    """Shorter lengths, for utterances whose last frames are cut off while their texts stay.

    A token whose sound is cut off has to be emitted earlier, from what was heard of it. Give the new lengths wherever
    the old ones were given, and cut the batch to the longest: ``features[:, :lengths.max()]``.

    Args:
        input_lengths: frames of each utterance (of the input, before the network).
        longest: greatest number of frames to cut; how many is drawn uniformly from 0 to it for each utterance.
        at_least: frames that must remain (of each utterance): enough for its text after the network's subsampling.
        generator: where the numbers come from; by default torch's own.

    Returns:
        New lengths, on the device of the old; never below `at_least` unless they were before.

    Raises:
        ValueError: `longest` is negative.

    Source: Song et al., TrimTail (arXiv 2211.00522), section 2.
    """
    if isinstance(longest, bool) or not isinstance(longest, int) or longest < 0:
        raise ValueError(f"longest={longest!r}: give a whole number of frames, at least 0")
    cut = (_uniform(input_lengths.shape, generator, input_lengths) * (longest + 1)).long()
    least = torch.as_tensor(at_least, device=input_lengths.device)
    return torch.maximum(input_lengths - cut, torch.minimum(least, input_lengths))
