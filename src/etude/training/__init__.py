"""What changes how a network learns, and plain training to compare it with."""

from etude.training.classification import Run, evaluate, fit
from etude.training.ctc import (
    AlignWithPurpose,
    ComposedProperty,
    EarlierEmission,
    Emissions,
    FewerWordErrors,
    LaterEmission,
    alignment_scores,
    check_ctc,
    check_emissions,
    collapse_alignments,
    collapses_to,
    sample_alignments,
    viterbi_align,
)
from etude.training.ctc_decoding import (
    ctc_beam_search,
    ctc_greedy_search,
    emission_delays,
    labels_to_text,
    text_error_rate,
)
from etude.training.ctc_latency import delay_penalised_ctc_loss, peak_first_loss, trim_tail
from etude.training.schedules import AfterStep, Constant, FirstSteps, LinearDecay, PowerDecay
from etude.training.speech import SpeechCorpus, digit_corpus, fit_ctc

__all__ = [
    "AfterStep",
    "AlignWithPurpose",
    "ComposedProperty",
    "Constant",
    "EarlierEmission",
    "Emissions",
    "FewerWordErrors",
    "FirstSteps",
    "LaterEmission",
    "LinearDecay",
    "PowerDecay",
    "Run",
    "SpeechCorpus",
    "alignment_scores",
    "check_ctc",
    "check_emissions",
    "collapse_alignments",
    "collapses_to",
    "ctc_beam_search",
    "ctc_greedy_search",
    "delay_penalised_ctc_loss",
    "digit_corpus",
    "emission_delays",
    "evaluate",
    "fit",
    "fit_ctc",
    "labels_to_text",
    "peak_first_loss",
    "sample_alignments",
    "text_error_rate",
    "trim_tail",
    "viterbi_align",
]
