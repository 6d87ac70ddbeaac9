"""Do networks learn a new regular language from its strings in the prompt by looking up what followed the same context?

Every prompt holds strings of one random automaton that was never seen before. N-gram heads, which attend to what
followed earlier occurrences of the last n tokens, are put in front of an LSTM; a transformer and an LSTM are trained
without them and compared with the n-gram models of each prompt; and the heads are put in front of a transformer that
reads English. What is held out are languages (compared as minimal automata, not as drawn), and WikiText-2's test text.
All networks of a seed read the same prompts in the same order. Values are those after the last step, none is chosen.

The paper trains on 2,500 to 40,000 prompts many times over, here each prompt is new unless `--training-prompts` says
otherwise. Its text is SlimPajama and its models have 340M parameters; here they have about a million and read
WikiText-2's validation text, so the gain is one of its sign, not of its size. The control of the heads exchanges
their rows among prompts: among positions, as the pass rule was first put, rows would look ahead. The LSTM's learning
rate is the best of three on another seed and other languages; at the transformer's, 0.005, its head formed by step
300 there; no other than 0.003 was tried for the text. Networks are compared with 10 symbols and 160 tokens: with 6
and 96, an LSTM at its best rate came within .02 of the transformer in 1,500 steps, both at the level of the 2-gram.
`paper` needs a GPU for days.

Source: Akyürek, Wang, Kim and Andreas, ICML 2024 (arXiv 2401.12973), sections 3, 5 and 6.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from etude.data import BytePairs, texts
from etude.in_context import (
    Automata,
    InContextNGram,
    LanguagePrompts,
    RandomAutomata,
    chance_corrected,
    head_score,
    ngram_followers,
    support_accuracy,
    total_variation,
)
from etude.nn import GatedLinearRecurrence, NGramHeads, Recurrent, Transformer, ngram_attention, ngram_mean
from etude.study import (
    Axes,
    Config,
    Estimate,
    Evidence,
    Lab,
    Paper,
    Quantity,
    Rule,
    Study,
    Table,
    all_of,
    exact,
    grid,
    mean,
)

Network = Literal["transformer", "lstm", "gru", "linear recurrence"]
EVERY: tuple[Network, ...] = ("transformer", "lstm", "gru", "linear recurrence")


class Protocol(Config):
    """What languages are read, how long networks learn, and the text."""

    symbols: int = 10
    """Symbols of all languages together."""
    states: tuple[int, int] = (4, 8)
    """The least and the greatest number of states."""
    strings: tuple[int, int] = (5, 19)
    """The least and the greatest length of a string."""
    length: int = 160
    """Tokens of a prompt."""
    steps: int = 150
    """Training steps, where heads are compared."""
    headed: tuple[Network, ...] = ("lstm",)
    """Networks that heads are put in front of."""
    networks: tuple[Network, ...] = ("transformer", "lstm")
    """Networks that are compared without heads."""
    compared_steps: int = 1_000
    """Training steps, where networks are compared."""
    width: int = 64
    """Width of the networks that read languages."""
    layers: int = 2
    """Their layers."""
    batch: int = 32
    """Prompts a step."""
    training_prompts: int | None = None
    """How many prompts there are to learn from; a new one every time when left out."""
    held_out: int = 256
    """Prompts that are measured, each of a language of its own."""
    evaluations: int = 10
    """How often they are, in a training."""
    vocabulary: int = 1_000
    """Tokens of the text: single bytes and frequent pairs."""
    text_width: int = 128
    """Width of the transformer that reads text."""
    text_layers: int = 4
    """Its layers."""
    text_length: int = 256
    """Tokens that it sees at a time."""
    text_batch: int = 4
    """Passages a step."""
    text_steps: int = 300
    """Training steps."""
    text_windows: int = 150
    """Passages of the test text that are measured, evenly spaced."""


ORDERS = {"no heads": (), "1": (1,), "1, 2": (1, 2), "1, 2, 3": (1, 2, 3), "of another prompt": (1, 2, 3)}
RATES = {"transformer": 5e-3, "lstm": 2e-2, "gru": 1e-2, "linear recurrence": 1e-2, "text": 3e-3}
LATE = 100  # where accuracy is called late: more symbols than that were read
LONGER = 1.1  # times the steps for the transformer that reads text without heads, for it not to have less time

SMALLER = "10 symbols instead of 18, 160 tokens; equal steps"

study = Study(
    paper=Paper(
        "In-Context Language Learning: Architectures and Algorithms",
        "Ekin Akyürek, Bailin Wang, Yoon Kim, Jacob Andreas",
        2024,
        "2401.12973",
        "ICML",
    ),
    topic="in-context learning",
    presets={
        "smoke": Protocol(
            steps=4, length=110, compared_steps=4, width=16, batch=8, held_out=16, evaluations=2,
            vocabulary=260, text_width=16, text_layers=1, text_length=32, text_steps=4, text_windows=4, seeds=2,
            headed=("lstm", "transformer"),
        ),
        "laptop": Protocol(),
        "extended": Protocol(
            headed=EVERY, networks=EVERY, steps=1_000, compared_steps=6_000, held_out=1_000,
            text_batch=16, text_steps=2_000, text_windows=1_000,
        ),
        "paper": Protocol(
            symbols=18, states=(4, 12), strings=(1, 49), length=500, training_prompts=40_000, held_out=500,
            evaluations=100, headed=EVERY, networks=EVERY, steps=250_000, compared_steps=250_000, width=256, layers=4,
            vocabulary=8_000, text_width=1_024, text_layers=24, text_length=1_024, text_batch=32, text_steps=5_000,
            text_windows=1_000,
        ),
    },
)  # fmt: skip


# ---- networks and their training -------------------------------------------------------------------------------------


class Reader(nn.Module):
    """Tokens in, logits of the next one out, with a sequence model in between."""

    def __init__(self, tokens: int, symbols: int, width: int, body: nn.Module, generator: torch.Generator) -> None:
        super().__init__()
        self.embed, self.body, self.read_out = nn.Embedding(tokens, width), body, nn.Linear(width, symbols)
        with torch.no_grad():
            for weight in (self.embed.weight, self.read_out.weight):
                weight.normal_(std=width**-0.5, generator=generator)
            self.read_out.bias.zero_()

    def forward(
        self, tokens: Int[Tensor, "batch positions"], matched: Int[Tensor, "batch positions"] | None = None
    ) -> Float[Tensor, "batch positions symbols"]:
        """Logits; n-gram heads, if there are any, match `tokens`, or `matched` if that is given."""
        x = self.embed(tokens)
        heads = isinstance(self.body, NGramHeads)
        return self.read_out(self.body(x, tokens if matched is None else matched) if heads else self.body(x))


def sequence_model(network: Network, width: int, layers: int, generator: torch.Generator) -> nn.Module:
    """One of the networks, without embedding and read-out."""
    if network == "transformer":
        return Transformer(width, layers, 2, positions="rotary", generator=generator)
    if network == "linear recurrence":
        return GatedLinearRecurrence(width, layers, generator=generator)
    return Recurrent(width, layers, network, generator=generator)


def training(
    model: Reader, draw: Callable[[], tuple[Tensor, Tensor]], steps: int, rate: float, *, elsewhere: bool = False
) -> Iterator[int]:
    """Train on tokens and targets as they are drawn, pausing after every step.

    The rate rises for a tenth of the steps and then falls along half a cosine. With `elsewhere` heads look where they
    would look in the batch's next prompt.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1, cycle_momentum=False)
    for step in range(1, steps + 1):
        tokens, targets = draw()
        loss = cross_entropy(model(tokens, tokens.roll(1, 0) if elsewhere else None).mT, targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield step


# ---- languages -------------------------------------------------------------------------------------------------------


class Languages(NamedTuple):
    """A family of languages, those held out, their prompts, and an endless supply of others."""

    family: RandomAutomata
    held_out: Automata
    prompts: LanguagePrompts
    draw: Callable[[], tuple[Tensor, Tensor]]


def languages(lab: Lab, config: Protocol) -> Languages:
    """The languages of a seed; every trial of it gets the same ones in the same order."""
    family, length, strings = RandomAutomata(config.symbols, config.states), config.length, config.strings
    drawn, count = lab.generator("held out"), config.held_out
    held_out = family.sample(2 * count, drawn).distinct()[:count]
    prompts = held_out.prompts(length, drawn, strings=strings)
    source = lab.generator("training")

    def fresh(batch: int) -> tuple[Tensor, Tensor]:
        made = family.sample(batch, source, exclude=held_out).prompts(length, source, strings=strings)
        return made.tokens.to(lab.device), made.targets.to(lab.device)

    if config.training_prompts is None:
        return Languages(family, held_out, prompts, lambda: fresh(config.batch))
    tokens, targets = fresh(config.training_prompts)

    def again() -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(tokens), (config.batch,), generator=source).to(lab.device)
        return tokens[chosen], targets[chosen]

    return Languages(family, held_out, prompts, again)


def record(
    lab: Lab,
    predicted: Float[Tensor, "prompts length symbols"],
    prompts: LanguagePrompts,
    *,
    positions: bool = True,
    **about: Any,
) -> None:
    """Accuracy and distance from the truth over the whole prompt and, if asked for, at each position."""
    accuracy = support_accuracy(predicted, prompts.support)
    tvd, scored = total_variation(predicted, prompts.distribution), prompts.scored
    late = accuracy[:, LATE:][scored[:, LATE:]].mean()
    lab.record(accuracy=accuracy[scored].mean(), late_accuracy=late, tvd=tvd[scored].mean(), **about, position=-1)
    if positions:
        for place, value in enumerate((accuracy * scored).sum(0) / scored.sum(0)):
            lab.record(accuracy=value, **about, position=place)


def predictions(model: Reader, tokens: Tensor, device: torch.device, *, elsewhere: bool = False) -> Tensor:
    """What a network says of every next symbol, on the processor."""
    model.eval()
    with torch.no_grad():
        chunks = [part.to(device) for part in tokens.split(128)]
        found = torch.cat([model(part, part.roll(1, 0) if elsewhere else None).softmax(-1).cpu() for part in chunks])
    model.train()
    return found


@study.measure()
def references(lab: Lab, config: Protocol) -> None:
    """What can be known without a network: n-grams of the prompt, and one who is told the automaton's states."""
    made, symbols = languages(lab, config), config.symbols
    prompts, scored = made.prompts, made.prompts.scored
    for n in (1, 2, 3, 4):
        record(lab, InContextNGram(n - 1)(prompts.tokens, symbols), prompts, predictor=f"{n}-gram")
    record(lab, InContextNGram(0, "uniform-support")(prompts.tokens, symbols), prompts, predictor="symbols seen")
    told = made.family.oracle_accuracy(made.held_out, prompts)
    lab.record(predictor="told states", accuracy=told[scored].mean(), position=-1)
    for place, accuracy in enumerate((told * scored).sum(0) / scored.sum(0)):
        lab.record(predictor="told states", accuracy=accuracy, position=place)


@study.measure(over=lambda config: grid(network=list(config.headed), heads=list(ORDERS)))
def headed_networks(lab: Lab, config: Protocol, *, network: Network, heads: str) -> None:
    """A network behind heads of some orders, behind none, or behind heads that look where another prompt says."""
    made, generator = languages(lab, config), lab.generator("weights")
    symbols, width, elsewhere = config.symbols, config.width, heads == "of another prompt"
    body = sequence_model(network, width, config.layers, generator)
    if orders := ORDERS[heads]:
        body = NGramHeads(body, width, orders, generator=lab.generator("heads"))
    model = Reader(symbols + 1, symbols, width, body, lab.generator("embedding")).to(lab.device)
    every = max(config.steps // config.evaluations, 1)
    run = training(model, made.draw, config.steps, RATES[network], elsewhere=elsewhere)
    for step in lab.track(run, "steps"):
        if step % every == 0 or step == config.steps:
            found = predictions(model, made.prompts.tokens, lab.device, elsewhere=elsewhere)
            record(lab, found, made.prompts, step=step, positions=step == config.steps)


@study.measure(over=lambda config: grid(network=list(config.networks)))
def plain_networks(lab: Lab, config: Protocol, *, network: Network) -> None:
    """Networks without heads: how well they predict, how close they are to n-grams, and where attention looks."""
    made, symbols, width = languages(lab, config), config.symbols, config.width
    body = sequence_model(network, width, config.layers, lab.generator("weights"))
    model = Reader(symbols + 1, symbols, width, body, lab.generator("embedding")).to(lab.device)
    tokens, scored = made.prompts.tokens, made.prompts.scored
    targets = ngram_followers(tokens, 1)

    def best_head() -> dict[str, float]:
        """Of all heads, the highest share of attention on what followed the same token, and that above chance."""
        if not isinstance(body, Transformer):
            return {}
        with torch.no_grad():
            _, maps = body(model.embed(tokens.to(lab.device)), maps=True)
        found = torch.cat([head_score(layer.cpu(), targets) for layer in maps])
        return {"head": float(chance_corrected(found, targets).max()), "raw_head": float(found.max())}

    def measure(step: int, positions: bool) -> None:
        found = predictions(model, tokens, lab.device)
        distances = {
            f"from_{n}_gram": total_variation(found, InContextNGram(n - 1)(tokens, symbols))[scored].mean()
            for n in (2, 3)
        }
        record(lab, found, made.prompts, step=step, positions=positions, **distances, **best_head())

    measure(0, positions=False)
    steps, every = config.compared_steps, max(config.compared_steps // config.evaluations, 1)
    for step in lab.track(training(model, made.draw, steps, RATES[network]), "steps"):
        if step % every == 0 or step == steps:
            measure(step, positions=step == steps)


# ---- text ------------------------------------------------------------------------------------------------------------


def wikitext_2(vocabulary: int) -> dict[str, Tensor]:
    """The text as tokens; the pairs are learnt from what the models learn from."""
    parts = texts("wikitext-2")
    pairs = BytePairs.learn(parts["validation"], vocabulary)
    return {name: torch.from_numpy(pairs.encode(part)) for name, part in parts.items()}


@study.measure(over=lambda config: grid(heads=[False, True]), volatile=("seconds",))
def text(lab: Lab, config: Protocol, *, heads: bool) -> None:
    """A transformer behind heads of orders 1, 2 and 3; one without, its hidden layers wider for as many parameters."""
    parts, width, length = lab.cached(wikitext_2)(config.vocabulary), config.text_width, config.text_length
    layers, generator = config.text_layers, lab.generator("weights")
    added = sum(p.numel() for p in NGramHeads(nn.Identity(), width).parameters())
    hidden = 4 * width + (0 if heads else round(added / (layers * (2 * width + 1))))
    body: nn.Module = Transformer(
        width, layers, width // 32 or 1, positions="rotary", hidden=hidden, generator=generator
    )
    if heads:
        body = NGramHeads(body, width, generator=lab.generator("heads"))
    model = Reader(config.vocabulary, config.vocabulary, width, body, lab.generator("embedding")).to(lab.device)
    parameters = sum(p.numel() for p in model.parameters())

    learnt, source = parts["validation"].to(lab.device), lab.generator("passages")

    def draw() -> tuple[Tensor, Tensor]:
        start = torch.randint(len(learnt) - length, (config.text_batch, 1), generator=source)
        passage = learnt[(start + torch.arange(length + 1)).to(lab.device)]
        return passage[:, :-1], passage[:, 1:]

    test = parts["test"]
    starts = torch.linspace(0, len(test) - length - 1, config.text_windows).long()
    windows = test[starts[:, None] + torch.arange(length + 1)]

    @torch.no_grad()
    def log_perplexity() -> float:
        losses = [
            cross_entropy(model(part[:, :-1]).mT, part[:, 1:], reduction="sum").double().cpu()
            for part in windows.to(lab.device).split(8)
        ]
        return float(sum(losses)) / windows[:, 1:].numel()

    steps, began = round((1 if heads else LONGER) * config.text_steps), time.process_time()
    for _ in lab.track(training(model, draw, steps, RATES["text"]), "steps"):
        pass
    seconds = time.process_time() - began
    lab.record(log_perplexity=log_perplexity(), parameters=parameters, steps=steps, seconds=seconds)


# ---- what needs no training ------------------------------------------------------------------------------------------


def successors(prompt: list[int], order: int, symbols: int) -> Float[Tensor, "positions symbols"]:
    """The share of each symbol among what followed earlier occurrences of the last tokens, by going through them."""
    rows, counts = [], {}
    for place in range(len(prompt)):
        if place >= order:
            counts.setdefault(tuple(prompt[place - order : place]), [0] * symbols)[prompt[place]] += 1
        here = tuple(prompt[place - order + 1 : place + 1]) if place >= order - 1 else None
        rows.append(list(counts.get(here, [0] * symbols)))
    found = torch.tensor(rows, dtype=torch.float64)
    return found / found.sum(-1, keepdim=True).clamp(min=1)


def strings_of(table: list[list[int]], longest: int) -> set[tuple[int, ...]]:
    """All strings of an automaton up to a length, by going along each."""
    found: set[tuple[int, ...]] = set()
    front = {(): 0}
    for _ in range(longest):
        front = {
            (*string, symbol): following
            for string, state in front.items()
            for symbol, following in enumerate(table[state])
            if following >= 0
        }
        found |= front.keys()
    return found


@study.measure(seeds=3)
def identities(lab: Lab, config: Protocol) -> None:
    """The layer, the languages and the metrics against brute force on random strings and automata."""
    generator, symbols = lab.generator("strings"), 4
    tokens = torch.randint(symbols, (20, 60), generator=generator)
    hot = one_hot(tokens, symbols).double()
    for order in (1, 2, 3):
        expected = torch.stack([successors(prompt, order, symbols) for prompt in tokens.tolist()])
        matrix = ngram_attention(tokens, order, dtype=torch.float64) @ hot
        lab.record(check="counts", error=(matrix - expected).abs().max())
        lab.record(check="counts", error=(ngram_mean(hot, tokens, order) - expected).abs().max())

    layer = NGramHeads(nn.Identity(), 8, generator=generator).double()
    values = torch.randn(20, 60, 8, dtype=torch.float64, generator=generator)
    for place in range(0, 60, 7):
        changed, moved = tokens.clone(), values.clone()
        changed[:, place:] = torch.randint(symbols, (20, 60 - place), generator=generator)
        moved[:, place:] = torch.randn(20, 60 - place, 8, dtype=torch.float64, generator=generator)
        before = (layer(values, tokens) - layer(moved, changed))[:, :place]
        lab.record(check="causal", error=before.abs().max() if place else 0.0)

    family = RandomAutomata(symbols=config.symbols, states=config.states)
    automata = family.sample(500, generator)
    prompts = automata.prompts(config.length, generator, strings=config.strings)
    walked = automata.walk(prompts.tokens)
    lab.record(check="support", error=(walked < 0).sum() + (walked != prompts.states).sum())
    taken = prompts.support.gather(2, prompts.targets.clamp(min=0)[:, :, None])[..., 0]
    lab.record(check="support", error=(~taken & prompts.scored).sum())
    for n in (1, 2, 3):
        off = total_variation(InContextNGram(n - 1)(prompts.tokens, config.symbols), prompts.distribution)
        lab.record(check="distance", error=((off < 0) | (off > 1 + 1e-6)).sum())

    tables = torch.randint(-1, 5, (100, 5, 3), generator=generator)
    tables[:, :, 0] = tables[:, :, 0].clamp(min=0)
    minimal = Automata(tables).minimise().transitions
    pairs = zip(tables.tolist(), minimal.tolist())
    lab.record(check="strings", error=sum(strings_of(a, 6) != strings_of(b, 6) for a, b in pairs))


# ---- claims ----------------------------------------------------------------------------------------------------------


def of_lstm(e: Evidence[Protocol], heads: str, column: str) -> Quantity:
    """A column of the LSTM with some heads, after the last step and over the whole prompt."""
    return e[headed_networks].at(network="lstm", heads=heads, step=e.config.steps, position=-1)[column]


def of_network(e: Evidence[Protocol], network: str, column: str, step: int | None = None) -> Quantity:
    """A column of a network without heads, over the whole prompt; after the last step unless another is named."""
    step = e.config.compared_steps if step is None else step
    return e[plain_networks].at(network=network, step=step, position=-1)[column]


def of_reference(e: Evidence[Protocol], predictor: str) -> Estimate:
    """The mean accuracy over seeds of a predictor that is not trained, over the whole prompt."""
    return mean(e[references].at(predictor=predictor, position=-1)["accuracy"])


@study.claim(reported="large gains in accuracy and distance (section 6)", deviation="LSTM of width 64; 150 steps")
def heads_help(e: Evidence[Protocol]) -> Rule:
    """Heads of orders 1, 2 and 3 lift an LSTM's accuracy by at least 0.15 and bring it nearer by 0.05 or more."""
    gain = mean(of_lstm(e, "1, 2, 3", "accuracy") - of_lstm(e, "no heads", "accuracy"))
    nearer = mean(of_lstm(e, "no heads", "tvd") - of_lstm(e, "1, 2, 3", "tvd"))
    return all_of((gain >= 0.15).named("accuracy"), (nearer >= 0.05).named("total variation")).also(
        **{f"accuracy, {heads}": mean(of_lstm(e, heads, "accuracy")) for heads in ("no heads", "1, 2, 3")},
        **{f"late accuracy, {heads}": mean(of_lstm(e, heads, "late_accuracy")) for heads in ("no heads", "1, 2, 3")},
        **{"accuracy, 3-gram": of_reference(e, "3-gram")},
        **{"accuracy, told states": of_reference(e, "told states")},
    )


@study.claim(reported="transformers ahead of all others (figure 1)", deviation=SMALLER)
def transformer_wins(e: Evidence[Protocol]) -> Rule:
    """After as many steps a transformer is more accurate than an LSTM, by more than 0.05."""
    ahead = mean(of_network(e, "transformer", "accuracy") - of_network(e, "lstm", "accuracy"))
    return (ahead > 0.05).named("accuracy").also(
        **{f"accuracy, {network}": mean(of_network(e, network, "accuracy")) for network in ("transformer", "lstm")},
        **{f"accuracy, {n}-gram": of_reference(e, f"{n}-gram") for n in (2, 3)},
        **{"accuracy, symbols seen": of_reference(e, "symbols seen")},
        steps=exact(e.config.compared_steps),
    )  # fmt: skip


@study.claim(
    reported="n-gram hypothesis (sections 5 and 6)",
    deviation="the control's rows are exchanged among prompts; among positions they would look ahead",
)
def longer_contexts_help_by_matching(e: Evidence[Protocol]) -> Rule:
    """Each further order adds accuracy, and heads that look where another prompt's contexts match add nothing."""
    accuracy = {heads: of_lstm(e, heads, "accuracy") for heads in ORDERS}
    return all_of(
        (mean(accuracy["1"] - accuracy["no heads"]) > 0).named("order 1"),
        (mean(accuracy["1, 2"] - accuracy["1"]) > 0).named("order 2"),
        (mean(accuracy["1, 2, 3"] - accuracy["1, 2"]) > 0).named("order 3"),
        (mean(accuracy["of another prompt"] - accuracy["no heads"]) <= 0.03).named("another prompt's contexts"),
    )


@study.claim(reported="large transformers nearest to smoothed 3-grams (section 5)", deviation="back-off 3-gram")
def transformer_is_nearer_to_ngrams(e: Evidence[Protocol]) -> Rule:
    """The transformer's predictions are nearer to the prompt's 3-gram than the LSTM's are."""
    nearer = mean(of_network(e, "transformer", "from_3_gram") - of_network(e, "lstm", "from_3_gram"))
    return (nearer < 0).named("total variation").also(
        **{
            f"{network} from {n}-gram": mean(of_network(e, network, f"from_{n}_gram"))
            for network in ("transformer", "lstm")
            for n in (2, 3)
        },
        **{f"{network} from the truth": mean(of_network(e, network, "tvd")) for network in ("transformer", "lstm")},
    )  # fmt: skip


@study.claim(
    reported="heads on what followed the same n-gram (figure 4)",
    deviation="attention above chance, as with few symbols a good part of the past is a target",
)
def attention_looks_at_what_followed(e: Evidence[Protocol]) -> Rule:
    """Some head of the trained transformer is a 1-gram head, and none is at initialisation."""
    trained, initial = (mean(of_network(e, "transformer", "head", step)) for step in (None, 0))
    return all_of((trained >= 0.5).named("trained"), (initial <= 0.15).named("initial")).also(
        **{"share of attention, trained": mean(of_network(e, "transformer", "raw_head"))},
        **{"share of attention, initial": mean(of_network(e, "transformer", "raw_head", 0))},
    )


@study.claim(
    reported="-6.7 % perplexity (340M parameters, SlimPajama)",
    deviation="a million parameters, WikiText-2; as many parameters in wider hidden layers, and a tenth more steps",
)
def heads_help_with_text(e: Evidence[Protocol]) -> Rule:
    """With heads a transformer predicts a test text better than with as many parameters and more time without them."""
    without, behind = e[text].at(heads=False), e[text].at(heads=True)
    return (
        (mean(behind["log_perplexity"] - without["log_perplexity"]) < 0)
        .named("nats a token")
        .also(
            **{"perplexity with heads": mean(np.exp(behind["log_perplexity"]))},
            **{"perplexity without": mean(np.exp(without["log_perplexity"]))},
            **{"parameters, with over without": mean(behind["parameters"] / without["parameters"])},
            **{"processor time, with over without": mean(behind["seconds"] / without["seconds"])},
        )
    )


@study.claim(reported="by construction (sections 3 and 6)")
def the_layer_counts(e: Evidence[Protocol]) -> Rule:
    """The layer is counting, reads nothing ahead, prompts stay in the support, minimising keeps every string."""
    errors = e[identities].frame.groupby("check")["error"].max()
    allowed = {
        "counts": (1e-12, "off the frequencies counted one by one"),
        "causal": (1e-12, "change before a changed token"),
        "support": (0, "symbols outside the support"),
        "distance": (0, "distances outside [0, 1]"),
        "strings": (0, "minimal automata with other strings"),
    }
    return all_of(*((exact(errors[check]) <= most).named(what) for check, (most, what) in allowed.items()))


# ---- figures ---------------------------------------------------------------------------------------------------------


REFERENCES = {"2-gram": ":", "3-gram": "-.", "told states": "-"}  # the last is the ceiling


def learning_curves(e: Evidence[Protocol], axes: Axes, curves: dict[str, Table]) -> None:
    """Accuracy over training beside the prompt's n-grams and the ceiling: one who is told the states."""
    for label, rows in curves.items():
        axes.plot(*rows.at(position=-1).curve("step", "accuracy"), "o-", markersize=3, label=label)
    for predictor, style in REFERENCES.items():
        level = of_reference(e, predictor).value
        axes.axhline(level, color="0.4", linewidth=1, linestyle=style, label=predictor)
    axes.set(xlabel="training step", ylabel="accuracy on new languages")
    axes.legend(frameon=False, fontsize="small")


@study.figure
def accuracy_of_an_lstm_with_heads(e: Evidence[Protocol], axes: Axes) -> None:
    """Accuracy over training by the heads' orders, beside the prompt's n-grams and the ceiling."""
    learning_curves(e, axes, dict(e[headed_networks].at(network="lstm").split("heads")))


@study.figure
def accuracy_of_networks(e: Evidence[Protocol], axes: Axes) -> None:
    """Accuracy over training without heads, beside the prompt's n-grams and the ceiling."""
    learning_curves(e, axes, dict(e[plain_networks].split("network")))


@study.figure
def accuracy_in_the_prompt(e: Evidence[Protocol], axes: Axes) -> None:
    """Accuracy by position after training: how fast a language is learnt from its strings."""
    for heads, rows in e[headed_networks].at(network="lstm", step=e.config.steps).split("heads"):
        if heads in ("no heads", "1, 2, 3"):
            axes.plot(*smooth(rows), label="LSTM" if heads == "no heads" else f"LSTM, heads {heads}")
    for predictor, style in REFERENCES.items():
        rows = e[references].at(predictor=predictor)
        axes.plot(*smooth(rows), style, color="0.4", linewidth=1, label=predictor)
    axes.set(xlabel="symbols read", ylabel="accuracy on new languages")
    axes.legend(frameon=False, fontsize="small")


def smooth(rows: Table, window: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Means over a few positions, as each has only as many prompts as are held out."""
    position, accuracy = Table(rows.frame.query("position >= 0")).curve("position", "accuracy")
    count = len(position) // window * window
    return tuple(values[:count].reshape(-1, window).mean(1) for values in (position, accuracy))
