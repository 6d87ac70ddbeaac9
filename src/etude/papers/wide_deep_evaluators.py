"""Does a wide and deep panel of language models judge responses more fairly than one model?

Width and depth are measured on recorded judgments: six models, each prompted in eight ways and in both orders (width),
and again with its own two reviews before it where these disagree (depth). The ways of prompting are variants that
Zeng et al. wrote, not roles that a model proposed. The recording is first held against the counts that its authors
published; a study of data that do not reproduce them stops. Whether different roles beat the same role as often is
measured with small judges trained here, on responses whose every defect is known; a judge of 135M weights runs live.

What the recording cannot tell: each prompt was asked once an order, so there is no same prompt, asked again, to
compare width with at equal cost. In the world of known defects there is. The second look was taken only where the
first looks of the two orders disagreed, so it can only raise the agreement with itself; the claim compares it with
another strategy (chain of thought), and shows beside it how often a disagreement was settled, and how often rightly.

The trained judges see 3,000 comparisons. Two baselines have one role: five trainings on the same labels, and five
judges each with 3,000 labels of its own, which are as many labels as the five aspects have together. Learning rates
(0.003 for aspects, 0.0002 for judges of everything) are the best of five, from 0.0002 to 0.01, by validation loss on
seeds 101 and 102; every judge is left at its own best epoch. The panel is a plain mean of scores, as in the paper,
while the world weighs defects unequally; what weights learnt from the validation comparisons bring, and how it is
where all defects count the same, is shown beside. The live judge answers A or B, so that a liking for a letter and
one for a position are one thing, and reads 300 characters of the question and of each response. `paper` asks an
endpoint for reviews with roles that it proposes, two layers and both orders, beside the baselines at as many calls,
on 885 comparisons: the whole benchmark of the paper (2,553) is not public. It needs no GPU, and some 80,000 requests.

What was learnt: different roles did take the correlation away (from .91 to none), and a panel of judges that are right
64 % of the time is right 86 % of the time. But one judge of everything, trained on as many comparisons, was right 87 %
of the time by itself. A plain mean counts a slip of grammar like a wrong fact; with learnt weights, or where all
defects count the same, the panel is ahead, by little more than a point. So low correlation is no end in itself: what
it saves is spent where every judge must know less. On items made to mislead, what helps weak judges is no further
judge but a few labels: weights learnt on half of the items turn judges that are reliably wrong round (benchmarks).
The live judge took the response shown first 99 times in 100; with both orders averaged it was right half of the time:
swapping removes a bias, and shows that nothing was behind it.

Source: Zhang et al., 2023 (arXiv 2308.01862), sections 3 and 5; recorded judgments of Zeng et al., ICLR 2024
(arXiv 2310.07641).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import f1_score
from torch import Tensor

from etude.data import Comparison, ResponseWorld, WorldComparisons, recorded_comparisons, recorded_judgments
from etude.data.response_world import DEFECTS, WEIGHTS
from etude.language import Stored, language_model
from etude.language.aspect_judges import AspectJudges, fit_judges, hashed
from etude.language.judge_bias import role_weights, winners_of
from etude.language.juries import Judge, LogprobJudge, WideDeep, baseline
from etude.language.model import Completion, LanguageModel, Message, Reply, Sampling, Usage
from etude.language.voting import (
    cohen_kappa,
    effective_judges,
    majority_accuracy,
    majority_chances,
    majority_vote,
    mean_correlation,
)
from etude.study import (
    Axes,
    Config,
    Evidence,
    Lab,
    Paper,
    Quantity,
    Rule,
    Study,
    Table,
    all_of,
    count_of,
    exact,
    grid,
    mean,
    outside,
    within,
)

JUDGES = ("GPT-4", "PaLM2", "ChatGPT-0301", "ChatGPT", "LLaMA2", "Falcon")
STRATEGIES = (
    *("Vanilla", "Vanilla_NoRules", "CoT", "Metrics", "Reference", "Metrics_Reference"),
    *("Vanilla_1shot", "Vanilla_2shot"),
)
ADVERSARIAL = ("Neighbor", "GPTInst", "GPTOut", "Manual")
WEAK = 0.45  # judges whose single accuracy is below this are those that width should hurt
PUBLISHED = {
    "GPT-4": (189, 91), "PaLM2": (146, 64), "ChatGPT-0301": (164, 74), "ChatGPT": (148, 64), "LLaMA2": (151, 67),
    "Falcon": (114, 14),
}  # fmt: skip
"""Chain of thought on Natural: right judgments of both orders, and items with the same winner in both (statistics.json
of the recording's authors)."""


class Protocol(Config):
    """How much is judged and drawn."""

    live_model: str = "local"
    """The model of the live judge, as `etude.language.language_model` names it."""
    model: str = "endpoint:gpt-3.5-turbo"
    """The model of the prompted jury."""
    characters: int = 300
    """What the live judge reads of a question and of each response."""
    live: int = 200
    """Comparisons of LLMEval^2 that the live judge sees in both orders."""
    exchanged: int = 500
    """Comparisons whose exchange is checked, for each of four juries."""
    train: int = 3_000
    """Comparisons that trained judges learn from."""
    validation: int = 500
    """Comparisons that say when they have learnt."""
    test: int = 2_000
    """Comparisons that they are measured on."""
    epochs: int = 16
    """Passes over the training comparisons."""
    draws: int = 100_000
    """Draws of the simulation."""
    panel_sets: tuple[str, ...] = ("FairEval", "LLMEval^2", "MT-Bench", "Natural", *ADVERSARIAL)
    """Sets that a prompted jury judges."""
    panel_items: int = 1_000
    """The most comparisons of each."""
    panel_roles: int = 6
    """The most roles that it proposes."""


study = Study(
    paper=Paper(
        "Wider and Deeper LLM Networks are Fairer LLM Evaluators",
        "Xinghua Zhang, Bowen Yu, Haiyang Yu, Yangyu Lv, Tingwen Liu, Fei Huang, Hongbo Xu, Yongbin Li",
        2023,
        "2308.01862",
    ),
    topic="language",
    presets={
        "smoke": Protocol(
            live_model="stand-in", model="stand-in", live=4, exchanged=4, train=60, validation=20, test=40, epochs=1,
            draws=2_000, panel_sets=("FairEval",), panel_items=3, panel_roles=2, seeds=2,
        ),
        "laptop": Protocol(),
        "extended": Protocol(characters=1_200, exchanged=2_000, draws=1_000_000, seeds=20),
        "paper": Protocol(characters=1_200, exchanged=2_000, draws=1_000_000, seeds=20),
    },
)  # fmt: skip


class StandIn(LanguageModel):
    """A model whose answers follow from a prompt's hash: no judge, but as dependent on order as one can be."""

    def __init__(self) -> None:
        super().__init__("stand-in")

    def _generate(
        self, prompts: Sequence[Sequence[Message]], n: int, sampling: Sampling
    ) -> Iterator[tuple[int, Reply]]:
        for i, messages in enumerate(prompts):
            scores = [[1 + int(9.99 * hashed_number(messages, sampling.seed, k, s)) for s in (1, 2)] for k in range(n)]
            replies = [f"Score of response 1: {one}\nScore of response 2: {other}" for one, other in scores]
            roles = "\n$\nAccuracy\nStyle\n&"
            yield i, Reply([Completion(reply + roles, 1) for reply in replies], Usage(1))

    def _score(self, prompt: Sequence[Message], continuations: Sequence[str]) -> Reply:
        return Reply([4 * hashed_number(prompt, text) - 5 for text in continuations], Usage(1))


def hashed_number(*parts: object) -> float:
    """A number in [0, 1) that is always the same for the same parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big") / 2**48


def named(model: str) -> LanguageModel:
    """The model that a configuration names."""
    return StandIn() if model == "stand-in" else language_model(model)


# ---- judgments that real models made ---------------------------------------------------------------------------------


def llmbar() -> pd.DataFrame:
    """The last word of each strategy on LLMBar's five sets, held against what its authors published."""
    frame = recorded_judgments()
    frame = frame[frame["last"] & frame["set"].isin(["Natural", *ADVERSARIAL])]
    for judge, (right, equal) in PUBLISHED.items():
        rows = frame[(frame["set"] == "Natural") & (frame["judge"] == judge) & (frame["strategy"] == "CoT")]
        agreed = rows.groupby("item")["winner"].nunique() == 1
        counted = (int((rows["winner"] == rows["gold"]).sum()), int(agreed.sum()))
        if counted != (right, equal):
            raise RuntimeError(f"the recording gives {counted} for {judge}, where its authors give {(right, equal)}")
    return frame


def votes_of(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, pd.Index]:
    """All of one judge's judgments as votes (0, 1, and -1 where unreadable), with gold labels and items."""
    rows = rows[rows["strategy"].isin(STRATEGIES)]
    wide = rows.pivot(index=["item", "gold"], columns=["strategy", "swapped"], values="winner")
    gold, items = (wide.index.get_level_values(name) for name in ("gold", "item"))
    return np.where(wide > 0, wide - 1, -1).astype(int), gold.to_numpy() - 1, items


@study.measure(seeds=1)
def width(lab: Lab, config: Protocol) -> None:
    """Each judge on each item: how often a single judgment is right, and whether the majority of all is."""
    for (name, judge), rows in llmbar().groupby(["set", "judge"], sort=False):
        votes, gold, items = votes_of(rows)
        majority = majority_vote(votes, ties="none")
        single = (votes == gold[:, None]).sum(1) / np.maximum((votes >= 0).sum(1), 1)
        # A tie is broken by a fair coin.
        table = pd.DataFrame(
            {"item": items, "single": single, "majority": np.where(majority < 0, 0.5, majority == gold)}
        )
        agreement = {
            "kappa_single": np.mean([cohen_kappa(column, gold) for column in votes.T]),
            "kappa_majority": cohen_kappa(majority, gold),
            "f1_single": np.mean([f1_score(gold, column, labels=[0, 1], average="macro") for column in votes.T]),
            "f1_majority": f1_score(gold, majority, labels=[0, 1], average="macro"),
            "effective": effective_judges(votes, gold),
        }
        lab.record(table, set=name, judge=judge, **agreement)


@study.measure(seeds=1)
def width_curves(lab: Lab, config: Protocol) -> None:
    """Accuracy of a majority of so many judgments of one judge, drawn from all of its strategies and orders."""
    frame = llmbar()
    frame = frame.assign(group=np.where(frame["set"] == "Natural", "Natural", "adversarial"))
    for (group, judge), rows in frame.groupby(["group", "judge"], sort=False):
        votes, gold, _ = votes_of(rows)
        sizes = range(1, votes.shape[1] + 1, 2)
        chances = majority_chances(votes, gold, sizes, generator=lab.generator(f"{group}, {judge}", "numpy"), draws=50)
        for size, accuracy in zip(sizes, chances.mean(0)):
            lab.record(group=group, judge=judge, size=size, accuracy=accuracy)


@study.measure(seeds=1)
def depth(lab: Lab, config: Protocol) -> None:
    """Each judge on each item: does it say the same in both orders, with one look and with a second one?"""
    last = llmbar()
    frame = recorded_judgments()
    first = frame[(frame["strategy"] == "Swap") & (frame["layer"] == 1)]
    looks = {
        "one look": last[last["strategy"] == "CoT"],
        "two looks": last[last["strategy"] == "Swap"],
        "first of two": first[first["set"].isin(["Natural", *ADVERSARIAL])],
    }
    for name, rows in looks.items():
        rows = rows.assign(order=np.where(rows["swapped"], "exchanged", "numbered"))
        wide = rows.pivot(index=["set", "item", "judge", "gold"], columns="order", values="winner").reset_index()
        wide = wide[(wide["numbered"] > 0) & (wide["exchanged"] > 0)]  # an unreadable reply agrees with nothing
        same = (wide["numbered"] == wide["exchanged"]).astype(float)
        right = ((wide["numbered"] == wide["gold"]).astype(float) + (wide["exchanged"] == wide["gold"])) / 2
        lab.record(wide[["set", "item", "judge"]].assign(same=same, right=right), look=name)


# ---- judges trained here ---------------------------------------------------------------------------------------------

ARMS = {"different roles": 3e-3, "different roles, a fifth of the labels": 3e-3, "same role": 2e-4,
        "same role, own labels": 2e-4}  # fmt: skip
"""The panels of five, with the learning rate of each."""


def features(judges: AspectJudges, drawn: WorldComparisons) -> tuple[Tensor, Tensor]:
    """Features of the first and of the second responses."""
    questions = [comparison.question for comparison in drawn.comparisons]
    first, second = ([getattr(c, side) for c in drawn.comparisons] for side in ("a", "b"))
    return hashed(judges.buckets, questions, first), hashed(judges.buckets, questions, second)


def stacked(parts: list[Tensor]) -> Tensor:
    """Features of several sets of comparisons, one above the other."""
    longest = max(part.shape[1] for part in parts)
    return torch.stack([torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in parts])


def trained(lab: Lab, config: Protocol, arm: str, world: ResponseWorld, epochs: int) -> AspectJudges:
    """A panel of five judges, trained on what its arm is given."""
    different, n = arm.startswith("different"), len(DEFECTS)
    names = list(DEFECTS) if different else [f"judge {number}" for number in range(n)]
    judges = AspectJudges(names, generator=lab.generator("weights"))
    own = arm not in ("different roles", "same role")
    count = config.train // n if "fifth" in arm else config.train
    sets = [world.sample(count, lab.generator(f"train {i}", "numpy")) for i in range(n if own else 1)]
    parts = [features(judges, drawn) for drawn in sets]
    first, second = (stacked([part[side] for part in parts]) if own else parts[0][side] for side in (0, 1))

    def labels(drawn: WorldComparisons) -> Tensor:
        return torch.from_numpy(drawn.aspects if different else np.repeat(drawn.labels[:, None], n, 1))

    better = torch.stack([labels(drawn)[:, i] for i, drawn in enumerate(sets)], 1) if own else labels(sets[0])
    held_out = world.sample(config.validation, lab.generator("validation", "numpy"))
    fit_judges(
        judges, (first, second, better), (*features(judges, held_out), labels(held_out)),
        epochs=epochs * (n if "fifth" in arm else 1), batch=50, lr=ARMS[arm], generator=lab.generator("order"),
    )  # fmt: skip
    return judges


WORLDS = {"unequal": WEIGHTS, "equal": dict.fromkeys(DEFECTS, 1.0)}
"""How much each defect counts for the better response."""


@study.measure(over=lambda config: grid(arm=list(ARMS), defects=list(WORLDS)))
def roles(lab: Lab, config: Protocol, *, arm: str, defects: str) -> None:
    """A panel of five trained judges: how often it is right, and how far its judges err together."""
    world = ResponseWorld(weights=WORLDS[defects], seed=lab.seed)
    judges = trained(lab, config, arm, world, config.epochs)
    jury = WideDeep(judges, 1, judges.aspects)
    held_out, test = (world.sample(n, lab.generator(part, "numpy")) for n, part in parts_of(config))
    learnt = role_weights(jury.judge_many(held_out.comparisons), held_out.labels)
    weighted = WideDeep(judges, 1, judges.aspects, weights=list(learnt.values()))
    accuracies = [
        float((winners_of(panel.judge_many(test.comparisons)) == test.labels).mean()) for panel in (jury, weighted)
    ]
    with torch.no_grad():
        margins = judges(*features(judges, test)).double().numpy()
    # Towards the truth: what judges share by being right on easy items and wrong on hard ones.
    towards = margins * np.where(test.labels == 1, 1, -1)[:, None]
    lab.record(
        accuracy=accuracies[0],
        accuracy_weighted=accuracies[1],
        single=float((towards > 0).mean()),
        correlation=mean_correlation(towards),
        error_correlation=mean_correlation((towards > 0).astype(float)),
    )


def parts_of(config: Protocol) -> list[tuple[int, str]]:
    """How many comparisons are held out, and for what."""
    return [(config.validation, "validation"), (config.test, "test")]


@study.measure(seeds=1, over=lambda config: grid(judged_by=["trained", "log-prob"], connect=["full", "window"]))
def exchange(lab: Lab, config: Protocol, *, judged_by: str, connect: Literal["full", "window"]) -> None:
    """By how much the margins of a comparison and of the exchanged one fail to cancel, in juries of two layers."""
    world = ResponseWorld(seed=lab.seed)
    judge: Judge = LogprobJudge(StandIn())
    if judged_by == "trained":
        # In double precision, and with a liking for the first position and for colleagues that has to cancel.
        judge = trained(lab, config, "different roles", world, epochs=1).double()
        judge.conformity = 0.3
        judge.position.data.normal_(generator=lab.generator("positions"))
    jury = WideDeep(judge, 2, DEFECTS, connect=connect)
    drawn = world.sample(config.exchanged, lab.generator("exchange", "numpy")).comparisons
    there, back = (jury.judge_many(side) for side in (drawn, [comparison.exchanged() for comparison in drawn]))
    for one, other in zip(there, back):
        assert one is not None
        assert other is not None
        lab.record(error=abs(one.margin + other.margin), margin=one.margin, flips=one.p_position_flip)


@study.measure(seeds=1, over=lambda config: grid(n=[1, 2, 4, 8, 16], rho=[0.0, 0.3, 0.6]))
def equicorrelated(lab: Lab, config: Protocol, *, n: int, rho: float) -> None:
    """The mean of n normal judges whose pairs correlate by rho; the majority of n, each right with probability 0.7."""
    draws = lab.generator(f"{n} judges at {rho}", "numpy")
    shared, own = draws.normal(size=(config.draws, 1)), draws.normal(size=(config.draws, n))
    values = math.sqrt(rho) * shared + math.sqrt(1 - rho) * own
    variance, expected = values.mean(1).var(), rho + (1 - rho) / n
    lab.record(quantity="variance", value=variance, expected=expected, error=variance / expected - 1)
    if rho == 0:
        right = draws.random((config.draws, n)) < 0.7
        ties, won = 2 * right.sum(1) == n, 2 * right.sum(1) > n
        accuracy, exactly = (won + 0.5 * ties).mean(), majority_accuracy(n, 0.7)
        deviation = (won + 0.5 * ties).std() / math.sqrt(config.draws)
        lab.record(quantity="majority", value=accuracy, expected=exactly, error=(accuracy - exactly) / deviation)


# ---- live judges -----------------------------------------------------------------------------------------------------

PARTS = 4


@study.measure(seeds=1, over=lambda config: grid(part=list(range(PARTS))))
def live(lab: Lab, config: Protocol, *, part: int) -> None:
    """A small model asked which of two responses is better, in both orders, and the jury that swaps."""
    judge = LogprobJudge(Stored(config.live_model, lab.cached, named), most_characters=config.characters)
    jury, once = WideDeep(judge, 1, [""]), WideDeep(judge, 1, [""], swap=False)
    comparisons = recorded_comparisons("LLMEval^2")[: config.live]
    for item in lab.track(range(part, len(comparisons), PARTS), "comparisons"):
        comparison = comparisons[item]
        both = [once.judge(comparison), once.judge(comparison.exchanged())]
        swapped = [jury.judge(comparison), jury.judge(comparison.exchanged())]  # nothing is asked again
        lab.record(
            item=item,
            first=np.mean([won(verdict.winner) for verdict in both]),
            first_swapped=np.mean([won(verdict.winner) for verdict in swapped]),
            right=np.mean([verdict.winner == label for verdict, label in zip(both, labels_of(comparison))]),
            right_swapped=np.mean([verdict.winner == label for verdict, label in zip(swapped, labels_of(comparison))]),
            margin=both[0].margin,
            error=abs(swapped[0].margin + swapped[1].margin),
        )


def won(winner: int | None) -> float:
    """1 if the first response won, 1/2 for a tie."""
    return {1: 1.0, 0: 0.5}.get(-1 if winner is None else winner, 0.0)


def labels_of(comparison: Comparison) -> tuple[int | None, int | None]:
    """The right winner of a comparison and of the exchanged one."""
    return comparison.label, comparison.exchanged().label


@study.measure(seeds=1, since="paper", over=lambda config: grid(name=list(config.panel_sets)))
def panel(lab: Lab, config: Protocol, *, name: str) -> None:
    """The paper's own jury, with roles that the model proposes, beside judges without roles at as many calls."""
    model = Stored(config.model, lab.cached, named)
    comparisons = recorded_comparisons(name)[: config.panel_items]
    seed = lab.generator("replies").initial_seed() % 2**31
    wide = WideDeep(model, 2, "auto", max_roles=config.panel_roles, seed=seed)
    verdicts = {"wide and deep": wide.judge_many(comparisons)}
    calls = 2 * math.ceil(np.mean([verdict.calls for verdict in verdicts["wide and deep"] if verdict]) / 2)
    juries = {
        "single": baseline(model, "single", seed=seed),
        "swap": baseline(model, "fair-eval", calls=2, seed=seed),
        "FairEval": baseline(model, "fair-eval", calls=calls, seed=seed),
        "vote": baseline(model, "vote", calls=calls, seed=seed),
        "wide": WideDeep(model, 1, "auto", max_roles=config.panel_roles, seed=seed),
    }
    verdicts |= {kind: jury.judge_many(comparisons) for kind, jury in juries.items()}
    gold = np.array([comparison.label for comparison in comparisons])
    for kind, given in verdicts.items():
        winners = winners_of(given)
        table = pd.DataFrame({"item": [f"{name}/{i}" for i in range(len(gold))], "winner": winners, "gold": gold})
        flips = [math.nan if verdict is None else verdict.p_position_flip for verdict in given]
        calls_made = [0 if verdict is None else verdict.calls for verdict in given]
        unread = [0 if verdict is None else verdict.unread for verdict in given]
        lab.record(table.assign(flips=flips, calls=calls_made, unread=unread), jury=kind)


# ---- claims ----------------------------------------------------------------------------------------------------------


def gains(table: Table) -> Quantity:
    """Majority minus single judgment, one number an item: the mean over judges."""
    rows = table.frame
    return Table(rows.assign(gain=rows["majority"] - rows["single"])).per("item").mean("gain")


def natural(e: Evidence[Protocol]) -> Table:
    """The set of items that were not made to mislead."""
    return e[width].at(set="Natural")


def weak(e: Evidence[Protocol]) -> Table:
    """Adversarial items, and judges that are right on them less often than `WEAK` when asked once."""
    rows = e[width].at(set=ADVERSARIAL)
    accuracies = rows.frame.groupby("judge")["single"].mean()
    return rows.at(judge=list(accuracies.index[accuracies < WEAK]))


@study.claim(reported="by design (section 3)")
def exchange_negates_the_margin(e: Evidence[Protocol]) -> Rule:
    """With both orders averaged, exchanging the responses negates the margin, whatever judges and connections."""
    rows = e[exchange].frame
    return (
        (exact(rows["error"].max()) < 1e-9)
        .named("largest sum of two margins that should cancel")
        .also(**{"verdicts": exact(len(rows)), "share of judges that a position sways": exact(rows["flips"].mean())})
    )


@study.claim(
    reported="kappa 0.28 to 0.34 (LLMEval^2, gpt-3.5-turbo)",
    deviation="eight ways of prompting instead of roles that the model proposed; 100 items of LLMBar Natural",
)
def width_helps_competent_judges(e: Evidence[Protocol]) -> Rule:
    """On natural items the majority over ways of prompting is right more often than one judgment, for most judges."""
    rows = natural(e)
    judges = {judge: mean(gains(rows.at(judge=judge))) for judge in JUDGES}
    pairs = {"kappa": "kappa", "macro-F1": "f1"}
    frame = rows.frame.groupby("judge").mean(numeric_only=True)
    each = count_of([(gain > 0).named(judge) for judge, gain in judges.items()], at_least=4)
    return all_of(each.named("gain of accuracy"), (mean(gains(rows)) > 0).named("gain of all judges")).also(
        **{
            f"{judge}, {name} of {words}": exact(frame.loc[judge, f"{column}_{which}"])
            for judge in JUDGES
            for name, column in pairs.items()
            for which, words in (("single", "one"), ("majority", "the majority"))
        },
        **{f"{judge}, worth in judgments": exact(frame.loc[judge, "effective"]) for judge in JUDGES},
        **{"ChatGPT-0301, accuracy of one": exact(frame.loc["ChatGPT-0301", "single"])},
        **{"ChatGPT-0301, accuracy of the majority": exact(frame.loc["ChatGPT-0301", "majority"])},
    )  # fmt: skip


@study.claim(reported="not in the paper")
def width_hurts_below_one_half(e: Evidence[Protocol]) -> Rule:
    """On items made to mislead, judges that alone are right less than 45 % of the time lose by the majority."""
    rows = weak(e)
    judges = dict(rows.split("judge"))
    return (
        (mean(gains(rows)) < 0)
        .named("gain of accuracy")
        .also(
            **{f"on {name}": mean(gains(part)) for name, part in rows.split("set")},
            **{str(judge): mean(gains(part)) for judge, part in judges.items()},
            **{f"{judge} alone": exact(part.frame["single"].mean()) for judge, part in judges.items()},
            **{f"{judge}, worth in judgments": exact(part.frame["effective"].mean()) for judge, part in judges.items()},
        )
    )


def by_item(e: Evidence[Protocol], look: str, column: str, judge: str) -> Quantity:
    """A column of the items that a judge can be read on, with one look and with two."""
    rows = e[depth].at(judge=judge)
    both = set.intersection(*(set(rows.at(look=name).frame["item"]) for name in ("one look", "two looks")))
    return rows.at(look=look, item=both).per("item")[column]


def of_two(e: Evidence[Protocol], judge: str) -> pd.DataFrame:
    """The items on which a judge's first looks disagreed, with what the second look made of them."""
    rows = e[depth].at(judge=judge)
    first, last = (rows.at(look=look).frame.set_index("item") for look in ("first of two", "two looks"))
    apart = first.index[first["same"] == 0].intersection(last.index)
    return last.loc[apart]


@study.claim(
    reported="two layers are best (section 5)",
    deviation="two layers of one judge, recorded; the second sees its own reviews where they disagree",
)
def depth_reduces_position_dependence(e: Evidence[Protocol]) -> Rule:
    """With a second look the winner is the same in both orders more often, for at least five of six judges."""
    same = {j: mean(by_item(e, "two looks", "same", j) - by_item(e, "one look", "same", j)) for j in JUDGES}
    right = {j: mean(by_item(e, "two looks", "right", j) - by_item(e, "one look", "right", j)) for j in JUDGES}
    settled = {j: of_two(e, j) for j in JUDGES}
    return count_of([(gain > 0).named(j) for j, gain in same.items()], at_least=5).also(
        **{f"{j}, gain of accuracy": gain for j, gain in right.items()},
        **{f"{j}, disagreements settled": exact(rows["same"].mean()) for j, rows in settled.items()},
        **{f"{j}, settled rightly": exact(rows[rows["same"] == 1]["right"].mean()) for j, rows in settled.items()},
    )


@study.claim(
    reported="sample-specific roles are best (section 5)",
    deviation="five trained judges of one aspect each, on responses with known defects",
)
def different_roles_beat_one_role_repeated(e: Evidence[Protocol]) -> Rule:
    """Five judges of different aspects are right more often than five of one role, and err less together."""
    arms = dict(e[roles].at(defects="unequal").split("arm"))
    alike = dict(e[roles].at(defects="equal").split("arm"))
    different, same, own = (arms[arm] for arm in ("different roles", "same role", "same role, own labels"))
    fifth = arms["different roles, a fifth of the labels"]
    return all_of(
        (mean(different["accuracy"] - same["accuracy"]) > 0.02).named("accuracy, over five trainings"),
        (mean(different["accuracy"] - own["accuracy"]) > 0.02).named("accuracy, over as many labels"),
        (mean(different["correlation"] - same["correlation"]) < 0).named("correlation of judges"),
    ).also(
        **{f"accuracy, {arm}": mean(rows["accuracy"]) for arm, rows in arms.items()},
        **{f"correlation, {arm}": mean(rows["correlation"]) for arm, rows in arms.items()},
        **{"accuracy of one judge, same role": mean(same["single"])},
        **{"a fifth of the labels, over five trainings": mean(fifth["accuracy"] - same["accuracy"])},
        **{
            f"{kind}, over {arm}": mean(rows["different roles"][column] - rows[arm]["accuracy"])
            for kind, rows, column in (
                ("learnt weights", arms, "accuracy_weighted"),
                ("defects that count the same", alike, "accuracy"),
            )
            for arm in ("same role", "same role, own labels")
        },
    )


@study.claim(reported="closed form")
def variance_follows_correlation(e: Evidence[Protocol]) -> Rule:
    """The variance of a mean of n judges is s^2 (rho + (1 - rho) / n), and independent majorities are binomial."""
    errors = {name: rows.frame["error"].abs().max() for name, rows in e[equicorrelated].split("quantity")}
    return all_of(
        (exact(errors["variance"]) < 0.02).named("largest relative error of the variance"),
        (exact(errors["majority"]) <= 3).named("largest error of the majority, in standard errors"),
    )


@study.claim(
    reported="91 % for the first position (ChatGPT, FairEval)",
    deviation="SmolLM2-135M by the probability of a letter, on cut texts",
)
def swapping_removes_the_liking_for_a_position(e: Evidence[Protocol]) -> Rule:
    """A model of 135M weights prefers a position; averaging both orders leaves exactly none of it."""
    rows = e[live].per("item")
    return all_of(
        outside(mean(rows["first"]), 0.45, 0.55).named("rate of the first position"),
        within(exact(rows["first_swapped"].mean()), 0.5, 0.5).named("rate with both orders averaged"),
    ).also(
        **{"accuracy in one order": mean(rows["right"])},
        **{"accuracy with both averaged": mean(rows["right_swapped"])},
        **{"largest sum of margins that should cancel": exact(rows["error"].max())},
    )


def read_by_all(e: Evidence[Protocol]) -> Table:
    """Items on which every jury has a verdict."""
    rows = e[panel].frame
    unread = rows.loc[rows["winner"] < 0, "item"]
    return Table(rows[~rows["item"].isin(unread)])


@study.claim(
    reported="kappa 0.28 to 0.34 (LLMEval^2), and accuracy on FairEval and PandaLM",
    deviation="without ties; the parts of the benchmarks that LLMBar's authors published",
)
def wide_and_deep_juries_agree_more_with_people(e: Evidence[Protocol]) -> Rule:
    """A prompted jury with roles and two layers is right more often than FairEval's at as many calls."""
    rows = read_by_all(e)
    rows = Table(rows.frame.assign(right=(rows.frame["winner"] == rows.frame["gold"]).astype(float)))
    juries = dict(rows.split("jury"))
    right = {kind: part.per("item")["right"] for kind, part in juries.items()}
    kappas = {
        kind: cohen_kappa(part.frame["winner"].to_numpy(), part.frame["gold"].to_numpy())
        for kind, part in juries.items()
    }
    return (
        (mean(right["wide and deep"] - right["FairEval"]) > 0)
        .named("accuracy over FairEval at as many calls")
        .also(
            **{f"kappa, {kind}": exact(kappa) for kind, kappa in kappas.items()},
            **{f"accuracy, {kind}": mean(values) for kind, values in right.items()},
            **{f"calls, {kind}": exact(part.frame["calls"].mean()) for kind, part in juries.items()},
        )
    )


# ---- figures ---------------------------------------------------------------------------------------------------------


@study.figure
def width_on_natural_and_adversarial_items(e: Evidence[Protocol], axes: Axes) -> None:
    """Accuracy of a majority against that of a single judgment: width amplifies what a judge is already."""
    for name, marker in (("Natural", "o"), *zip(ADVERSARIAL, "sD^v")):
        means = e[width].at(set=name).frame.groupby("judge")[["single", "majority"]].mean()
        axes.plot(means["single"], means["majority"], marker, label=name, alpha=0.8)
    axes.plot([0.15, 1], [0.15, 1], ":", color="0.5", linewidth=1, label="no gain")
    axes.axvline(0.5, color="0.8", linewidth=1)
    axes.set(xlabel="accuracy of one judgment", ylabel="accuracy of the majority")
    axes.legend(frameon=False, fontsize="small", loc="lower right")


@study.figure
def accuracy_by_width(e: Evidence[Protocol], axes: Axes) -> None:
    """Accuracy of the majority by the number of judgments: natural items (solid) and those made to mislead (dashed)."""
    for place, judge in enumerate(JUDGES):
        for group, style in (("Natural", "-"), ("adversarial", "--")):
            rows = e[width_curves].at(group=group, judge=judge)
            axes.plot(*rows.curve("size", "accuracy"), style, color=f"C{place}", label=judge if style == "-" else None)
    axes.axhline(0.5, color="0.8", linewidth=1)
    axes.set(xlabel="judgments in the majority", ylabel="accuracy", xlim=(0.5, 26), xticks=range(1, 16, 2))
    title = "solid: Natural\ndashed: adversarial"
    axes.legend(frameon=False, fontsize="small", title=title, title_fontsize="small", loc="center right")


@study.figure
def agreement_by_depth(e: Evidence[Protocol], axes: Axes) -> None:
    """Share of items with the same winner in both orders, with one look and with two; a dot a set of items."""
    for place, judge in enumerate(JUDGES):
        rows = e[depth].at(judge=judge)
        for look, colour, shift in (("one look", "C1", -0.12), ("two looks", "C0", 0.12)):
            shares = rows.at(look=look).frame.groupby("set")["same"].mean()
            label = look if place == 0 else None
            axes.plot([place + shift] * len(shares), shares, "o", color=colour, alpha=0.7, label=label)
    axes.set_xticks(range(len(JUDGES)), JUDGES)
    axes.set(xlabel="judge", ylabel="same winner in both orders", ylim=(0, 1.15))
    axes.legend(frameon=False, fontsize="small", ncols=2, loc="upper right")


@study.figure
def variance_by_width(e: Evidence[Protocol], axes: Axes) -> None:
    """Variance of the mean of n judges: what they share does not go away."""
    rows = e[equicorrelated].at(quantity="variance")
    for place, (rho, part) in enumerate(rows.split("rho")):
        axes.loglog(*part.curve("n", "value"), "o", color=f"C{place}", label=f"correlation {rho:g}")
        axes.loglog(*part.curve("n", "expected"), "-", color=f"C{place}", linewidth=1)
    axes.set(xlabel="judges", ylabel="variance of their mean", xticks=[1, 2, 4, 8, 16], xticklabels=[1, 2, 4, 8, 16])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize="small", loc="lower left")


@study.figure
def panels_of_trained_judges(e: Evidence[Protocol], axes: Axes) -> None:
    """Accuracy of a panel against the correlation of its judges; a dot a seed."""
    for place, (arm, rows) in enumerate(e[roles].at(defects="unequal").split("arm")):
        axes.plot(rows["correlation"], rows["accuracy"], "o", color=f"C{place}", label=arm)
        if arm == "different roles":
            axes.plot(
                rows["correlation"], rows["accuracy_weighted"], "x", color=f"C{place}", label="with learnt weights"
            )
    axes.set(xlabel="correlation of two judges", ylabel="accuracy of the panel")
    axes.legend(frameon=False, fontsize="small", loc="lower center")
