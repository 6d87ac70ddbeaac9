"""Classifiers that decide by distances to learned prototypes, and can say so.

An encoder f maps an example to a code; the logits are a linear map of the squared distances of the code to m prototype
vectors, so that "this is near prototype 3, which speaks for class 7" is the computation itself. A decoder, where there
is one, shows a prototype as an image. It plays no part in the decision: see `etude.interpretability` for what such a
picture is worth.

Source: Li, Liu, Chen and Rudin, Deep Learning for Case-Based Reasoning through Prototypes, AAAI 2018 (arXiv
1710.04806).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from etude.nn.activations import evaluating
from etude.savable import Savable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Batches = Iterable[Any]  # of inputs, or of pairs (inputs, labels), as a DataLoader gives them

__all__ = [
    "Explanation",
    "LossTerms",
    "NearestExamples",
    "PrototypeClassifier",
    "PrototypeModel",
    "PrototypeOutput",
    "k_means",
    "prototype_loss",
    "squared_distances",
]


class PrototypeOutput(NamedTuple):
    """What `PrototypeClassifier` gives for a batch.

    Attributes:
        logits: (n, K).
        squared_distances: of each code to each prototype, (n, m).
        reconstruction: the decoded codes, of the inputs' shape; None without a decoder.
        codes: flat, (n, q).
    """

    logits: Float[Tensor, "n K"]
    squared_distances: Float[Tensor, "n m"]
    reconstruction: Float[Tensor, "n ..."] | None
    codes: Float[Tensor, "n q"]


class LossTerms(NamedTuple):
    """The terms of `prototype_loss`, each without its weight, and their weighted sum.

    Attributes:
        total: what to minimise.
        classification: mean cross-entropy in nats.
        reconstruction: mean over examples of the squared error, summed over pixels; 0 without a decoder.
        prototype_to_data: R1, mean over prototypes of the squared distance to the batch's nearest code.
        data_to_prototype: R2, mean over examples of the squared distance to the nearest prototype.
    """

    total: Float[Tensor, ""]
    classification: Float[Tensor, ""]
    reconstruction: Float[Tensor, ""]
    prototype_to_data: Float[Tensor, ""]
    data_to_prototype: Float[Tensor, ""]


class NearestExamples(NamedTuple):
    """The examples whose codes are nearest to each prototype, nearest first.

    Attributes:
        indices: places in the order of the loader, (m, k).
        squared_distances: between code and prototype, (m, k).
        examples: the inputs, (m, k, ...).
        labels: (m, k); None if the loader gives none.
        codes: (m, k, q).
    """

    indices: Int64[Tensor, "m k"]
    squared_distances: Float[Tensor, "m k"]
    examples: Float[Tensor, "m k ..."]
    labels: Int64[Tensor, "m k"] | None
    codes: Float[Tensor, "m k q"]


def squared_distances(a: Float[Tensor, "n q"], b: Float[Tensor, "m q"]) -> Float[Tensor, "n m"]:
    """||a_i - b_j||^2 for every pair of rows: never negative, and exactly 0 for equal rows.

    The differences are formed, as ||a||^2 + ||b||^2 - 2 a.b would lose small distances to rounding and go below zero.
    Half precision is computed in single precision.

    Args:
        a: (n, q).
        b: (m, q), on the same device.

    Raises:
        ValueError: other shapes.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"a, b: shapes {tuple(a.shape)} and {tuple(b.shape)}; (n, q) and (m, q) are accepted")
    a, b = (x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in (a, b))
    return (a[:, None] - b).square().sum(-1)


def prototype_loss(
    output: PrototypeOutput,
    x: Float[Tensor, "n ..."],
    y: Int64[Tensor, " n"],
    *,
    classification: float = 20.0,
    reconstruction: float = 1.0,
    prototype_to_data: float = 1.0,
    data_to_prototype: float = 1.0,
) -> LossTerms:
    """L = l_c CE + l_r mean_i ||g(f(x_i)) - x_i||^2 + l_1 R1 + l_2 R2, with each term.

        R1 = (1/m) sum_j min_i ||p_j - f(x_i)||^2   (every prototype is near an example of the batch)
        R2 = (1/n) sum_i min_j ||f(x_i) - p_j||^2   (every example is near a prototype)

    R1's minimum is over the batch, so that its value depends on the batch's size; under DistributedDataParallel it is
    over each process's own part. Reconstruction is a sum over pixels and the distances grow with the code, so weights
    do not carry over from one architecture to another.

    Args:
        output: the model's, for this batch.
        x: the batch's inputs, what the reconstruction should be.
        y: their classes, 0 .. K-1. Their range is checked where they lie on the processor; on an accelerator, where
            looking would make every step wait, PyTorch's own assertion is left to find it.
        classification: l_c, at least 0, as all weights.
        reconstruction: l_r; without a decoder there is no such term.
        prototype_to_data: l_1.
        data_to_prototype: l_2.

    Returns:
        The total and the unweighted terms.

    Raises:
        ValueError: a weight that is negative or not finite, labels outside 0 .. K-1, or sizes that do not agree.

    Source: the paper's equations 1 to 4; the weights of the authors' program.
    """
    weights = (classification, reconstruction, prototype_to_data, data_to_prototype)
    for name, weight in zip(LossTerms._fields[1:], weights):
        if not 0 <= weight < float("inf"):
            raise ValueError(f"{name}={weight!r}: give a finite weight of at least 0")
    logits, distances, decoded, _ = output
    if not len(logits) == len(x) == len(y):
        raise ValueError(f"x, y: {len(x)} inputs and {len(y)} labels for an output of {len(logits)} examples")
    classes = logits.shape[1]
    if y.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(((y >= 0) & (y < classes)).all()):
        raise ValueError(f"y: labels from {int(y.min())} to {int(y.max())}; 0 to {classes - 1} are accepted")
    if decoded is not None and decoded.shape != x.shape:
        raise ValueError(f"x: shape {tuple(x.shape)}, the decoder's images have {tuple(decoded.shape)}")
    error = distances.new_zeros(()) if decoded is None else (decoded - x).square().flatten(1).sum(1).mean()
    terms = (cross_entropy(logits, y), error, distances.amin(0).mean(), distances.amin(1).mean())
    return LossTerms(sum(weight * term for weight, term in zip(weights, terms)), *terms)


class PrototypeModel(nn.Module):
    """An encoder, vectors in the space of its codes, and perhaps a decoder that shows them.

    What explanations by prototypes have in common, whether the network decides by them (`PrototypeClassifier`) or they
    were found afterwards (`etude.interpretability.PostHocPrototypes`). A subclass says how codes are classified.

    Args:
        encoder: (n, ...) -> codes (n, *code_shape).
        decoder: (n, *code_shape) -> images of the inputs' shape; or None.
        prototypes: the vectors, (m, q), q the product of `code_shape`.
        n_classes: K.
        code_shape: of one code.

    Raises:
        ValueError: the `decoder` does not take codes of `code_shape`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module | None,
        prototypes: Float[Tensor, "m q"],
        n_classes: int,
        code_shape: Sequence[int],
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.n_classes, self.code_shape = n_classes, tuple(code_shape)
        self.prototypes = nn.Parameter(prototypes)
        leaves = [] if decoder is None else [module for module in decoder.modules() if not list(module.children())]
        self._within_one = bool(leaves) and isinstance(leaves[-1], nn.Sigmoid)
        self._examined = False
        if decoder is not None:
            like = next(decoder.parameters(), prototypes)
            with evaluating(decoder), torch.no_grad():
                try:
                    decoder(torch.zeros(1, *self.code_shape, dtype=like.dtype, device=like.device))
                except RuntimeError as error:
                    raise ValueError(f"decoder: it takes no codes of code_shape={self.code_shape}: {error}") from error

    def encode(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n q"]:
        """Codes, flat.

        Args:
            x: inputs.

        Raises:
            ValueError: codes of another shape than `code_shape`, or, with a decoder that ends in a sigmoid, inputs
                outside [0, 1] (on an accelerator only the first batch is looked at).
        """
        if self._within_one and not torch.compiler.is_compiling() and not (self._examined and x.device.type != "cpu"):
            low, high = map(float, torch.aminmax(x.detach())) if x.numel() else (0.0, 0.0)
            self._examined = True
            if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
                raise ValueError(
                    f"x: values from {low:.4g} to {high:.4g}, but the decoder ends in a sigmoid, which gives images in "
                    "[0, 1]; scale the images, or leave the sigmoid out"
                )
        codes = self.encoder(x)
        if codes.shape[1:] != self.code_shape:
            raise ValueError(
                f"encoder: its codes have shape {tuple(codes.shape[1:])}, but the decoder's input and the prototypes "
                f"have code_shape={self.code_shape}; make them the same (nn.Flatten and nn.Unflatten change a shape)"
            )
        return codes.flatten(1)

    def decode(self, codes: Float[Tensor, "n q"]) -> Float[Tensor, "n ..."]:
        """The decoder's images of flat codes.

        Args:
            codes: (n, q).

        Raises:
            ValueError: there is no decoder.
        """
        if self.decoder is None:
            raise ValueError("decoder: there is none to show codes with; nearest_examples(loader) shows prototypes")
        return self.decoder(codes.unflatten(1, self.code_shape))

    def classify(self, codes: Float[Tensor, "n q"]) -> Float[Tensor, "n K"]:
        """Logits of flat codes.

        Args:
            codes: (n, q).
        """
        raise NotImplementedError

    def prototype_classes(self) -> Int64[Tensor, " m"]:
        """The class that each prototype speaks for."""
        raise NotImplementedError

    def decode_prototypes(self) -> Float[Tensor, "m ..."]:
        """Each prototype as the decoder shows it, in evaluation mode and without a graph.

        Raises:
            ValueError: there is no decoder.
        """
        with evaluating(self), torch.no_grad():
            return self.decode(self.prototypes)

    def nearest_examples(self, loader: Batches, k: int = 1) -> NearestExamples:
        """The examples whose codes are nearest to each prototype, in one pass that keeps `k` of each.

        Args:
            loader: batches of inputs, or of inputs and labels; ``[(x, y)]`` for tensors.
            k: how many, at least 1.

        Raises:
            ValueError: `k` below 1, or fewer than `k` examples.
        """
        if k < 1:
            raise ValueError(f"k={k}: give a number of at least 1")
        best = self.prototypes.detach()[:, :0]  # squared distances
        kept: list[Tensor] = []  # indices, codes, examples, perhaps labels
        seen = 0
        with evaluating(self), torch.no_grad():
            for x, y in batches(loader, self.prototypes.device):
                codes = self.encode(x)
                distances = torch.cat([best.to(codes), squared_distances(self.prototypes, codes)], 1)
                distances, order = distances.sort(dim=1, stable=True)
                best, order, old = distances[:, :k], order[:, :k], best.shape[1]
                new = [torch.arange(seen, seen + len(x), device=codes.device), codes, x] + ([] if y is None else [y])
                new = [t[(order - old).clamp(min=0)] for t in new]
                prototype, place = torch.nonzero(order < old, as_tuple=True)  # those that were nearer before
                for t, before in zip(new, kept):
                    t[prototype, place] = before[prototype, order[prototype, place]]
                kept, seen = new, seen + len(x)
        if seen < k:
            raise ValueError(f"loader: it gives {seen} examples; at least k={k} are needed")
        return NearestExamples(kept[0], best, kept[2], kept[3] if len(kept) > 3 else None, kept[1])

    @torch.no_grad()
    def project_prototypes(self, loader: Batches) -> NearestExamples:
        """Replace each prototype by the nearest code of an example, in place, so that it is a case that exists.

        Args:
            loader: batches of training inputs, or of inputs and labels.

        Returns:
            What each prototype has become, with the squared distance by which it moved.

        Raises:
            ValueError: there are no examples.

        Source: Chen et al., This Looks Like That, NeurIPS 2019 (arXiv 1806.10574), section 2.2.
        """
        nearest = self.nearest_examples(loader)
        self.prototypes.copy_(nearest.codes[:, 0])
        return nearest


class PrototypeClassifier(PrototypeModel):
    """logits = d(x) W with d_j(x) = ||f(x) - p_j||^2, and no bias.

    A negative W_jk means that being near prototype j speaks for class k. As W is free, a far prototype may also speak
    for a class by a positive weight: look at all contributions of an explanation.

    ::

        encoder, decoder, code_shape = convolutional_autoencoder()     # or any two modules of yours
        model = PrototypeClassifier(encoder, decoder, 15, 10, code_shape=code_shape)
        loss = prototype_loss(model(x), x, y).total                    # in your own loop, with your own optimizer

    Args:
        encoder: any module (n, ...) -> codes (n, *code_shape).
        decoder: any module (n, *code_shape) -> images; or None: then nothing is reconstructed, and prototypes are shown
            by `nearest_examples`.
        n_prototypes: m, at least 1; with fewer than `n_classes` there is a warning.
        n_classes: K, at least 2.
        code_shape: of one code, such as ``(10, 2, 2)`` or ``(40,)``.
        init: where prototypes start: ``"uniform"`` in [0, 1]; ``"samples"``, the codes of different examples;
            ``"kmeans"``, the centres of k-means on the codes of the examples. W starts uniform in [0, 1].
        examples: the inputs for the latter two.
        generator: where they are drawn from; by default torch's own.

    Raises:
        ValueError: a number out of range, another `init`, `examples` that are missing or too few, or a `decoder` that
            does not take codes of `code_shape`.

    Example:
        >>> encoder = nn.Sequential(nn.Linear(20, 8), nn.Tanh())       # a user's own networks
        >>> decoder = nn.Linear(8, 20)
        >>> x, y = torch.randn(64, 20), torch.arange(64) % 3
        >>> model = PrototypeClassifier(encoder, decoder, 6, 3, code_shape=(8,), init="samples", examples=x)
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        >>> for step in range(5):
        ...     optimizer.zero_grad()
        ...     prototype_loss(model(x), x, y).total.backward()
        ...     _ = optimizer.step()
        >>> explanation = model.explain(x[:1])
        >>> torch.allclose(explanation.contributions.sum(1), model(x[:1]).logits, atol=1e-4)
        True

    Source: the paper's section 3.1; initial values of the authors' program.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module | None,
        n_prototypes: int = 15,
        n_classes: int = 10,
        *,
        code_shape: Sequence[int],
        init: Literal["uniform", "kmeans", "samples"] = "uniform",
        examples: Float[Tensor, "n ..."] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        for name, value, least in (("n_prototypes", n_prototypes, 1), ("n_classes", n_classes, 2)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r}: give a whole number of at least {least}")
        if n_prototypes < n_classes:
            warnings.warn(
                f"n_prototypes={n_prototypes}: fewer than the {n_classes} classes, so that some get none of their own",
                stacklevel=2,
            )
        if init not in ("uniform", "kmeans", "samples"):
            raise ValueError(f"init={init!r}: give 'uniform', 'kmeans' or 'samples'")
        if (init == "uniform") != (examples is None):
            wanted = "starts from their codes" if examples is None else "needs none"
            raise ValueError(f"examples: init={init!r} {wanted}")
        if examples is not None and len(examples) < n_prototypes:
            raise ValueError(f"examples: {len(examples)} were given; at least n_prototypes={n_prototypes} are accepted")
        like = next(encoder.parameters(), torch.empty(0))
        features = torch.Size(code_shape).numel()
        device = None if generator is None else generator.device
        start = torch.rand(n_prototypes, features, generator=generator, device=device).to(like)
        super().__init__(encoder, decoder, start, n_classes, code_shape)
        self.weight = nn.Parameter(torch.rand(n_prototypes, n_classes, generator=generator, device=device).to(like))
        if examples is not None:
            with evaluating(self), torch.no_grad():
                codes = self.encode(examples)
                if init == "samples":
                    chosen = torch.randperm(len(codes), generator=generator, device=device)[:n_prototypes]
                    start = codes[chosen.to(codes.device)]
                else:
                    start = k_means(codes, n_prototypes, generator)
                self.prototypes.copy_(start)

    def forward(self, x: Float[Tensor, "n ..."]) -> PrototypeOutput:
        """Logits, squared distances, reconstruction and codes.

        Args:
            x: inputs.

        Raises:
            ValueError: as `encode` does.
        """
        codes = self.encode(x)
        distances = squared_distances(codes, self.prototypes)
        decoded = None if self.decoder is None else self.decode(codes)
        return PrototypeOutput(distances @ self.weight.to(distances), distances, decoded, codes)

    def classify(self, codes: Float[Tensor, "n q"]) -> Float[Tensor, "n K"]:
        """Logits of flat codes.

        Args:
            codes: (n, q).
        """
        return squared_distances(codes, self.prototypes) @ self.weight

    def prototype_classes(self) -> Int64[Tensor, " m"]:
        """The class of the most negative weight of each prototype."""
        return self.weight.argmin(1)

    def explain(self, x: Float[Tensor, "n ..."], k: int = 3) -> Explanation:
        """Why the inputs are classified as they are: the computation of their logits, prototype by prototype.

        Args:
            x: inputs, a batch; ``x[:1]`` for one.
            k: how many of the nearest prototypes to name, 1 to m.

        Raises:
            ValueError: `k` out of range, or as `encode` does.
        """
        if not 1 <= k <= len(self.prototypes):
            raise ValueError(f"k={k}: give a number from 1 to the {len(self.prototypes)} prototypes")
        with evaluating(self), torch.no_grad():
            distances = squared_distances(self.encode(x), self.prototypes)
            return Explanation(
                inputs=x,
                logits=distances @ self.weight,
                squared_distances=distances,
                contributions=distances[:, :, None] * self.weight,
                nearest=distances.sort(dim=1, stable=True).indices[:, :k],
                classes=self.prototype_classes(),
                pictures=None if self.decoder is None else self.decode(self.prototypes),
            )


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Savable):
    """How a prototype classifier came to its logits; prints as a table.

    Attributes:
        inputs: what was classified, (n, ...).
        logits: (n, K).
        squared_distances: d, (n, m).
        contributions: d_j W_jk, (n, m, K); summed over prototypes they are the logits.
        nearest: the k nearest prototypes, nearest first, (n, k).
        classes: the class of each prototype's most negative weight, (m,).
        pictures: the decoded prototypes, (m, ...); None without a decoder. They play no part in the computation.
    """

    inputs: Float[Tensor, "n ..."]
    logits: Float[Tensor, "n K"]
    squared_distances: Float[Tensor, "n m"]
    contributions: Float[Tensor, "n m K"]
    nearest: Int64[Tensor, "n k"]
    classes: Int64[Tensor, " m"]
    pictures: Float[Tensor, "m ..."] | None

    def margins(self) -> Float[Tensor, "n m"]:
        """What each prototype contributes to the logit of the predicted class above that of the second best one."""
        best, second = self.logits.topk(2, dim=1).indices.split(1, dim=1)
        m = self.contributions.shape[1]
        own, other = (self.contributions.gather(2, at[:, None].expand(-1, m, 1))[:, :, 0] for at in (best, second))
        return own - other

    def frame(self) -> pd.DataFrame:
        """One row an input and prototype: distance, the prototype's class, and what it adds to the margin."""
        import pandas as pd

        n, m = self.squared_distances.shape
        columns = {
            "input": torch.arange(n).repeat_interleave(m),
            "prototype": torch.arange(m).repeat(n),
            "squared_distance": self.squared_distances.flatten(),
            "prototype_class": self.classes.repeat(n),
            "predicted_class": self.logits.argmax(1).repeat_interleave(m),
            "margin": self.margins().flatten(),
        }
        return pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})

    def plot(self, axes: Axes, index: int = 0, classes: Sequence[str] | None = None) -> None:
        """Draw one input, its nearest prototypes as the decoder shows them, and what every prototype contributes.

        Args:
            axes: matplotlib's.
            index: which of the inputs.
            classes: the names of the classes; by default their numbers.

        Raises:
            ValueError: there are no `pictures`, or they are no images.
        """
        if self.pictures is None or self.inputs.ndim != 4:
            raise ValueError("pictures: there is no decoder that shows prototypes as images (channels, height, width)")
        names = [str(k) for k in range(self.logits.shape[1])] if classes is None else list(classes)
        best, second = self.logits[index].topk(2).indices.tolist()
        order = self.squared_distances[index].argsort(stable=True)
        margins, owners = self.margins()[index][order].tolist(), self.classes[order].tolist()
        axes.barh(range(len(margins)), margins, color=["C0" if value > 0 else "C1" for value in margins])
        axes.set_yticks(range(len(margins)), [names[k] for k in owners])
        axes.set(xlabel=f"contribution to the logit of {names[best]} above {names[second]}", ylabel="nearest first")
        axes.set_ylim(len(margins) - 0.4, -0.35 * len(margins))
        shown = [("input", self.inputs[index])]
        for k, j in zip(owners, self.nearest[index].tolist()):
            shown.append((f"{names[k]}: {self.squared_distances[index, j]:.2f}", self.pictures[j]))
        for place, (title, picture) in enumerate(shown):
            inset = axes.inset_axes((place / len(shown), 0.78, 0.9 / len(shown), 0.2))
            inset.imshow(picture.detach().cpu().movedim(0, -1).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
            inset.set_title(title, fontsize="x-small", loc="center", pad=2)
            inset.set_axis_off()

    def __repr__(self) -> str:
        lines = []
        for i, margins in enumerate(self.margins()[:_SHOWN].tolist()):
            best, second = self.logits[i].topk(2).indices.tolist()
            lines.append(f"input {i}: class {best}, before {second} by {sum(margins):.4g}")
            lines += [
                f"  prototype {j:<3} of class {self.classes[j]:<3} at squared distance "
                f"{self.squared_distances[i, j]:<9.4g} contributes {margins[j]:+.4g}"
                for j in self.nearest[i].tolist()
            ]
            others = sum(margins) - sum(margins[j] for j in self.nearest[i].tolist())
            lines.append(f"  the others contribute {others:+.4g}")
        return "\n".join(lines + ["..."] * (len(self.logits) > _SHOWN))


def k_means(codes: Float[Tensor, "n q"], k: int, generator: torch.Generator | None = None) -> Float[Tensor, "k q"]:
    """The centres that k-means finds (scikit-learn's, the best of four starts by k-means++).

    Args:
        codes: points, at least `k`.
        k: number of centres, at least 1.
        generator: decides the starts; by default torch's own.
    """
    from sklearn.cluster import KMeans

    device = None if generator is None else generator.device
    seed = int(torch.randint(2**31 - 1, (), generator=generator, device=device))
    found = KMeans(k, n_init=4, random_state=seed).fit(codes.detach().cpu().numpy())
    return torch.from_numpy(found.cluster_centers_).to(codes)


def batches(loader: Batches, device: torch.device) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Inputs and labels (or None) of each batch, on a device.

    Args:
        loader: batches of inputs or of pairs.
        device: where to.

    Raises:
        TypeError: a batch is neither.
    """
    for batch in loader:
        x, y = batch if isinstance(batch, (tuple, list)) and len(batch) == 2 else (batch, None)
        if not isinstance(x, Tensor):
            raise TypeError(f"loader: it gives a {type(batch).__name__}; inputs or pairs (inputs, labels) are accepted")
        yield x.to(device, non_blocking=True), None if y is None else y.to(device, non_blocking=True)


_ROUNDING = 1e-4  # interpolated pixels may leave [0, 1] by rounding
_SHOWN = 5
