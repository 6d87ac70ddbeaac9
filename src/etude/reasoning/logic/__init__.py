"""First-order logic as data: formulas, their notations, and what follows from what.

>>> from etude.reasoning.logic import entails, parse, to_tptp
>>> proof = entails(["all x.(Cat(x) -> Animal(x))", "Cat(Tom)"], "Animal(Tom)")
>>> proof.verdict.name, proof.premises_used
('TRUE', (0, 1))
>>> print(entails(["∀x (Cat(x) → Animal(x))", "Animal(Tom)"], "Cat(Tom)").countermodel)
domain: Tom
Animal: Tom
Cat: nowhere
>>> to_tptp(parse("Exists x. (Cat(x) xor Dog(x))"))
"? [X] : ('Cat'(X) <~> 'Dog'(X))"

Formulas are values: nothing in them is ever evaluated as code.
"""

from etude.reasoning.logic.entailment import ENGINES, Proof, Verdict, entails, negated, verify
from etude.reasoning.logic.enumeration import by_enumeration, random_theory
from etude.reasoning.logic.formulas import (
    And,
    Atom,
    Constant,
    Equal,
    Exists,
    ForAll,
    Formula,
    Function,
    Iff,
    Implies,
    Not,
    Or,
    Signature,
    Variable,
    closure,
    exclusive_or,
    free_variables,
    negation,
    renamed,
    signature,
)
from etude.reasoning.logic.interpretation import Interpretation
from etude.reasoning.logic.notation import parse, to_nltk, to_tptp, to_unicode

__all__ = [
    "ENGINES",
    "And",
    "Atom",
    "Constant",
    "Equal",
    "Exists",
    "ForAll",
    "Formula",
    "Function",
    "Iff",
    "Implies",
    "Interpretation",
    "Not",
    "Or",
    "Proof",
    "Signature",
    "Variable",
    "Verdict",
    "by_enumeration",
    "closure",
    "entails",
    "exclusive_or",
    "free_variables",
    "negated",
    "negation",
    "parse",
    "random_theory",
    "renamed",
    "signature",
    "to_nltk",
    "to_tptp",
    "to_unicode",
    "verify",
]
