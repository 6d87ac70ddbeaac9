"""Generated stories with questions, after the bAbI tasks: who goes where, takes what and leaves it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["Stories", "two_supporting_facts"]

_PERSONS = ("mary", "john", "sandra", "daniel")
_ROOMS = ("kitchen", "bathroom", "bedroom", "office", "garden", "hallway")
_THINGS = ("football", "milk", "apple")
_VERBS = ("went", "took", "left")
_WORDS = ("", "where", *_VERBS, *_PERSONS, *_ROOMS, *_THINGS)  # word 0 is padding
_WENT, _TOOK, _LEFT = (_WORDS.index(verb) for verb in _VERBS)
_PERSON, _ROOM, _THING = (_WORDS.index(first[0]) for first in (_PERSONS, _ROOMS, _THINGS))


@dataclass(frozen=True)
class Stories:
    """Stories, each with one question, as numbers of words.

    Attributes:
        sentences: person, verb and room or thing, in order of time, (stories, sentences, 3).
        question: "where" and a thing, (stories, 2).
        answer: the room, as a number of a word, (stories,).
        vocabulary: the words; number 0 is padding.
    """

    sentences: Int[Tensor, "stories sentences 3"]
    question: Int[Tensor, "stories 2"]
    answer: Int[Tensor, " stories"]
    vocabulary: tuple[str, ...] = _WORDS

    def __len__(self) -> int:
        return len(self.answer)

    def text(self, story: int) -> str:
        """One story as a reader sees it."""
        lines = [" ".join(self.vocabulary[word] for word in sentence) for sentence in self.sentences[story].tolist()]
        question = " ".join(self.vocabulary[word] for word in self.question[story].tolist())
        return ". ".join(lines) + f". {question}? {self.vocabulary[int(self.answer[story])]}"


def two_supporting_facts(n: int, generator: torch.Generator, *, sentences: int = 12) -> Stories:
    """Stories in which the place of a thing follows from two sentences: who had it last, and where that person was.

    Four persons walk between six rooms, take three things and leave them. In each sentence one person, drawn at
    random, takes a thing that lies in the same room or leaves one that is carried, each with probability 1/3 where it
    is possible, and goes to another room otherwise. Things lie in random rooms at first, which no sentence says; the
    question is about one that somebody has taken, and is asked where it is now. Stories in which nobody took
    anything are drawn anew.

    Args:
        n: how many, at least 1.
        generator: of everything; on the processor.
        sentences: in a story, at least 2.

    Returns:
        The stories.

    Raises:
        ValueError: a number out of range.

    Source: Weston et al., Towards AI-Complete Question Answering (arXiv 1502.05698), task 2.
    """
    if n < 1 or sentences < 2:
        raise ValueError(f"n={n}, sentences={sentences}: give at least 1 story of 2 sentences")
    parts: list[Stories] = []
    while sum(map(len, parts)) < n:
        parts.append(_drawn(max(2 * n, 100), generator, sentences))
    return Stories(*(torch.cat([getattr(p, f) for p in parts])[:n] for f in ("sentences", "question", "answer")))


def _drawn(n: int, generator: torch.Generator, sentences: int) -> Stories:
    """As many of n stories as have something to ask about; all are told at once, sentence by sentence."""
    persons, rooms, things = len(_PERSONS), len(_ROOMS), len(_THINGS)

    def pick(allowed: Tensor) -> Tensor:
        """One of the allowed things of each story, at random."""
        return (torch.rand(allowed.shape, generator=generator) * allowed).argmax(1)

    every = torch.arange(n)
    at = torch.full((n, persons), -1)  # rooms of the persons, not known before they first go somewhere
    lies = torch.randint(rooms, (n, things), generator=generator)  # rooms of the things
    held = torch.full((n, things), -1)  # who carries them
    known = torch.zeros(n, things, dtype=torch.bool)
    told = torch.empty(n, sentences, 3, dtype=torch.long)
    for sentence in told.unbind(1):
        who = torch.randint(persons, (n,), generator=generator)
        room, chance = at[every, who], torch.rand(n, generator=generator)
        near, carried = (held < 0) & (lies == room[:, None]), held == who[:, None]
        take, leave = (chance < 1 / 3) & near.any(1), (chance > 2 / 3) & carried.any(1)
        thing = torch.where(take, pick(near), pick(carried))
        first, further = (torch.randint(least, rooms, (n,), generator=generator) for least in (0, 1))
        target = torch.where(room < 0, first, (room + further) % rooms)
        walk = ~(take | leave)
        held[every[take], thing[take]] = who[take]
        held[every[leave], thing[leave]] = -1
        known[every[take], thing[take]] = True
        at[every[walk], who[walk]] = target[walk]
        carriers = at.gather(1, held.clamp(min=0))
        lies = torch.where(held >= 0, carriers, lies)
        sentence[:, 0] = _PERSON + who
        sentence[:, 1] = torch.where(walk, _WENT, torch.where(take, _TOOK, _LEFT))
        sentence[:, 2] = torch.where(walk, _ROOM + target, _THING + thing)
    asked = pick(known)
    question = torch.stack([torch.full((n,), _WORDS.index("where")), _THING + asked], 1)
    kept = known.any(1)
    return Stories(told[kept], question[kept], (_ROOM + lies[every, asked])[kept])
