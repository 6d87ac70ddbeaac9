"""Architectures and initialisations."""

from etude.nn.activations import ActivationTap, activations, stream_activations
from etude.nn.audio import LogMel, StreamingConvNet, mel_filters
from etude.nn.convolutional import conv_n, convolutional
from etude.nn.initialization import glorot_initialise_, glorot_normal_
from etude.nn.memory import MemoryNetwork, position_encoding
from etude.nn.mlp import lenet_300_100
from etude.nn.ngram_head import NGramHeads, NGramMixer, ngram_attention, ngram_mean, ngram_sum
from etude.nn.one_layer import one_layer_transformer
from etude.nn.recurrent import GatedLinearRecurrence, Recurrent, linear_recurrence
from etude.nn.residual import ResidualNetwork
from etude.nn.transformer import Attention, Block, Transformer, attention_mask, rotate, sinusoidal_positions

__all__ = [
    "ActivationTap",
    "Attention",
    "Block",
    "GatedLinearRecurrence",
    "LogMel",
    "MemoryNetwork",
    "NGramHeads",
    "NGramMixer",
    "Recurrent",
    "ResidualNetwork",
    "StreamingConvNet",
    "Transformer",
    "activations",
    "attention_mask",
    "conv_n",
    "convolutional",
    "glorot_initialise_",
    "glorot_normal_",
    "lenet_300_100",
    "linear_recurrence",
    "mel_filters",
    "ngram_attention",
    "ngram_mean",
    "ngram_sum",
    "one_layer_transformer",
    "position_encoding",
    "rotate",
    "sinusoidal_positions",
    "stream_activations",
]
