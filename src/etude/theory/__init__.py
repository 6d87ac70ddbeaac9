"""Theory of learning as parts to use: kernels of infinitely wide networks, in closed form and at any depth."""

from etude.theory.dual_activation import (
    Activation,
    ErfActivation,
    HermiteActivation,
    ReLUActivation,
    SineActivation,
    dual_by_quadrature,
    optimal_activation,
    sine_activation,
)
from etude.theory.finite_width import empirical_ntk, finite_width_ntk
from etude.theory.ntk import (
    KernelTable,
    limit_kernel,
    log_limit_kernel,
    log_nngp,
    nngp,
    ntk,
    ridgeless,
)
from etude.theory.report_card import ReportCard, report_card
from etude.theory.singular_kernel import SingularKernelClassifier, intrinsic_dimension

__all__ = [
    "Activation",
    "ErfActivation",
    "HermiteActivation",
    "KernelTable",
    "ReLUActivation",
    "ReportCard",
    "SineActivation",
    "SingularKernelClassifier",
    "dual_by_quadrature",
    "empirical_ntk",
    "finite_width_ntk",
    "intrinsic_dimension",
    "limit_kernel",
    "log_limit_kernel",
    "log_nngp",
    "nngp",
    "ntk",
    "optimal_activation",
    "report_card",
    "ridgeless",
    "sine_activation",
]
