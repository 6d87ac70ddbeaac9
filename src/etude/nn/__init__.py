"""Architectures and initialisations."""

from etude.nn.activations import ActivationTap, activations, stream_activations
from etude.nn.audio import LogMel, StreamingConvNet, mel_filters
from etude.nn.convolutional import Autoencoder, conv_n, convolutional, convolutional_autoencoder
from etude.nn.initialization import glorot_initialise_, glorot_normal_
from etude.nn.memory import MemoryNetwork, position_encoding
from etude.nn.mlp import lenet_300_100
from etude.nn.ngram_head import NGramHeads, NGramMixer, ngram_attention, ngram_mean, ngram_sum
from etude.nn.one_layer import one_layer_transformer
from etude.nn.pointer_generator import PointerGenerator, pointer_loss
from etude.nn.prototype import (
    Explanation,
    LossTerms,
    NearestExamples,
    PrototypeClassifier,
    PrototypeModel,
    PrototypeOutput,
    k_means,
    prototype_loss,
    squared_distances,
)
from etude.nn.recurrent import GatedLinearRecurrence, Recurrent, linear_recurrence
from etude.nn.residual import ResidualNetwork
from etude.nn.transformer import Attention, Block, Transformer, attention_mask, rotate, sinusoidal_positions

__all__ = [
    "ActivationTap",
    "Attention",
    "Autoencoder",
    "Block",
    "Explanation",
    "GatedLinearRecurrence",
    "LogMel",
    "LossTerms",
    "MemoryNetwork",
    "NGramHeads",
    "NGramMixer",
    "NearestExamples",
    "PointerGenerator",
    "PrototypeClassifier",
    "PrototypeModel",
    "PrototypeOutput",
    "Recurrent",
    "ResidualNetwork",
    "StreamingConvNet",
    "Transformer",
    "activations",
    "attention_mask",
    "conv_n",
    "convolutional",
    "convolutional_autoencoder",
    "glorot_initialise_",
    "glorot_normal_",
    "k_means",
    "lenet_300_100",
    "linear_recurrence",
    "mel_filters",
    "ngram_attention",
    "ngram_mean",
    "ngram_sum",
    "one_layer_transformer",
    "pointer_loss",
    "position_encoding",
    "prototype_loss",
    "rotate",
    "sinusoidal_positions",
    "squared_distances",
    "stream_activations",
]
