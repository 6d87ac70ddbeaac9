"""Architectures and initialisations."""

from etude.nn.convolutional import conv_n, convolutional
from etude.nn.initialization import glorot_initialise_, glorot_normal_
from etude.nn.mlp import lenet_300_100

__all__ = ["conv_n", "convolutional", "glorot_initialise_", "glorot_normal_", "lenet_300_100"]
