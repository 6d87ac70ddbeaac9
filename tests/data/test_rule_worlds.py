"""Generated worlds: balanced, with labels and depths that a prover and a search for proofs confirm, nothing shared."""

import re
from collections import Counter

import pytest

from etude.data.rule_worlds import VOCABULARIES, Fact, LogicProblem, RuleOfWorld, RuleWorld, World
from etude.reasoning.logic import Atom, ForAll, Not, entails


def test_labels_and_depths_are_balanced_and_true():
    sample = RuleWorld(seed=3).sample(36)
    assert Counter((p.depth, p.label) for p, _ in sample) == {
        (depth, label): 2 for depth in range(6) for label in ("True", "False", "Uncertain")
    }
    for problem, formulas in sample:
        assert len(formulas) == len(problem.premises) + 1
        for engine in ("ground", "z3"):
            assert entails(formulas[:-1], formulas[-1], engine=engine).verdict.name == problem.label.upper()


def shortest_proof(formulas):
    """Steps of the shortest proof of the conclusion or its contrary by rules, found backwards."""
    facts = {str(f) for f in formulas[:-1] if not isinstance(f, ForAll)}
    rules = [f.body for f in formulas[:-1] if isinstance(f, ForAll)]

    def instances(literal):
        things = {str(t) for f in formulas for t in re.findall(r"[A-Z]\w+(?=[,)])", str(f))}
        for rule in rules:
            for thing in things:
                bound = str(rule).replace("(x", f"({thing}")
                left, right = bound.split(" → ")
                if right == literal:
                    yield left.strip("()").split(" ∧ ") if left.startswith("(") else [left]

    def depth(literal, seen):
        if literal in facts:
            return 0
        found = []
        for conditions in instances(literal):
            if seen.isdisjoint(conditions):
                parts = [depth(c if c.endswith(")") else c + ")", seen | {literal}) for c in conditions]
                if None not in parts:
                    found.append(1 + max(parts))
        return min(found, default=None)

    conclusion = formulas[-1]
    contrary = conclusion.body if isinstance(conclusion, Not) else Not(conclusion)
    depths = [d for d in (depth(str(f), frozenset()) for f in (conclusion, contrary)) if d is not None]
    return min(depths, default=None)


def test_depth_is_the_length_of_the_shortest_proof():
    for problem, formulas in RuleWorld(seed=5).sample(54):
        assert shortest_proof(formulas) == (None if problem.label == "Uncertain" else problem.depth)


def test_further_questions_are_about_the_same_world_and_right():
    sample = RuleWorld(seed=6).sample(4, (0, 1), questions=6)
    assert len(sample) == 24
    for number, (problem, formulas) in enumerate(sample):
        assert problem.premises == sample[number // 6 * 6][0].premises
        assert entails(formulas[:-1], formulas[-1], engine="z3").verdict.name == problem.label.upper()
        assert problem.label == "Uncertain" or problem.depth in (0, 1)
        assert problem.label == "Uncertain" or shortest_proof(formulas) == problem.depth
    assert len({problem.conclusion for problem, _ in sample[:6]}) == 6


def test_neither_length_nor_the_question_gives_the_label_away():
    sample = [problem for problem, _ in RuleWorld(seed=7).sample(600)]
    assert {len(problem.premises) for problem in sample} == {14}
    negated = {
        label: [" not " in p.conclusion for p in sample if p.label == label] for label in ("True", "False", "Uncertain")
    }
    shares = [sum(values) / len(values) for values in negated.values()]
    assert max(shares) - min(shares) < 0.2
    subject = Counter()
    for problem in sample:
        name = " ".join(problem.conclusion.split()[: 2 if problem.conclusion.startswith("The ") else 1])
        about = sum(p.startswith(f"{name} ") for p in problem.premises)
        subject[problem.label, about] += 1
    assert {about for _, about in subject} == {1}


def test_the_two_vocabularies_share_no_open_word_and_no_way_of_joining_conditions():
    train, test = VOCABULARIES["train"], VOCABULARIES["test"]
    for kind in ("entities", "attributes", "verbs"):
        words = getattr(train, kind), getattr(test, kind)
        assert set(words[0]).isdisjoint(words[1])
        assert all(len(set(w)) == len(w) for w in words)
        assert not any(word.endswith("s") for w in words for word in w)  # a last s is the third person's
    assert set(train.rules).isdisjoint(test.rules)
    for place in (0, 1):  # but every frame and joint is seen in training
        assert {pair[place] for pair in test.rules} <= {pair[place] for pair in train.rules}
    opened = [
        {w.lower().removeprefix("the ") for k in ("entities", "attributes", "verbs") for w in getattr(v, k)}
        for v in (train, test)
    ]
    texts = [
        {
            word.lower()
            for p, _ in RuleWorld(vocabulary=v, seed=1).sample(60)
            for s in p.premises
            for word in re.findall(r"\w+", s)
        }
        for v in ("train", "test")
    ]
    for text, foreign in zip(texts, reversed(opened)):
        assert text.isdisjoint(foreign)


def test_sentences_say_what_formulas_say():
    rule = RuleOfWorld((Fact(True, "red", ("x",)), Fact(False, "chase", ("x", "the dog"))), Fact(False, "kind", ("x",)))
    world = RuleWorld(seed=0)
    said = {world._sentence(rule) for _ in range(60)}
    assert "If something is red and does not chase the dog then it is not kind." in said
    assert "Everything that is red and it does not chase the dog is not kind." in said
    assert world._sentence(Fact(True, "chase", ("Anne", "the dog"))) == "Anne chases the dog."
    assert world._sentence(Fact(False, "chase", ("the cat", "Anne"))) == "The cat does not chase Anne."
    plain = RuleOfWorld((Fact(True, "red", ("x",)),), Fact(True, "see", ("x", "Bob")))
    assert "All red things see Bob." in {world._sentence(plain) for _ in range(60)}


def test_consequences_are_the_shortest_derivations():
    a, b, c = (RuleOfWorld((Fact(True, p, ("x",)),), Fact(True, q, ("x",))) for p, q in ("ab", "bc", "ac"))
    world = World((Fact(True, "a", ("Tom",)),), (a, b, c), Fact(True, "c", ("Tom",)), ("Tom", "Ann"))
    assert {(f.predicate, f.arguments): d for f, d in world.consequences().items()} == {
        ("a", ("Tom",)): 0,
        ("b", ("Tom",)): 1,
        ("c", ("Tom",)): 1,
    }


def test_a_seed_gives_the_same_problems():
    one, same, other = (RuleWorld(seed=seed).sample(6) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert all(isinstance(f, Atom | Not | ForAll) for _, formulas in one for f in formulas)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_entities": 1}, "n_entities: 1"),
        ({"n_attributes": 100}, "n_attributes: 100"),
        ({"n_attributes": 5, "n_relations": 0}, "two chains of 5 steps"),
        ({"max_depth": 0}, "max_depth: 0"),
        ({"vocabulary": "dev"}, "vocabulary: 'dev'"),
        ({"n_rules": 3}, "n_rules: 3"),
    ],
)
def test_bad_worlds_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        RuleWorld(**options)


def test_bad_samples_and_problems_are_refused_by_name():
    with pytest.raises(ValueError, match="n: 0"):
        RuleWorld().sample(0)
    with pytest.raises(ValueError, match="depths: "):
        RuleWorld().sample(3, depths=(9,))
    with pytest.raises(ValueError, match=r"premises: \(\)"):
        LogicProblem((), "Tom is a cat.")
    with pytest.raises(ValueError, match=r"premises\[1\]: ' '"):
        LogicProblem(("Tom is a cat.", " "), "Tom is a cat.")
    with pytest.raises(ValueError, match="conclusion: ''"):
        LogicProblem(("Tom is a cat.",), "")
    with pytest.raises(ValueError, match="label: 'Maybe'"):
        LogicProblem(("Tom is a cat.",), "Tom is a cat.", "Maybe")
