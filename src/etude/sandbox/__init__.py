"""Where model-written code runs.

``Sandbox().run(source, entry, inputs)`` runs a program in a process of its own, with limits, and takes back data;
``check(sandbox)`` tries every known attack on a sandbox and says which succeeded.
"""

from etude.sandbox.attacks import ATTACK_LIMITS, ATTACKS, Attack, Attempt, check
from etude.sandbox.isolation import LEVELS, Isolation, probe
from etude.sandbox.limits import Limits, Result, same
from etude.sandbox.sandbox import Sandbox

__all__ = [
    "ATTACKS",
    "ATTACK_LIMITS",
    "LEVELS",
    "Attack",
    "Attempt",
    "Isolation",
    "Limits",
    "Result",
    "Sandbox",
    "check",
    "probe",
    "same",
]
