"""Architectures and initialisations."""

from etude.nn.audio import LogMel, StreamingConvNet, mel_filters
from etude.nn.convolutional import conv_n, convolutional
from etude.nn.initialization import glorot_initialise_, glorot_normal_
from etude.nn.mlp import lenet_300_100
from etude.nn.recurrent import GatedLinearRecurrence, Recurrent, linear_recurrence
from etude.nn.transformer import Attention, Block, Transformer, attention_mask, rotate, sinusoidal_positions

__all__ = [
    "Attention",
    "Block",
    "GatedLinearRecurrence",
    "LogMel",
    "Recurrent",
    "StreamingConvNet",
    "Transformer",
    "attention_mask",
    "conv_n",
    "convolutional",
    "glorot_initialise_",
    "glorot_normal_",
    "lenet_300_100",
    "linear_recurrence",
    "mel_filters",
    "rotate",
    "sinusoidal_positions",
]
