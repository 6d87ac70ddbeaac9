"""What every study must do at smoke, whatever it measures."""

import matplotlib.pyplot as plt


def judged(study, evidence):
    """The verdicts by claim, each of the study's claims having one that its rule gave without an error."""
    assert not evidence.failures
    verdicts = {verdict.claim: verdict for verdict in study.judge(evidence)}
    assert verdicts.keys() == study.claims.keys()
    assert not any(verdict.error for verdict in verdicts.values())
    return verdicts


def untested(verdicts):
    """The claims that could not be judged."""
    return [claim for claim, verdict in verdicts.items() if verdict.status == "untested"]


def legend_of(draw, evidence):
    """Draw a figure whose axes must be labelled, and return what its legend says."""
    figure, axes = plt.subplots()
    draw(evidence, axes)
    figure.canvas.draw()
    assert "" not in (axes.get_xlabel(), axes.get_ylabel())
    plt.close(figure)
    return [text.get_text() for text in axes.get_legend().get_texts()]
