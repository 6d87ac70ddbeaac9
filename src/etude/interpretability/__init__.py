"""What a network has learned: representations, and how those of two networks compare."""

from etude.interpretability.similarity import (
    cka_from_grams,
    cka_matrix,
    cka_pairs,
    error_consistency,
    gram,
    linear_cka,
    rsa,
)

__all__ = ["cka_from_grams", "cka_matrix", "cka_pairs", "error_consistency", "gram", "linear_cka", "rsa"]
