"""Where model-written code runs.

``Sandbox().run(source, entry, inputs)`` runs a program in a process of its own, with limits, and takes back data;
``check(sandbox)`` tries every known attack on a sandbox and says which succeeded.
"""

from etude.sandbox.attacks import ATTACKS, ATTACK_LIMITS, Attack, Attempt, check
from etude.sandbox.isolation import Isolation, LEVELS, probe
from etude.sandbox.limits import Limits, Result, same
from etude.sandbox.sandbox import Sandbox

__all__ = [
    "ATTACKS",
    "ATTACK_LIMITS",
    "Attack",
    "Attempt",
    "Isolation",
    "LEVELS",
    "Limits",
    "Result",
    "Sandbox",
    "check",
    "probe",
    "same",
]
