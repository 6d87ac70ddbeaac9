"""Formulas for hypothesis: every kind, closed or not, with names that dialects must quote or leave alone."""

from hypothesis import strategies as st

from etude.reasoning.logic import And, Atom, Constant, Equal, Exists, ForAll, Function, Iff, Implies, Not, Or, Variable

VARIABLES = [Variable(name) for name in ("x", "y", "z1", "w")]
PREDICATES = ["P", "Cold", "likes", "is_2", "Über", "fof", "_p"]
NAMES = ["a", "Bob", "New_York", "e5", "2008", "José"]


def terms(depth=1):
    leaves = st.sampled_from(VARIABLES) | st.sampled_from(NAMES).map(Constant)
    if depth == 0:
        return leaves
    applied = st.builds(
        lambda name, arguments: Function(f"f{name}{len(arguments)}", tuple(arguments)),
        st.sampled_from(["g", "H"]),
        st.lists(terms(depth - 1), min_size=1, max_size=2),
    )
    return leaves | applied


def formulas():
    atoms = st.builds(
        lambda predicate, arguments: Atom(predicate, tuple(arguments)),
        st.sampled_from(PREDICATES),
        st.lists(terms(), max_size=3),
    ) | st.builds(Equal, terms(), terms())

    def extend(inner):
        several = st.lists(inner, min_size=2, max_size=4).map(tuple)
        return (
            inner.map(Not)
            | several.map(And)
            | several.map(Or)
            | st.builds(Implies, inner, inner)
            | st.builds(Iff, inner, inner)
            | st.builds(ForAll, st.sampled_from(VARIABLES), inner)
            | st.builds(Exists, st.sampled_from(VARIABLES), inner)
        )

    return st.recursive(atoms, extend, max_leaves=12)
