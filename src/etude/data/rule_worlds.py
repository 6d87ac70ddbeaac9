"""Worlds of facts and rules in plain English, with questions whose answer and shortest proof are known.

The language is that of ProofWriter (Tafjord, Dalvi and Clark, 2021): facts about named things, and rules such as "If
something is red and it chases the dog then it is not kind". The answer is what classical logic says with nothing
assumed about what is not mentioned (the open-world reading): True, False or Uncertain.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from etude.reasoning.logic import Formula

Label: TypeAlias = Literal["True", "False", "Uncertain"]
LABELS: tuple[Label, ...] = ("True", "False", "Uncertain")


@dataclass(frozen=True)
class LogicProblem:
    """Premises and a conclusion in words.

    Attributes:
        premises: sentences, at least one.
        conclusion: a sentence.
        label: ``"True"``, ``"False"`` or ``"Uncertain"`` where it is known.
        depth: steps of the shortest proof where it is known; for an Uncertain question, of the proof that one missing
            fact would complete.
        name: what the data set calls the problem.

    Raises:
        ValueError: no premises, an empty sentence, or another label.
    """

    premises: tuple[str, ...]
    conclusion: str
    label: Label | None = None
    depth: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.premises, str) or not self.premises:
            raise ValueError(f"premises: {self.premises!r} was given; one sentence or more, in a tuple, is accepted")
        for number, sentence in enumerate(self.premises):
            if not isinstance(sentence, str) or not sentence.strip():
                raise ValueError(f"premises[{number}]: {sentence!r} was given; a sentence is accepted")
        if not isinstance(self.conclusion, str) or not self.conclusion.strip():
            raise ValueError(f"conclusion: {self.conclusion!r} was given; a sentence is accepted")
        if self.label is not None and self.label not in LABELS:
            raise ValueError(f"label: {self.label!r} was given; {', '.join(LABELS)} or None is accepted")
        object.__setattr__(self, "premises", tuple(self.premises))


@dataclass(frozen=True)
class Vocabulary:
    """The open words of a world, and which ways of putting a rule it uses.

    Attributes:
        entities: names of things.
        attributes: adjectives.
        verbs: in their basic form; the third person adds an s.
        rules: the pairs (frame, joint) that rules with two conditions are put in, by number.
    """

    entities: tuple[str, ...]
    attributes: tuple[str, ...]
    verbs: tuple[str, ...]
    rules: tuple[tuple[int, int], ...]


FRAMES = (
    "if something {conditions} then it {head}",
    "if anything {conditions} then it {head}",
    "something {head} if it {conditions}",
    "everything that {conditions} {head}",
)
"""Ways to put a rule; the last two of `ADJECTIVE_FRAMES` take attributes alone."""
JOINTS = (" and ", " and it ", ", and also ")
"""What joins two conditions: the second loses its "is" with the first joint if both have one."""
ADJECTIVE_FRAMES = ("all {adjectives} things {head}", "{adjectives} things {head}")
ADJECTIVE_JOINTS = (" and ", ", ")

_HELD_OUT = ((0, 2), (1, 0), (2, 1), (3, 2), (4, 1), (5, 0))
_FRAMES = tuple((frame, joint) for frame in range(6) for joint in range(3 if frame < 4 else 2))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


VOCABULARIES = {
    "train": Vocabulary(
        _words("Anne, Bob, Charlie, Dave, Erin, Fiona, Gary, Harry, the cat, the cow, the dog, the mouse"),
        _words(
            "big, blue, cold, furry, green, kind, nice, quiet, red, rough, round, sad, smart, white, young, brave, "
            "calm, dry, early, fair, gentle, heavy, idle, jolly"
        ),
        _words("like, chase, see, need, visit, eat, help, follow"),
        tuple(pair for pair in _FRAMES if pair not in _HELD_OUT),
    ),
    "test": Vocabulary(
        _words("Ivan, Jane, Karl, Lena, Mona, Nora, Olga, Paul, the bear, the lion, the rabbit, the tiger"),
        _words(
            "keen, large, merry, neat, odd, plain, proud, rich, shy, sleepy, tall, tame, thin, tidy, tired, vain, "
            "warm, weak, wet, wild, wise, bold, clever, dull"
        ),
        _words("admire, avoid, call, defend, forgive, greet, hear, know"),
        _HELD_OUT,
    ),
}
"""Two vocabularies that share no open word and no way of putting a rule with two conditions; every frame and every
joint of the one occurs in the other, in other pairs."""

Argument: TypeAlias = str
"""An entity, or "x" in a rule."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A literal: a thing is (not) so, or does (not do) something to another.

    Attributes:
        positive: False for a negated one.
        predicate: an attribute or a verb.
        arguments: one thing, or two.
    """

    positive: bool
    predicate: str
    arguments: tuple[Argument, ...]

    def negated(self) -> Fact:
        """Its contrary."""
        return Fact(not self.positive, self.predicate, self.arguments)

    def about(self, thing: Argument) -> Fact:
        """With "x" replaced by a thing."""
        return Fact(self.positive, self.predicate, tuple(thing if a == "x" else a for a in self.arguments))


@dataclass(frozen=True, slots=True)
class RuleOfWorld:
    """If a thing meets the conditions, the head holds.

    Attributes:
        conditions: one or two literals about "x".
        head: a literal about "x".
    """

    conditions: tuple[Fact, ...]
    head: Fact


@dataclass(frozen=True)
class World:
    """The facts and rules behind a problem.

    Attributes:
        facts: what is stated.
        rules: how things follow.
        question: the conclusion.
        things: the entities.
    """

    facts: tuple[Fact, ...]
    rules: tuple[RuleOfWorld, ...]
    question: Fact
    things: tuple[str, ...]

    def consequences(self) -> dict[Fact, int]:
        """Every literal that rules derive, with the number of steps of its shortest proof (0 for a stated fact).

        Rounds of forward chaining: a literal's depth is one more than the greatest depth among the conditions of the
        rule that derives it first.
        """
        depth = dict.fromkeys(self.facts, 0)
        instances = [
            (tuple(condition.about(thing) for condition in rule.conditions), rule.head.about(thing))
            for rule in self.rules
            for thing in self.things
        ]
        for step in range(1, len(instances) + 2):
            fired = {
                head: step
                for conditions, head in instances
                if head not in depth and all(condition in depth for condition in conditions)
            }
            if not fired:
                break
            depth |= fired
        return depth


class RuleWorld:
    """A generator of problems, balanced in labels and depths.

    In every problem two chains of rules lead to the question: one to it, one to its contrary. For True the first
    chain starts from a stated fact and the second lacks its start, for False the other way round, for Uncertain both
    lack it. Starts that lack are stated of another thing; every problem has as many rules, as many facts and as many
    facts about the thing in question, and some rules have a side condition, so that neither the length of the text nor
    the words of the question give the answer away.

    Args:
        n_entities: things in a problem, 2 to 12.
        n_attributes: attributes, 2 to 24; with the verbs they must suffice for two chains.
        n_relations: verbs, 0 to 8.
        negation: whether facts, conditions and heads may be negated. Questions always may.
        max_depth: the longest proof, at least 1.
        vocabulary: ``"train"``, ``"test"`` or a `Vocabulary`.
        seed: an integer; the same seed gives the same problems.
        n_rules: rules in a problem, at least two chains' worth, which is what it is when left out.

    Raises:
        ValueError: a number outside its range, or an unknown vocabulary.
    """

    def __init__(
        self,
        n_entities: int = 3,
        n_attributes: int = 10,
        n_relations: int = 3,
        negation: bool = True,
        max_depth: int = 5,
        vocabulary: str | Vocabulary = "train",
        seed: int = 0,
        *,
        n_rules: int | None = None,
    ) -> None:
        if isinstance(vocabulary, str):
            if vocabulary not in VOCABULARIES:
                raise ValueError(f"vocabulary: {vocabulary!r} was given; {', '.join(VOCABULARIES)} are accepted")
            vocabulary = VOCABULARIES[vocabulary]
        for name, value, low, high in (
            ("n_entities", n_entities, 2, len(vocabulary.entities)),
            ("n_attributes", n_attributes, 2, len(vocabulary.attributes)),
            ("n_relations", n_relations, 0, len(vocabulary.verbs)),
            ("max_depth", max_depth, 1, 50),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name}: {value!r} was given; an integer from {low} to {high} is accepted")
        if n_attributes + n_relations < 2 * max_depth + 2:
            raise ValueError(
                f"n_attributes: {n_attributes} with {n_relations} relations was given; two chains of {max_depth} steps "
                f"need {2 * max_depth + 2} predicates together"
            )
        least = 2 * max_depth
        if n_rules is not None and n_rules < least:
            raise ValueError(f"n_rules: {n_rules!r} was given; at least {least} are accepted with this depth")
        self._sizes = (n_entities, n_attributes, n_relations)
        self._negation, self._max_depth, self._vocabulary = negation, max_depth, vocabulary
        self._n_rules = least if n_rules is None else n_rules
        self._random = random.Random(seed)

    def sample(
        self, n: int, depths: Sequence[int] | None = None, *, questions: int = 1
    ) -> list[tuple[LogicProblem, tuple[Formula, ...]]]:
        """Draw problems; labels and depths take turns, so that every n of 3 times the number of depths is balanced.

        Every label is confirmed by `etude.reasoning.logic.entails`, and every depth by forward chaining.

        Args:
            n: how many, at least 1.
            depths: the depths asked for; 0 to max_depth when left out.
            questions: questions about the same facts and rules, one after the other; beyond the first they are about
                anything, at the depths asked for, with labels in turn where there is such a question.

        Returns:
            Problems, each with its formulas: one a premise, and the conclusion's. With several questions, n times as
            many, those of one world in a row.

        Raises:
            ValueError: `n` is below 1, or a depth is not in 0 to max_depth.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n: {n!r} was given; an integer of at least 1 is accepted")
        depths = tuple(range(self._max_depth + 1) if depths is None else depths)
        if not depths or not all(0 <= depth <= self._max_depth for depth in depths):
            raise ValueError(f"depths: {depths!r} was given; integers from 0 to {self._max_depth} are accepted")
        found = []
        for number in range(n):
            depth, label = depths[number % len(depths)], LABELS[number // len(depths) % 3]
            while (drawn := self._attempt(depth, label)) is None:
                pass
            world, problem, formulas = drawn
            found.append((problem, formulas))
            if questions > 1:
                found += self._further(world, problem, formulas, depths, number, questions - 1)
        return found

    def _further(
        self,
        world: World,
        first: LogicProblem,
        formulas: tuple[Formula, ...],
        depths: Sequence[int],
        number: int,
        questions: int,
    ) -> list[tuple[LogicProblem, tuple[Formula, ...]]]:
        """More questions about a world, each label confirmed like the first."""
        known = world.consequences()
        literals = [*world.facts, *(literal for rule in world.rules for literal in (*rule.conditions, rule.head))]
        asked: dict[Label, list[tuple[Fact, int]]] = {label: [] for label in LABELS}
        for literal in dict.fromkeys(literal.about(thing) for literal in literals for thing in world.things):
            for fact in (literal, literal.negated()):
                label: Label = "True" if fact in known else "False" if fact.negated() in known else "Uncertain"
                depth = min(known.get(fact, 99), known.get(fact.negated(), 99))
                if fact != world.question and (label == "Uncertain" or depth in depths):
                    asked[label].append((fact, depth))
        found: list[tuple[LogicProblem, tuple[Formula, ...]]] = []
        while len(found) < questions and any(asked.values()):
            label = LABELS[(number + len(found)) % 3]
            label = label if asked[label] else self._random.choice([other for other in LABELS if asked[other]])
            fact, depth = asked[label].pop(self._random.randrange(len(asked[label])))
            conclusion = _formula(fact)
            if _is(label, formulas[:-1], conclusion):
                known_depth = None if label == "Uncertain" else depth
                problem = LogicProblem(first.premises, self._sentence(fact), label, known_depth)
                found.append((problem, (*formulas[:-1], conclusion)))
        return found

    def _attempt(self, depth: int, label: Label) -> tuple[World, LogicProblem, tuple[Formula, ...]] | None:
        world = self._world(depth, label)
        known = world.consequences()
        if any(fact.negated() in known for fact in known):
            return None
        asked, contrary = world.question in known, world.question.negated() in known
        if (asked, contrary) != (label == "True", label == "False") or len(world.facts) < 4:
            return None
        if label != "Uncertain" and known[world.question if asked else world.question.negated()] != depth:
            return None
        order: list[Fact | RuleOfWorld] = [*world.facts, *world.rules]
        self._random.shuffle(order)
        formulas = tuple(_formula(statement) for statement in (*order, world.question))
        if not _is(label, formulas[:-1], formulas[-1]):
            return None  # classical logic sees more than rules fire, such as contrapositives
        sentences = tuple(self._sentence(statement) for statement in order)
        return world, LogicProblem(sentences, self._sentence(world.question), label, depth), formulas

    # ---- what is the case --------------------------------------------------------------------------------------------

    def _world(self, depth: int, label: Label) -> World:
        draw, words = self._random, self._vocabulary
        n_entities, n_attributes, n_relations = self._sizes
        things = draw.sample(words.entities, n_entities)
        predicates = [*draw.sample(words.attributes, n_attributes), *draw.sample(words.verbs, n_relations)]
        draw.shuffle(predicates)

        def literal(predicate: str) -> Fact:
            other = (draw.choice(things),) if predicate in words.verbs else ()
            return Fact(not self._negation or draw.random() < 0.65, predicate, ("x", *other))

        goal = literal(predicates.pop())
        subject, *others = things
        rules: list[RuleOfWorld] = []
        facts: dict[Fact, None] = {}
        lengths = [depth, draw.randint(1, self._max_depth)]
        if label == "False":  # the chain to the contrary is the one of the depth asked for
            lengths.reverse()
        for end, length, started in zip((goal, goal.negated()), lengths, (label == "True", label == "False")):
            chain = [literal(predicates.pop()) for _ in range(length)] + [end]
            for before, after in itertools.pairwise(chain):
                rules.append(RuleOfWorld((before,), after))
            facts[chain[0].about(subject if started else draw.choice(others))] = None
        spare = [literal(predicate) for predicate in predicates]
        # One fact is stated of the subject, whatever the label.
        for thing in (subject if label == "Uncertain" else draw.choice(others), draw.choice(others)):
            facts[draw.choice(spare).about(thing)] = None
        used = [literal for rule in rules for literal in (*rule.conditions, rule.head)]
        while len(rules) < self._n_rules:
            conditions = draw.sample(spare, min(len(spare), draw.choice((1, 1, 2))))
            rules.append(RuleOfWorld(tuple(conditions), draw.choice(used)))
        for number, rule in enumerate(rules):  # side conditions, some of which hold
            if len(rule.conditions) == 1 and draw.random() < 0.35:
                side = draw.choice([*facts, *spare])
                side = Fact(side.positive, side.predicate, ("x", *side.arguments[1:]))
                if side.predicate not in (rule.conditions[0].predicate, rule.head.predicate):
                    conditions = draw.sample([*rule.conditions, side], 2)
                    rules[number] = RuleOfWorld(tuple(conditions), rule.head)
        return World(tuple(facts), tuple(rules), goal.about(subject), tuple(things))

    # ---- how it is put -----------------------------------------------------------------------------------------------

    def _sentence(self, statement: Fact | RuleOfWorld) -> str:
        if isinstance(statement, Fact):
            text = f"{statement.arguments[0]} {_does(statement)}"
        else:
            text = self._rule(statement)
        return text[0].upper() + text[1:] + "."

    def _rule(self, rule: RuleOfWorld) -> str:
        draw = self._random
        plain = all(condition.positive and len(condition.arguments) == 1 for condition in rule.conditions)
        pairs = self._vocabulary.rules
        frames = sorted({frame for frame, _ in pairs}) if len(rule.conditions) == 1 else None
        if frames is not None:
            frame, joint = draw.choice([f for f in frames if plain or f < len(FRAMES)]), 0
        else:
            frame, joint = draw.choice([pair for pair in pairs if plain or pair[0] < len(FRAMES)])
        if frame >= len(FRAMES):
            adjectives = ADJECTIVE_JOINTS[joint].join(condition.predicate for condition in rule.conditions)
            return ADJECTIVE_FRAMES[frame - len(FRAMES)].format(
                adjectives=adjectives, head=_does(rule.head, plural=True)
            )
        phrases = [_does(condition) for condition in rule.conditions]
        if joint == 0 and all(phrase.startswith("is ") for phrase in phrases):
            phrases[1:] = [phrase.removeprefix("is ") for phrase in phrases[1:]]
        return FRAMES[frame].format(conditions=JOINTS[joint].join(phrases), head=_does(rule.head))


def _is(label: Label, premises: Sequence[Formula], conclusion: Formula) -> bool:
    from etude.reasoning.logic import entails

    return entails(premises, conclusion, engine="ground").verdict.name == label.upper()


def _does(fact: Fact, *, plural: bool = False) -> str:
    """What a literal says of its subject."""
    if len(fact.arguments) == 1:
        return f"{'are' if plural else 'is'} {'' if fact.positive else 'not '}{fact.predicate}"
    if fact.positive:
        return f"{fact.predicate}{'' if plural else 's'} {fact.arguments[1]}"
    return f"{'do' if plural else 'does'} not {fact.predicate} {fact.arguments[1]}"


def _formula(statement: Fact | RuleOfWorld) -> Formula:
    from etude.reasoning.logic import And, ForAll, Implies, Variable

    if isinstance(statement, Fact):
        return _literal(statement)
    conditions = tuple(map(_literal, statement.conditions))
    body = conditions[0] if len(conditions) == 1 else And(conditions)
    return ForAll(Variable("x"), Implies(body, _literal(statement.head)))


def _literal(fact: Fact) -> Formula:
    from etude.reasoning.logic import Atom, Constant, Not, Variable

    things = tuple(Variable("x") if a == "x" else Constant(a.removeprefix("the ").capitalize()) for a in fact.arguments)
    atom = Atom(fact.predicate.capitalize(), things)
    return atom if fact.positive else Not(atom)
