"""Does it help to put a rule into words and into a program before answering?

A solver sees a few inputs with their outputs and predicts the output for another input: directly; by programs, of which
one that reproduces all training pairs answers; or by hypotheses, each implemented by several programs (hypothesis
search). What each number was measured on:

- *Recorded*: the programs that GPT-4 wrote for 94 of 100 tasks of ARC (grids), run again in our sandbox. The published
  flags of each program are what the outcome is compared with. Two of them need ``scipy.stats.mode`` to answer as it did
  before SciPy 1.11, and get it.
- *A small language model*: the embedded one of 135 million weights is asked for answers, programs and hypotheses for a
  task of each type of 1D-ARC and for as many real list functions, with few and short samples. It shows whether a
  language model that runs on a laptop could stand in for GPT-4.
- *Trained here*: as it cannot, networks of about half a million weights, trained on generated tasks of list functions,
  take its place. They are not language models: a hypothesis is
  the sequence of steps in words, without constants. All arms have one architecture, the same tasks and the same number
  of steps; the arm with hypotheses has two networks of half the weights each. Tasks to be solved are compositions of
  steps that no training task has, with longer test lists. The direct arm is trained on test lists of that length, and
  the most frequent of 64 answers counts, so that all arms draw as many samples. Training is short and far from
  converged; the dossier's size is `extended`.
- *Attacks*: the sandbox's whole public catalogue.
- *Asked*: with ``--model endpoint:...`` (preset `paper`) the paper's protocol is run with a language model on ARC,
  1D-ARC and list functions: one direct answer at temperature 0.5; 64 programs at 0.7; 64 hypotheses at 1.0, summarised
  to 8, with 8 programs each and three rounds of feedback (1D-ARC: 80 programs; 16 hypotheses with 4 programs, no
  feedback). The paper's prompts are followed in content, not in wording, and show no solved tasks: the two of the paper
  come with descriptions that are not at hand. Its string tasks (SyGuS) are not at hand either. It takes about 130 calls
  of 1,000 to 3,000 tokens a task, some ten million tokens in all, and no accelerator.

The learning rates of programs and of direct answers were chosen among 0.001, 0.002 and 0.004 on another seed (102), by
the share of solved tasks of compositions that are trained on. The direct network learns more slowly than the others; at
equal steps it is compared before it has learnt what it could.

Source: Wang, Zelikman, Poesia, Pu, Haber and Goodman, ICLR 2024 (arXiv 2309.05660), sections 2 and 3.
"""

from __future__ import annotations

import itertools
import random
from typing import Literal

import numpy as np

from etude.data import InductionTask, ListWorld, arc, list_functions, one_dimensional_arc, recorded_programs
from etude.data.induction import PRIMITIVES, ListProgram, paper_sample
from etude.errors import Unavailable
from etude.language import Stored
from etude.reasoning import Direct, HypothesisSearch, ProgramOnly, Solution, coverage_curve, pass_at_k
from etude.reasoning.hypothesis_search import run_programs
from etude.reasoning.induction_prompts import LanguageModelProposer
from etude.reasoning.list_proposers import (
    ListExamples,
    ListNetwork,
    ListProposer,
    list_examples,
    train_list_network,
)
from etude.sandbox import ATTACK_LIMITS, ATTACKS, Limits, Sandbox, check, same
from etude.study import (
    Axes,
    Config,
    Evidence,
    Lab,
    Paper,
    Quantity,
    Rule,
    Study,
    all_of,
    exact,
    grid,
    mean,
    proportion,
    ratio,
    within,
)


class Protocol(Config):
    """What is trained and asked, and on how many tasks."""

    tasks: int = 100
    """Generated tasks to be solved, each of another composition."""
    training_tasks: int = 50_000
    """Generated tasks to learn from."""
    steps: int = 900
    """Training steps of each network."""
    batch: int = 64
    """Tasks a step."""
    learning_rate: float = 2e-3
    """The largest learning rate of what writes programs and hypotheses."""
    direct_learning_rate: float = 1e-3
    """The same of what answers directly."""
    width: int = 96
    """Width of a network that is an arm by itself."""
    half_width: int = 60
    """Width of the two networks of the arm with hypotheses, which together have no more weights than another arm's."""
    layers: int = 2
    """Layers of the decoders."""
    hypotheses: int = 64
    """Hypotheses drawn for a task."""
    kept: int = 8
    """Hypotheses that are implemented."""
    programs: int = 8
    """Programs for each of them; the arm without hypotheses draws as many in all."""
    feedback: int = 3
    """Rounds of repair."""
    functions: int = 150
    """Real list functions to be solved."""
    recorded: int = 100
    """Recorded programs that are run again, at most."""
    attacks: int = 1_000
    """Attacks of the catalogue that are tried, at most."""
    small_model: str = "local"
    """The small language model, as `etude.language.language_model` takes it."""
    small_tasks: int = 18
    """Tasks of each kind that it is asked, 0 for none."""
    small_tokens: int = 120
    """The most tokens of a program or an answer; a hypothesis has a third."""
    isolation: Literal["bwrap", "subprocess"] = "subprocess"
    """The weakest level of isolation at which programs of a language model run."""
    model: str = ""
    """A language model to ask, such as ``endpoint:gpt-4o``; none when empty."""
    asked: int = 108
    """Tasks of each kind that it is asked, at most."""


PUBLISHED = {"both right": 27, "test alone right": 3, "train alone right": 2, "neither right": 62}
HELD_OUT = 0  # which compositions are held out, for all seeds, so that they can share their training tasks
DOMAINS = ("arc", "arc-1d", "list functions")
SMALLER = "networks of half a million weights trained here on generated list functions instead of GPT-4"
OF_THE_TIME = "import functools, scipy.stats; scipy.stats.mode = functools.partial(scipy.stats.mode, keepdims=True)\n"
TOUR = Limits(cpu_seconds=5, wall_seconds=8, memory_mb=512)  # as long as the paper's alarm, in processor time

study = Study(
    paper=Paper(
        "Hypothesis Search: Inductive Reasoning with Language Models",
        "Ruocheng Wang, Eric Zelikman, Gabriel Poesia, Yewen Pu, Nick Haber, Noah D. Goodman",
        2024,
        "2309.05660",
        "ICLR",
    ),
    topic="reasoning",
    presets={
        "smoke": Protocol(
            tasks=4, training_tasks=64, steps=4, batch=16, width=16, half_width=8, layers=1, hypotheses=6, kept=2,
            programs=3, feedback=1, functions=4, recorded=12, attacks=20,
            small_tasks=0,
            seeds=2,
        ),
        "laptop": Protocol(),
        "extended": Protocol(
            training_tasks=200_000, steps=4_000, batch=128, learning_rate=5e-4, direct_learning_rate=5e-4,
            width=192, half_width=128, layers=3,
        ),
        "paper": Protocol(
            training_tasks=200_000, steps=4_000, batch=128, learning_rate=5e-4, direct_learning_rate=5e-4,
            width=192, half_width=128, layers=3,
            isolation="bwrap", model="endpoint:gpt-4-0613",
        ),
    },
    extras=("arc",),
)  # fmt: skip


Solver = Direct | ProgramOnly | HypothesisSearch


# ---- what GPT-4 wrote ----------------------------------------------------------------------------------------------


@study.measure(seeds=1)
def replay(lab: Lab, config: Protocol) -> None:
    """Each recorded program's outcome on the training pairs and then on the test pairs, and what was published."""
    tasks = arc()
    with Sandbox(TOUR, minimum=config.isolation) as sandbox:
        for program in lab.track(recorded_programs()[: config.recorded], "programs"):
            task, source = tasks[program.task], OF_THE_TIME + program.source
            right = {
                name: all(
                    result.ok and same(result.value, y)
                    for result, (_, y) in zip(
                        run_programs([source], [x for x, _ in pairs], sandbox, kind="grid")[0], pairs
                    )
                )
                for name, pairs in {"train": task.train, "test": task.test}.items()
            }
            lab.record(
                task=program.task,
                train=right["train"],
                test=right["test"],
                published_train=program.train_right,
                published_test=program.test_right,
            )


@study.measure(seeds=1, volatile=("late",))
def attacks(lab: Lab, config: Protocol) -> None:
    """Every attack of the catalogue on the strongest level of isolation, which a weaker one does not replace."""
    with Sandbox(minimum="bwrap") as sandbox:
        for attempt in check(sandbox, ATTACKS[: config.attacks]):
            late = attempt.seconds - ATTACK_LIMITS.wall_seconds
            lab.record(attack=attempt.attack.name, contained=not attempt.succeeded, late=late)


@study.measure(seeds=1)
def estimator(lab: Lab, config: Protocol) -> None:
    """The closed form of pass@k beside all subsets of 8 samples, and beside draws."""
    n, generator = 8, lab.generator("subsets", "numpy")
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations(range(n), k))
        drawn = generator.random((4_000, n)).argsort(1)[:, :k]
        lab.record(
            c=c,
            k=k,
            closed=pass_at_k(n, c, k),
            enumerated=sum(min(subset) < c for subset in subsets) / len(subsets),
            drawn=float((drawn < c).any(1).mean()),
        )


# ---- what is trained here ------------------------------------------------------------------------------------------


def world() -> ListWorld:
    """Tasks with five pairs and test lists longer than those of the pairs."""
    return ListWorld(test_lengths=(9, 12), seed=HELD_OUT)


def examples(tasks: int) -> ListExamples:
    """Training tasks as tokens, the same for all seeds."""
    generator = random.Random(1)
    return list_examples(world().sample(tasks, generator), generator)


def proposer(lab: Lab, config: Protocol) -> ListProposer:
    """The seed's four networks, trained once."""
    learnt, train = lab.cached(examples)(config.training_tasks), lab.cached(train_list_network)
    networks = {}
    for role in ("direct", "program", "hypothesis", "implement"):
        generator = lab.generator(role)
        width = config.width if role in ("direct", "program") else config.half_width
        weights = train(
            role,
            learnt,
            width,
            layers=config.layers,
            steps=config.steps,
            batch=config.batch,
            learning_rate=config.direct_learning_rate if role == "direct" else config.learning_rate,
            seed=generator.initial_seed(),
        )
        networks[role] = ListNetwork(width, generator, config.layers)
        networks[role].load_state_dict(weights)
    return ListProposer(networks)


def arms(config: Protocol, networks: ListProposer, sandbox: Sandbox) -> dict[str, Solver]:
    """The solvers, all with the same number of samples but the one direct answer."""
    flat = config.kept * config.programs
    search = dict(
        n_hypotheses=config.hypotheses, n_keep=config.kept, n_programs=config.programs, filter="rank",
        exhaustive=True, repair_at_once=config.kept * config.programs, sandbox=sandbox, together=True,
    )  # fmt: skip
    return {
        "one direct answer": Direct(networks, temperature=0.0),
        "direct": Direct(networks, n_answers=flat, temperature=0.7),
        "programs": ProgramOnly(networks, n_programs=flat, sandbox=sandbox, together=True),
        "programs at temperature 1": ProgramOnly(
            networks, n_programs=flat, t_program=1.0, sandbox=sandbox, together=True
        ),
        "hypotheses": HypothesisSearch(networks, **search, max_feedback=0),
        "repair of clusters": HypothesisSearch(networks, **search, max_feedback=config.feedback),
        "repair of all": HypothesisSearch(networks, **search, max_feedback=config.feedback, cluster=False),
    }


@study.measure()
def solve(lab: Lab, config: Protocol) -> None:
    """Every arm on generated tasks of held-out compositions."""
    networks = proposer(lab, config)
    made = world().sample(config.tasks, lab.generator("tasks", "python"), held_out=True, distinct=True)
    with Sandbox() as sandbox:
        solvers = arms(config, networks, sandbox)
        for number, each in enumerate(lab.track(made, "tasks")):
            solutions: dict[str, Solution] = {}
            for arm, solver in solvers.items():
                # Where the search without repair has verified a program, those with repair have the same one.
                settled = arm.startswith("repair") and solutions["hypotheses"].verified
                solution = solutions["hypotheses"] if settled else solver.solve(each.task.problem)
                solutions[arm] = solution
                first = [candidate for candidate in solution.trace if candidate.round == 0]
                lab.record(
                    task=number,
                    arm=arm,
                    depth=len(each.program.steps),
                    solved=each.task.solved_by(solution.predictions),
                    verified=solution.verified,
                    behaviours=max(1, len({candidate.behaviour for candidate in first})),  # no program is one, too
                    passing=sum(candidate.verified for candidate in first),
                    samples=len(first),
                    ambiguous=solution.behaviours > 1,
                    repairs=solution.spending.repairs,
                    replies=solution.spending.replies,
                    tokens=solution.spending.tokens,
                )


def expressible(task: InductionTask) -> bool:
    """Whether one or two steps of `ListWorld` reproduce every pair of a task."""
    steps = [
        (name, constants)
        for name, primitive in PRIMITIVES.items()
        for constants in itertools.product(*(range(least, most + 1) for least, most in primitive.ranges))
    ]
    pairs = [*task.train, *task.test]
    (x, y), *_ = pairs
    once = [(step, PRIMITIVES[step[0]].function(x, *step[1])) for step in steps]
    candidates = [(step,) for step, value in once if value == y]
    candidates += [
        (first, (name, constants))
        for name, constants in steps
        for first, value in once
        if PRIMITIVES[name].function(value, *constants) == y
    ]
    return any(all(ListProgram(chosen)(x) == y for x, y in pairs) for chosen in candidates)


@study.measure(seeds=1)
def real_functions(lab: Lab, config: Protocol) -> None:
    """Programs with and without hypotheses on real list functions, most of which the networks' steps cannot express."""
    networks = proposer(lab, config)
    with Sandbox() as sandbox:
        solvers = arms(config, networks, sandbox)
        for name, task in lab.track(list(list_functions(train=5).items())[: config.functions], "functions"):
            within_reach = lab.cached(expressible)(task)
            for arm in ("programs", "hypotheses"):
                solution = solvers[arm].solve(task.problem)
                lab.record(
                    function=name,
                    arm=arm,
                    expressible=within_reach,
                    solved=task.solved_by(solution.predictions),
                    verified=solution.verified,
                    behaviours=len({candidate.behaviour for candidate in solution.trace}),
                )


# ---- what a language model is asked --------------------------------------------------------------------------------


def real_tasks(domain: str) -> list[InductionTask]:
    """The tasks of the paper's samples."""
    if domain == "list functions":
        return list(list_functions().values())
    known = arc() if domain == "arc" else one_dimensional_arc()
    return [known[name] for name in paper_sample("arc" if domain == "arc" else "arc-1d")]


@study.measure(seeds=1, over=lambda config: grid(domain=list(DOMAINS), method=["direct", "programs", "hypotheses"]))
def ask(lab: Lab, config: Protocol, *, domain: Literal["arc", "arc-1d", "list functions"], method: str) -> None:
    """The paper's protocol with a language model: one row a task."""
    if not config.model:
        raise Unavailable("no model is named for the paper's own protocol", "Give one: --model endpoint:NAME")
    lm, one_row = Stored(config.model, lab.cached), domain == "arc-1d"
    with Sandbox(TOUR, minimum=config.isolation) as sandbox:
        if method == "direct":
            solver: Solver = Direct(lm, temperature=0.5)
        elif method == "programs":
            count = 80 if one_row else config.kept * config.programs
            solver = ProgramOnly(lm, n_programs=count, sandbox=sandbox)
        else:
            solver = HypothesisSearch(
                lm,
                n_hypotheses=16 if one_row else config.hypotheses,
                n_keep=16 if one_row else config.kept,
                n_programs=4 if one_row else config.programs,
                max_feedback=0 if one_row else config.feedback,
                t_hypothesis=0.7 if one_row else 1.0,
                filter=None if one_row else "summarise",
                sandbox=sandbox,
            )
        put(lab, solver, real_tasks(domain)[: config.asked], domain)


def small_cells(config: Protocol) -> list[dict[str, str]]:
    """What the small language model is asked; nothing where it is asked no task."""
    methods = ["direct", "programs", "hypotheses"] if config.small_tasks else []
    return grid(domain=list(DOMAINS[1:]), method=methods)


@study.measure(seeds=1, over=small_cells)
def ask_small(lab: Lab, config: Protocol, *, domain: Literal["arc-1d", "list functions"], method: str) -> None:
    """The small language model: one direct answer, two programs, or two hypotheses with a program each."""
    lm = LanguageModelProposer(
        Stored(config.small_model, lab.cached),
        hypothesis_tokens=config.small_tokens // 3,
        program_tokens=config.small_tokens,
    )
    with Sandbox(TOUR, minimum=config.isolation) as sandbox:
        solver = {
            "direct": Direct(lm, temperature=0.0),
            "programs": ProgramOnly(lm, n_programs=2, sandbox=sandbox),
            "hypotheses": HypothesisSearch(
                lm, n_hypotheses=2, n_programs=1, max_feedback=0, t_hypothesis=0.7, filter=None, sandbox=sandbox
            ),
        }[method]
        tasks = real_tasks(domain)
        put(lab, solver, tasks[:: len(tasks) // config.small_tasks][: config.small_tasks], f"{method}, {domain}")


def put(lab: Lab, solver: Solver, tasks: list[InductionTask], name: str) -> None:
    """Put tasks to a solver, one row each."""
    for number, task in enumerate(lab.track(tasks, name)):
        solution = solver.solve(task.problem)
        lab.record(
            task=f"{number}: {task.id}",
            solved=task.solved_by(solution.predictions),
            verified=solution.verified,
            status=solution.status,
            replies=solution.spending.replies,
            tokens=solution.spending.tokens,
        )


# ---- claims --------------------------------------------------------------------------------------------------------


def counted(e: Evidence[Protocol], prefix: str = "") -> dict[str, int]:
    """How many recorded programs are right on which side."""
    rows = e[replay].frame
    train, test = rows[f"{prefix}train"].astype(bool), rows[f"{prefix}test"].astype(bool)
    sides = (train & test, ~train & test, train & ~test, ~train & ~test)
    return {name: int(side.sum()) for name, side in zip(PUBLISHED, sides)}


def every_program(config: Protocol) -> bool | str:
    """Whether all recorded programs are run."""
    return config.recorded >= 94 or "only some of the recorded programs are run"


@study.claim(reported="27, 3, 2 and 62 of 94; 30 of 100 solved (results of the run, table 1)", when=every_program)
def recorded_programs_do_what_was_published(e: Evidence[Protocol]) -> Rule:
    """GPT-4's recorded programs, run again, are right on train and test as often as published, within two programs."""
    counts = counted(e)
    rows = e[replay].frame
    flags = [(rows[name] != rows[f"published_{name}"]).sum() for name in ("train", "test")]
    total = counts["both right"] + counts["test alone right"]
    return all_of(
        *(
            within(exact(counts[name]), published - 2, published + 2).named(name)
            for name, published in PUBLISHED.items()
        ),
        within(exact(total), 28, 32).named("test right"),
    ).also(**{"programs with another flag than published": exact(int(max(flags)))})


@study.claim(reported="27 of 29 (results of the run)", when=every_program)
def verification_is_strong_evidence(e: Evidence[Protocol]) -> Rule:
    """A program right on all training pairs is right on the test in over 70 %, and ten times as often as others."""
    verified, others = (e[replay].at(train=train).per("task")["test"] for train in (True, False))
    chance = float(others.astype(float).mean())
    return all_of(
        (proportion(verified) > 0.7).named("right on the test, given train"),
        (proportion(verified) > 10 * chance).named("the same, against ten times that of the others"),
    ).also(**{"right on the test, given an error in train": proportion(others)})


def per_seed(e: Evidence[Protocol], arm: str, column: str) -> Quantity:
    """A column's mean over tasks, one number a seed."""
    return e[solve].at(arm=arm).per("seed").mean(column)


def asked(e: Evidence[Protocol], method: str) -> Quantity:
    """Whether the language model solved each task of ARC."""
    return e[ask].at(domain="arc", method=method).per("task")["solved"].astype(float)


def asked_the_small_model(config: Protocol) -> bool | str:
    """Whether the small language model is asked anything."""
    return config.small_tasks > 0 or "the small language model is asked no task"


@study.claim(reported="(not in the paper, which asks GPT-4)", when=asked_the_small_model)
def a_small_language_model_is_too_weak(e: Evidence[Protocol]) -> Rule:
    """A language model of 135 million weights solves fewer than one real task in five, by programs or by hypotheses."""
    rows = e[ask_small].frame
    solved = {
        method: rows[rows["method"] == method].set_index(["domain", "task"])["solved"].astype(bool)
        for method in ("direct", "programs", "hypotheses")
    }
    written = solved["programs"] | solved["hypotheses"]
    return (
        (proportion(written) < 0.2)
        .named("solved by programs or hypotheses")
        .also(
            **{f"of these, {domain}": proportion(written.loc[domain]) for domain in DOMAINS[1:]},
            **{"solved directly": proportion(solved["direct"])},
        )
    )


@study.claim(reported="30 % against 17 % (ARC, table 1)", deviation=SMALLER)
def search_beats_direct_answers(e: Evidence[Protocol]) -> Rule:
    """Hypothesis search solves at least 10 points more tasks than direct answers, at equal weights and samples."""
    gain = {
        arm: mean(per_seed(e, arm, "solved") - per_seed(e, "direct", "solved")) for arm in ("hypotheses", "programs")
    }
    shares = {
        f"solved by {arm}": mean(per_seed(e, arm, "solved")) for arm in ("hypotheses", "direct", "one direct answer")
    }
    rule = (gain["hypotheses"] > 0.1).named("gain of hypotheses")
    if e.config.model:
        rule = all_of(rule, (mean(asked(e, "hypotheses") - asked(e, "direct")) > 0.1).named("the model's gain on ARC"))
    return rule.also(**shares, **{"gain of programs alone": gain["programs"]})


@study.claim(reported="30 % against 23 % (ARC), no gain (SyGuS)", deviation=SMALLER)
def hypotheses_make_programs_differ(e: Evidence[Protocol]) -> Rule:
    """8 hypotheses with 8 programs each behave in more ways than 64 programs without, and do not solve fewer tasks."""
    more = mean(per_seed(e, "hypotheses", "solved") - per_seed(e, "programs", "solved"))
    rule = (ratio(per_seed(e, "hypotheses", "behaviours"), per_seed(e, "programs", "behaviours")) > 1).named(
        "times as many behaviours"
    )
    if more.interval(0.05)[1] < 0:  # a loss refutes the claim; a gain is not asked for
        rule = all_of(rule, (more >= 0).named("gain in solved tasks"))
    hot = per_seed(e, "programs at temperature 1", "behaviours")
    real = {}
    for name, reach in {"expressible functions": True, "other functions": False}.items():
        rows = e[real_functions].at(expressible=reach)
        if len(rows.frame):
            searched, flat = (rows.at(arm=arm).per("function")["solved"] for arm in ("hypotheses", "programs"))
            real[f"gain on {name}"] = mean(searched.astype(float) - flat.astype(float))
    if e.config.model:
        real["the model's gain on ARC"] = mean(asked(e, "hypotheses") - asked(e, "programs"))
    return rule.also(
        **{
            "gain in solved tasks": more,
            "times the behaviours of programs at temperature 1": ratio(per_seed(e, "hypotheses", "behaviours"), hot),
            **real,
        }
    )


@study.claim(reported="repairs of one program a behaviour (appendix A)", deviation=SMALLER)
def clusters_save_repairs(e: Evidence[Protocol]) -> Rule:
    """Repairing one program a behaviour saves a quarter of the repairs and loses at most 2 points of solved tasks."""
    clusters, every = "repair of clusters", "repair of all"
    saved = 1 - per_seed(e, clusters, "repairs") / per_seed(e, every, "repairs")
    loss = per_seed(e, every, "solved") - per_seed(e, clusters, "solved")
    return all_of(
        (mean(saved) >= 0.25).named("share of repairs saved"), (mean(loss) <= 0.02).named("loss of solved tasks")
    ).also(**{"gain of repair": mean(per_seed(e, clusters, "solved") - per_seed(e, "hypotheses", "solved"))})


def curve(e: Evidence[Protocol], arm: str) -> np.ndarray:
    """Share of tasks with a verified program among k samples, for every k, over all seeds and tasks."""
    rows = e[solve].at(arm=arm).frame
    samples = int(rows["samples"].max())
    counts = rows["passing"].to_numpy()
    return coverage_curve(np.arange(samples) < counts[:, None])


@study.claim(reported="more samples help (section 3.3)")
def coverage_grows_with_samples(e: Evidence[Protocol]) -> Rule:
    """The estimate of pass@k equals the enumeration of subsets, and the coverage curve never falls."""
    rows = e[estimator].frame
    steps = np.diff(curve(e, "programs"))
    return all_of(
        (exact(float((rows["closed"] - rows["enumerated"]).abs().max())) <= 1e-12).named("error of the estimate"),
        (exact(float(steps.min())) >= 0).named("least step of the curve"),
    ).also(**{"distance of draws": exact(float((rows["closed"] - rows["drawn"]).abs().max()))})


def every_attack(config: Protocol) -> bool | str:
    """Whether the whole catalogue is tried."""
    return config.attacks >= len(ATTACKS) or "only some of the attacks are tried"


@study.claim(
    reported="(no sandbox in the original)", deviation="the whole catalogue instead of 25 attacks", when=every_attack
)
def the_sandbox_contains_every_attack(e: Evidence[Protocol]) -> Rule:
    """Every attack is contained, the search lives on, and no call takes a second longer than its limit."""
    rows = e[attacks].frame
    return all_of(
        within(exact(float(rows["contained"].astype(float).mean())), 1, 1).named("share contained"),
        (exact(float(rows["late"].max())) <= 1).named("seconds over the limit"),
    ).also(attacks=exact(len(rows)))


# ---- figures -------------------------------------------------------------------------------------------------------

COLOURS = {"hypotheses": "C0", "programs": "C1", "programs at temperature 1": "C3"}


@study.figure
def coverage(e: Evidence[Protocol], axes: Axes) -> None:
    """Share of held-out tasks for which k samples have a program that reproduces all training pairs."""
    for arm, colour in COLOURS.items():
        values = curve(e, arm) if e[solve].at(arm=arm).frame["samples"].max() else np.zeros(1)
        axes.plot(np.arange(1, len(values) + 1), 100 * values, color=colour, label=arm)
    axes.axhline(100 * per_seed(e, "direct", "solved").mean(), color="0.5", linestyle="--", label="direct answers")
    axes.set(xlabel="programs drawn", ylabel="tasks (%)", xscale="log")
    axes.legend(frameon=False, loc="upper left")


@study.figure
def solved_by_arm(e: Evidence[Protocol], axes: Axes) -> None:
    """Share of held-out tasks solved by each arm, and of those solved with a verified program; range over seeds."""
    names = list(dict.fromkeys(e[solve].frame["arm"]))
    rows = e[solve].frame
    for place, arm in enumerate(names):
        chosen = rows[rows["arm"] == arm]
        solved = chosen["solved"].astype(float)
        verified = (chosen["solved"].astype(bool) & chosen["verified"].astype(bool)).astype(float)
        seeds = 100 * solved.groupby(chosen["seed"]).mean()
        axes.barh(place, 100 * solved.mean(), color="0.8", label="in all" if place == 0 else None)
        axes.barh(place, 100 * verified.mean(), color="C0", label="with a verified program" if place == 0 else None)
        axes.hlines(place, seeds.min(), seeds.max(), color="black", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="tasks solved (%)", ylabel="arm")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.4, 1.12), ncols=2)
