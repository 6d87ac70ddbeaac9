"""Small networks that propose programs, hypotheses, repairs and answers for the tasks of `ListWorld`.

They stand in for a language model where none that is at hand could write programs. All have one architecture. The
pairs of a task are encoded one by one and attend to each other; a decoder attends to them, to the query of a direct
answer, and to a hint, which is a hypothesis (the names of the steps without constants) or a program that is not right.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from etude.data.induction import LARGEST, PRIMITIVES, InductionProblem, ListProgram, ListTask, Step
from etude.language.model import Usage
from etude.reasoning.hypothesis_search import Attempt

Role = Literal["direct", "program", "hypothesis", "implement"]
ROLES: tuple[Role, ...] = ("direct", "program", "hypothesis", "implement")

NAMES = tuple(PRIMITIVES)
END, BEGIN, PAD, RULE, REPAIR = range(LARGEST + 1, LARGEST + 6)
FIRST_STEP = LARGEST + 6
TOKENS = FIRST_STEP + len(NAMES)
"""Numbers 0 to 99, marks, and a token a primitive."""
LIST_LENGTH, ANSWER_LENGTH, PROGRAM_LENGTH, RULE_LENGTH = 12, 16, 10, 4
PAIRS = 5


def program_tokens(steps: Sequence[Step]) -> list[int]:
    """A program's steps as tokens: each primitive followed by its constants, and an end.

    Args:
        steps: names with constants.
    """
    tokens = []
    for name, constants in steps:
        tokens += [FIRST_STEP + NAMES.index(name), *constants]
    return [*tokens, END]


def parse_program(tokens: Sequence[int]) -> ListProgram | None:
    """The program that tokens spell, None where they spell none.

    Args:
        tokens: up to an end.
    """
    steps: list[Step] = []
    place, ended = 0, False
    while place < len(tokens):
        if tokens[place] == END:
            ended = True
            break
        if tokens[place] < FIRST_STEP:
            return None
        name = NAMES[tokens[place] - FIRST_STEP]
        count = len(PRIMITIVES[name].ranges)
        constants = tuple(tokens[place + 1 : place + 1 + count])
        if len(constants) < count or any(each > LARGEST for each in constants):
            return None
        steps.append((name, constants))
        place += 1 + count
    return ListProgram(tuple(steps)) if steps and ended else None


@dataclass(frozen=True)
class ListExamples:
    """Tasks as tokens, one byte each, to train on.

    Attributes:
        pairs: inputs and outputs of the training pairs.
        query: the test input.
        answer: its output.
        program: the program.
        rule: the names of its steps.
        wrong: a program near it, as it might be to be repaired.
    """

    pairs: Int[Tensor, "tasks pairs 2 length"]
    query: Int[Tensor, "tasks length"]
    answer: Int[Tensor, "tasks answer"]
    program: Int[Tensor, "tasks program"]
    rule: Int[Tensor, "tasks rule"]
    wrong: Int[Tensor, "tasks program"]


def list_examples(tasks: Sequence[ListTask], generator: random.Random) -> ListExamples:
    """Tasks as tokens.

    Args:
        tasks: generated tasks of at most three steps.
        generator: of the programs to be repaired.
    """
    rules = [[FIRST_STEP + NAMES.index(name) for name in made.program.composition] + [END] for made in tasks]
    wrong = [_changed(made.program.steps, generator) for made in tasks]

    def table(rows: list[list[int]], length: int) -> Int[Tensor, "tasks length"]:
        return torch.tensor([_padded(row, length) for row in rows], dtype=torch.int8)

    return ListExamples(
        torch.stack([_pairs(made.task.problem) for made in tasks]).to(torch.int8),
        table([made.task.test[0][0] for made in tasks], LIST_LENGTH),
        table([[*made.task.test[0][1], END] for made in tasks], ANSWER_LENGTH),
        table([program_tokens(made.program.steps) for made in tasks], PROGRAM_LENGTH),
        table(rules, RULE_LENGTH),
        table([program_tokens(steps) for steps in wrong], PROGRAM_LENGTH),
    )


def _changed(steps: tuple[Step, ...], generator: random.Random) -> tuple[Step, ...]:
    """A step's constants drawn anew, a step replaced, left out or put in."""
    place, kind = generator.randrange(len(steps)), generator.randrange(4)

    def drawn(name: str) -> Step:
        return name, tuple(generator.randint(*bounds) for bounds in PRIMITIVES[name].ranges)

    if kind == 0:
        return (*steps[:place], drawn(steps[place][0]), *steps[place + 1 :])
    if kind == 1 and len(steps) > 1:
        return steps[:place] + steps[place + 1 :]
    if kind == 2 and len(steps) < 3:
        return (*steps[:place], drawn(generator.choice(NAMES)), *steps[place:])
    return (*steps[:place], drawn(generator.choice(NAMES)), *steps[place + 1 :])


def _padded(tokens: Sequence[int], length: int) -> list[int]:
    return [*tokens, *[PAD] * length][:length]


def _pairs(problem: InductionProblem) -> Int[Tensor, "pairs 2 length"]:
    """The first pairs of a task; numbers that are out of range count as the nearest ones that are not."""
    chosen = [problem.train[number % len(problem.train)] for number in range(PAIRS)]
    rows = [[_padded([min(max(each, 0), LARGEST) for each in value], LIST_LENGTH) for value in pair] for pair in chosen]
    return torch.tensor(rows)


class ListNetwork(nn.Module):
    """From pairs, and perhaps a query or a hint, to a sequence of tokens.

    Args:
        width: of the vectors, divisible by 4.
        generator: where the weights come from.
        layers: of the decoder.

    Shapes: a pair's numbers are embedded, joined and put through a small network of two layers; an encoder block lets
    pairs, query and hint attend to each other.
    """

    def __init__(self, width: int, generator: torch.Generator, layers: int = 2) -> None:
        super().__init__()
        numbers = 24
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            self.numbers = nn.Embedding(TOKENS, numbers)
            self.facts = nn.Linear(4, numbers, bias=False)
            hidden = 3 * width
            self.pair = nn.Sequential(
                nn.Linear(2 * LIST_LENGTH * numbers, hidden), nn.GELU(), nn.Linear(hidden, width), nn.LayerNorm(width)
            )
            self.tokens = nn.Embedding(TOKENS, width)
            self.places = nn.Parameter(0.1 * torch.randn(3, max(ANSWER_LENGTH, LIST_LENGTH), width))
            self.encoder = nn.TransformerEncoderLayer(
                width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            self.blocks = nn.ModuleList(_Block(width) for _ in range(layers))
            self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, TOKENS))

    def encode(
        self,
        pairs: Int[Tensor, "tasks pairs 2 length"],
        query: Int[Tensor, "tasks query"] | None = None,
        hint: Int[Tensor, "tasks hint"] | None = None,
    ) -> Float[Tensor, "tasks memory width"]:
        """What the decoder attends to.

        Args:
            pairs: inputs and outputs.
            query: the input whose output is asked for.
            hint: a rule or a program, after its mark.
        """
        value = pairs.clamp(max=LARGEST).float() * (pairs <= LARGEST)
        facts = torch.stack([value / 30, value % 2, (value / 10).floor() / 5, (pairs == PAD).float()], -1)
        memory = self.pair((self.numbers(pairs) + self.facts(facts)).flatten(2))
        for kind, more in enumerate((query, hint)):
            if more is not None:
                memory = torch.cat([memory, self.tokens(more) + self.places[kind, : more.shape[1]]], 1)
        return self.encoder(memory)

    def forward(
        self, memory: Float[Tensor, "tasks memory width"], target: Int[Tensor, "tasks length"]
    ) -> Float[Tensor, "tasks length tokens"]:
        """Logits of each token of the target, given those before it.

        Args:
            memory: as `encode` gives it.
            target: tokens.
        """
        shifted = torch.cat([torch.full_like(target[:, :1], BEGIN), target[:, :-1]], 1)
        x = self.tokens(shifted) + self.places[2, : target.shape[1]]
        for block in self.blocks:
            x, _ = block(x, block.remember(memory), None)
        return self.out(x)

    @torch.no_grad()
    def sample(
        self,
        memory: Float[Tensor, "tasks memory width"],
        n: int,
        length: int,
        temperature: float,
        generator: torch.Generator,
    ) -> Int[Tensor, "tasks n length"]:
        """Draw sequences token by token; the most probable token at temperature 0.

        Args:
            memory: as `encode` gives it.
            n: sequences a task.
            length: the most tokens.
            temperature: what logits are divided by, at least 0.
            generator: where the draws come from.
        """
        rows = len(memory) * n
        remembered = [tuple(part.repeat_interleave(n, 0) for part in block.remember(memory)) for block in self.blocks]
        caches: list[Any] = [None] * len(self.blocks)
        drawn = torch.full((rows, length), PAD, device=memory.device)
        last = torch.full((rows, 1), BEGIN, device=memory.device)
        ended = torch.zeros(rows, dtype=torch.bool, device=memory.device)
        for place in range(length):
            x = self.tokens(last) + self.places[2, place]
            for number, block in enumerate(self.blocks):
                x, caches[number] = block(x, remembered[number], caches[number])
            logits = self.out(x[:, 0])
            if temperature == 0:
                last = logits.argmax(-1, keepdim=True)
            else:
                # The largest of logits with Gumbel noise is a draw from their softmax.
                noise = torch.rand(logits.shape, generator=generator, device=logits.device).clamp_min(1e-20)
                last = (logits / temperature - (-noise.log()).log()).argmax(-1, keepdim=True)
            last = last.masked_fill(ended[:, None], PAD)
            drawn[:, place] = last[:, 0]
            ended = ended | (last[:, 0] == END)
            if ended.all():
                break
        return drawn.view(len(memory), n, length)


class _Block(nn.Module):
    """A decoder block: attention to the tokens before, attention to the memory, two layers; norms before each."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own, self.own_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.ask, self.recall, self.recall_out = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def remember(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the memory."""
        keys, values = self.recall(memory).chunk(2, -1)
        return self._split(keys), self._split(values)

    def forward(
        self, x: Tensor, memory: tuple[Tensor, Tensor], cache: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The block's output, and keys and values of all tokens so far."""
        query, keys, values = map(self._split, self.own(self.norms[0](x)).chunk(3, -1))
        if cache is not None:
            keys, values = torch.cat([cache[0], keys], 2), torch.cat([cache[1], values], 2)
        attended = functional.scaled_dot_product_attention(query, keys, values, is_causal=x.shape[1] > 1)
        x = x + self.own_out(attended.transpose(1, 2).flatten(2))
        attended = functional.scaled_dot_product_attention(self._split(self.ask(self.norms[1](x))), *memory)
        x = x + self.recall_out(attended.transpose(1, 2).flatten(2))
        return x + self.feed(self.norms[2](x)), (keys, values)


def hints(
    role: Role, examples: ListExamples, rows: Int[Tensor, " batch"], generator: torch.Generator
) -> Int[Tensor, "batch hint"] | None:
    """What the implementer is given beside the pairs: the rule, or in two cases of five a program to be repaired.

    Args:
        role: the network's; None is returned for all but ``"implement"``.
        examples: the tasks.
        rows: which of them.
        generator: draws the cases.
    """
    if role != "implement":
        return None
    rule = functional.pad(examples.rule[rows].long(), (1, PROGRAM_LENGTH - RULE_LENGTH), value=PAD)
    rule[:, 0] = RULE
    wrong = functional.pad(examples.wrong[rows].long(), (1, 0), value=REPAIR)
    return torch.where(torch.rand(len(rows), 1, generator=generator) < 0.4, wrong, rule)


def train_list_network(
    role: Role,
    examples: ListExamples,
    width: int,
    *,
    layers: int = 2,
    steps: int,
    batch: int = 64,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Train a network by cross-entropy and return its weights.

    Args:
        role: ``"direct"`` (pairs and query to answer), ``"program"`` (pairs to program), ``"hypothesis"`` (pairs to the
            names of the steps) or ``"implement"`` (pairs and a hint to program).
        examples: what it is trained on.
        width: of the network.
        layers: of its decoder.
        steps: of AdamW, with a short warm-up and a cosine to zero.
        batch: tasks a step.
        learning_rate: the largest.
        seed: of weights and batches.

    Raises:
        ValueError: another role, or steps < 1.
    """
    if role not in ROLES:
        raise ValueError(f"role={role!r}: give one of {', '.join(map(repr, ROLES))}")
    if steps < 1:
        raise ValueError(f"steps={steps}: give at least 1")
    generator = torch.Generator().manual_seed(seed)
    network = ListNetwork(width, generator, layers)
    target = {"direct": examples.answer, "hypothesis": examples.rule}.get(role, examples.program)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, fused=True)
    warm_up = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / steps))),
    )
    for _ in range(steps):
        rows = torch.randint(len(target), (batch,), generator=generator)
        query = examples.query[rows].long() if role == "direct" else None
        memory = network.encode(examples.pairs[rows].long(), query, hints(role, examples, rows, generator))
        wanted = target[rows].long()
        loss = functional.cross_entropy(network(memory, wanted).flatten(0, 1), wanted.flatten(), ignore_index=PAD)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return dict(network.state_dict())


class ListProposer:
    """Trained networks as a `Proposer` for lists.

    Args:
        networks: by role; a role that is never asked for may be left out.

    Attributes:
        usage: tokens read and drawn.
    """

    def __init__(self, networks: dict[Role, ListNetwork]) -> None:
        self.networks = {role: network.eval() for role, network in networks.items()}
        self.usage = Usage()
        self._written: dict[str, list[int]] = {}

    def hypotheses(self, problem: InductionProblem, n: int, *, temperature: float, seed: int) -> list[str]:
        """Draw n rules: what each step does, without constants."""
        drawn = self._draw("hypothesis", problem, None, n, RULE_LENGTH, temperature, seed)[0]
        rules = []
        for tokens in drawn:
            steps = tokens[: tokens.index(END)] if END in tokens else []
            good = steps and all(token >= FIRST_STEP for token in steps)
            rules.append(", then ".join(PRIMITIVES[NAMES[t - FIRST_STEP]].words for t in steps) if good else "")
        return rules

    def summarise(self, problem: InductionProblem, hypotheses: list[str], n: int) -> list[str]:
        """The most frequent rules: these networks do not read prose."""
        return sorted(dict.fromkeys(hypotheses), key=hypotheses.count, reverse=True)[:n]

    def programs(
        self, problem: InductionProblem, hypotheses: Sequence[str | None], n: int, *, temperature: float, seed: int
    ) -> list[list[str]]:
        """Draw n programs for each hypothesis."""
        hint, role = None, "program"
        if hypotheses[0] is not None:
            role = "implement"
            by_words = {primitive.words: FIRST_STEP + place for place, primitive in enumerate(PRIMITIVES.values())}
            rules = [[by_words[words] for words in str(rule).split(", then ")] for rule in hypotheses]
            hint = torch.tensor([_padded([RULE, *rule, END], PROGRAM_LENGTH + 1) for rule in rules])
        return self._sources(self._draw(role, problem, hint, n, PROGRAM_LENGTH, temperature, seed))

    def repairs(
        self, problem: InductionProblem, attempts: Sequence[Attempt], *, temperature: float, seed: int
    ) -> list[str]:
        """Draw one corrected program for each attempt, from the program alone: feedback in words is not read."""
        wrong = [self._written.get(attempt.source, [END]) for attempt in attempts]
        hint = torch.tensor([_padded([REPAIR, *tokens], PROGRAM_LENGTH + 1) for tokens in wrong])
        drawn = self._draw("implement", problem, hint, 1, PROGRAM_LENGTH, temperature, seed)
        return [source for (source,) in self._sources(drawn)]

    def answers(self, problem: InductionProblem, n: int, *, temperature: float, seed: int) -> list[list[Any]]:
        """Draw n times an output for each test input."""
        columns = []
        for number, value in enumerate(problem.inputs):
            query = torch.tensor([_padded([min(max(each, 0), LARGEST) for each in value], LIST_LENGTH)])
            drawn = self._draw("direct", problem, None, n, ANSWER_LENGTH, temperature, seed + number, query)[0]
            columns.append([_answer(tokens) for tokens in drawn])
        return [list(row) for row in zip(*columns)]

    def _sources(self, drawn: list[list[list[int]]]) -> list[list[str]]:
        found = []
        for row in drawn:
            sources = []
            for tokens in row:
                program = parse_program(tokens)
                source = "def transform(x): raise SyntaxError('no program')" if program is None else program.source
                self._written.setdefault(source, [token for token in tokens if token != PAD])
                sources.append(source)
            found.append(sources)
        return found

    @torch.no_grad()
    def _draw(
        self,
        role: Any,
        problem: InductionProblem,
        hint: Tensor | None,
        n: int,
        length: int,
        temperature: float,
        seed: int,
        query: Tensor | None = None,
    ) -> list[list[list[int]]]:
        network, rows = self.networks[role], 1 if hint is None else len(hint)
        memory = network.encode(_pairs(problem).expand(rows, -1, -1, -1), query, hint)
        drawn = network.sample(memory, n, length, temperature, torch.Generator().manual_seed(seed))
        self.usage += Usage(rows, memory.shape[0] * memory.shape[1], int((drawn != PAD).sum()))
        return drawn.tolist()


def _answer(tokens: list[int]) -> list[int] | None:
    if END not in tokens:
        return None
    numbers = tokens[: tokens.index(END)]
    return numbers if all(number <= LARGEST for number in numbers) else None
