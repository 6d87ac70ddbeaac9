"""In-context learning: tasks, probes of attention heads and learning curves, and exact references to compare with."""

from etude.in_context.item_label import (
    ExemplarItems,
    GaussianItems,
    ItemLabelSequences,
    ItemLabelTask,
    Items,
    Marginal,
    context_label_accuracy,
    encode,
    in_context_accuracy,
    in_context_ceiling,
    in_weights_accuracy,
    interleave,
    nearest_exemplar,
)
from etude.in_context.probes import Transition, head_score, previous_position, transition

__all__ = [
    "ExemplarItems",
    "GaussianItems",
    "ItemLabelSequences",
    "ItemLabelTask",
    "Items",
    "Marginal",
    "Transition",
    "context_label_accuracy",
    "encode",
    "head_score",
    "in_context_accuracy",
    "in_context_ceiling",
    "in_weights_accuracy",
    "interleave",
    "nearest_exemplar",
    "previous_position",
    "transition",
]
