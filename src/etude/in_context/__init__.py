"""In-context learning: tasks, probes of attention heads and learning curves, and exact references to compare with."""

from etude.in_context.probes import Transition, head_score, previous_position, transition

__all__ = ["Transition", "head_score", "previous_position", "transition"]
