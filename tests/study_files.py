"""A small study as text, for tests that write study files."""

HEAD = '''
"""Does it work?"""
import os, time
from pathlib import Path
import numpy as np, pandas as pd
from etude.study import *
from etude.study import Config as Base


class Config(Base):
    size: int = 10
    """How many numbers."""
    shift: float = 0.0
    other: str = "x"


study = Study(
    paper=Paper("A paper", "Somebody", 2020, "2001.00001"),
    topic="testing",
    presets={
        "smoke": Config(seeds=2, size=3),
        "laptop": Config(),
        "extended": Config(seeds=10),
        "paper": Config(seeds=20),
    },
)
'''

BODY = '''
@study.measure(over=lambda c: grid(arm=("a", "b")))
def draw(lab, config, *, arm):
    x = lab.generator("numbers", "numpy").normal(size=config.size)
    lab.record(value=float(x.mean()) + (config.shift if arm == "b" else 0.0))


@study.claim(reported="b is higher")
def b_is_higher(e):
    """The second arm is higher."""
    return mean(e[draw].at(arm="b")["value"] - e[draw].at(arm="a")["value"]) > 0


@study.figure
def values(e, axes):
    for arm, rows in e[draw].split("arm"):
        axes.plot(rows["value"], label=arm)
'''
