"""What an explanation by prototypes is worth: measures that hold for learned prototypes and for ones found afterwards.

A decoded prototype is a picture of a vector, and the decision uses the vector. `manipulate_decoder` shows what follows:
another decoder shows another picture while no prediction changes, so the picture alone is no proof.

Source: Li, Liu, Chen and Rudin, AAAI 2018 (arXiv 1710.04806), section 4, where most of this is judged by eye; Hoffmann,
Fanconi, Rade and Kohler, This Looks Like That... Does it?, 2021 (arXiv 2105.02968), for the doubts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from etude.nn.activations import evaluating
from etude.nn.prototype import Batches, PrototypeModel, batches, k_means, squared_distances
from etude.savable import Savable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = [
    "DecoderManipulation",
    "FaithfulnessReport",
    "PostHocPrototypes",
    "faithfulness_report",
    "manipulate_decoder",
    "nearest_image_distance",
]


class PostHocPrototypes(PrototypeModel):
    """Prototypes of a classifier that knows of none: the centres of k-means on its codes.

    The baseline for `PrototypeClassifier`: the network decides by its head, and a prototype's class is what the head
    says of the centre.

    Args:
        encoder: (n, ...) -> codes (n, *code_shape), trained.
        head: flat codes (n, q) -> logits (n, K), trained.
        loader: training inputs, or inputs and labels, as batches.
        n_prototypes: how many centres, at least 1.
        code_shape: of one code.
        decoder: shows codes as images, if there is one.
        generator: decides where k-means starts; by default torch's own.

    Raises:
        ValueError: `n_prototypes` below 1, or fewer examples than that.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        loader: Batches,
        n_prototypes: int,
        *,
        code_shape: Sequence[int],
        decoder: nn.Module | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if n_prototypes < 1:
            raise ValueError(f"n_prototypes={n_prototypes}: give a number of at least 1")
        like = next(encoder.parameters(), torch.empty(0))
        features = torch.Size(code_shape).numel()
        super().__init__(encoder, decoder, like.new_zeros(n_prototypes, features), 2, code_shape)
        self.head = head
        with evaluating(self), torch.no_grad():
            codes = torch.cat([self.encode(x) for x, _ in batches(loader, like.device)])
            if len(codes) < n_prototypes:
                raise ValueError(f"loader: it gives {len(codes)} examples for n_prototypes={n_prototypes}")
            self.prototypes.copy_(k_means(codes, n_prototypes, generator))
            self.n_classes = self.head(self.prototypes).shape[1]

    def forward(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n K"]:
        """Logits.

        Args:
            x: inputs.
        """
        return self.classify(self.encode(x))

    def classify(self, codes: Float[Tensor, "n q"]) -> Float[Tensor, "n K"]:
        """Logits of flat codes.

        Args:
            codes: (n, q).
        """
        return self.head(codes)

    def prototype_classes(self) -> Int64[Tensor, " m"]:
        """The class that the head gives to each centre."""
        return self.head(self.prototypes).argmax(1)


@dataclass(frozen=True, eq=False, repr=False)
class FaithfulnessReport(Savable):
    """How far prototypes stand for what a classifier does; prints as a table.

    Attributes:
        examples: how many were looked at.
        accuracy: share of them that the network classifies rightly.
        nearest_decides: share of them whose predicted class is that of the nearest prototype.
        label_agreement: share of prototypes whose class is the one that most of their nearest examples have.
        classes_covered: how many classes have a prototype that speaks for them.
        spread: mean squared distance of a code to the nearest prototype, divided by the codes' total variance: near 0
            where prototypes cover the data, 1 for a single one at the mean.
        effective_prototypes: exp of the entropy of the shares of examples nearest to each prototype, from 1 to m.
        realism: mean distance of a decoded prototype to the nearest image, divided by the median distance between an
            image and its nearest other one; below about 1 they lie as near to images as images do. NaN without a
            decoder. A blurred picture is near to many images: compare with that of the mean image.
        mean_image: the same number for the mean of all images, which looks like nothing; NaN without a decoder.
        prototypes: arrays of one entry a prototype: ``class``, ``vote`` (of the nearest examples), ``share`` (of the
            examples that are nearest to it), ``realism``.
    """

    examples: int
    accuracy: float
    nearest_decides: float
    label_agreement: float
    classes_covered: int
    spread: float
    effective_prototypes: float
    realism: float
    mean_image: float
    prototypes: dict[str, Tensor] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """All but the table, by name."""
        return {name: value for name, value in vars(self).items() if name != "prototypes"}

    def frame(self) -> pd.DataFrame:
        """One row a prototype."""
        import pandas as pd

        return pd.DataFrame({name: column.cpu().numpy() for name, column in self.prototypes.items()})

    def plot(self, axes: Axes) -> None:
        """Draw the share of examples nearest to each prototype; those whose class is not their neighbours' stand out.

        Args:
            axes: matplotlib's.
        """
        shares, classes, votes = (self.prototypes[name].tolist() for name in ("share", "class", "vote"))
        axes.bar(range(len(shares)), shares, color=["C0" if a == b else "C1" for a, b in zip(classes, votes)])
        axes.set_xticks(range(len(shares)), map(str, classes))
        axes.set(xlabel="class of the prototype", ylabel="share of examples nearest to it")

    def __repr__(self) -> str:
        lines = [f"  {name.replace('_', ' '):<21} {value:.4g}" for name, value in self.numbers().items()]
        return "\n".join([f"{len(self.prototypes['class'])} prototypes", *lines])


def faithfulness_report(
    model: PrototypeModel, loader: Batches, *, neighbours: int = 10, pairs: int = 500
) -> FaithfulnessReport:
    """Measure what a model's prototypes stand for, streaming over labelled data.

    Args:
        model: a `PrototypeClassifier`, `PostHocPrototypes` or other model with prototypes.
        loader: batches of inputs and labels, read several times and always in the same order. With training data
            `label_agreement` and `realism` say what the prototypes look like; with held-out data `spread`,
            `nearest_decides` and `effective_prototypes` say how far that carries.
        neighbours: examples that vote on what a prototype looks like, at least 1.
        pairs: images whose nearest other image is sought for the scale of `realism`: the first ones.

    Returns:
        The report. With a decoder the inputs must be images.

    Raises:
        ValueError: a number below 1, no labels, or fewer examples than `neighbours`.
        TypeError: `loader` is an iterator, which can be read only once.
    """
    for name, value in {"neighbours": neighbours, "pairs": pairs}.items():
        if value < 1:
            raise ValueError(f"{name}={value}: give a number of at least 1")
    _check_readable_again(loader)
    device = model.prototypes.device
    nearest = model.nearest_examples(loader, neighbours)
    if nearest.labels is None:
        raise ValueError("loader: it gives no labels; pairs (inputs, labels) are accepted")
    with evaluating(model), torch.no_grad():
        classes, m = model.prototype_classes(), len(model.prototypes)
        counts, least, seen = torch.zeros(m, device=device), torch.zeros((), dtype=torch.float64, device=device), 0
        right, followed = torch.zeros((2,), dtype=torch.int64, device=device)
        total = torch.zeros(model.prototypes.shape[1], dtype=torch.float64, device=device)
        squares, image_total = torch.zeros_like(total), None
        for x, y in batches(loader, device):
            codes = model.encode(x)
            distances, owner = squared_distances(codes, model.prototypes).min(1)
            predicted = model.classify(codes).argmax(1)
            right += (predicted == y).sum()
            followed += (predicted == classes[owner]).sum()
            counts += torch.bincount(owner, minlength=m)
            least += distances.double().sum()
            # The variance is taken around the first prototype, so that a large mean costs no digits.
            moved = codes.double() - model.prototypes[0].double()
            total, squares, seen = total + moved.sum(0), squares + moved.square().sum(0), seen + len(x)
            image_total = x.double().sum(0) + (0 if image_total is None else image_total)
        variance = float((squares / seen - (total / seen).square()).sum())
        shares = counts / seen
        realism, of_mean = torch.full((m,), float("nan")), float("nan")
        if model.decoder is not None:
            mean_image = (image_total / seen).to(model.prototypes)
            found = nearest_image_distance(
                torch.cat([model.decode_prototypes(), mean_image[None]]), loader, pairs=pairs
            )
            realism, of_mean = found[:-1], float(found[-1])
        votes = torch.zeros(m, model.n_classes, device=device)
        votes.scatter_add_(1, nearest.labels, torch.ones_like(nearest.labels, dtype=votes.dtype))
        vote = votes.argmax(1)
    return FaithfulnessReport(
        examples=seen,
        accuracy=float(right) / seen,
        nearest_decides=float(followed) / seen,
        label_agreement=float((classes == vote).double().mean()),
        classes_covered=len(classes.unique()),
        spread=float(least) / seen / variance if variance > 0 else float("nan"),
        effective_prototypes=float(torch.special.entr(shares).sum().exp()),
        realism=float(realism.mean()),
        mean_image=of_mean,
        prototypes={"class": classes, "vote": vote, "share": shares, "realism": realism},
    )


def nearest_image_distance(
    pictures: Float[Tensor, "m ..."], loader: Batches, *, pairs: int = 500
) -> Float[Tensor, " m"]:
    """Distance of each picture to the nearest image, in units of that between images.

    The unit is the median, over the loader's first images, of the distance to the nearest other image of all.

    Args:
        pictures: such as decoded prototypes.
        loader: batches of images, or of images and labels, read twice and in the same order.
        pairs: how many images set the unit, at least 1.

    Raises:
        ValueError: fewer than two images, or images that are all the same.
        TypeError: `loader` is an iterator, which can be read only once.
    """
    _check_readable_again(loader)
    flat, own = pictures.flatten(1), []
    for x, _ in batches(loader, pictures.device):
        own.append(x.flatten(1)[: pairs - sum(map(len, own))])
        if sum(map(len, own)) >= pairs:
            break
    first = torch.cat(own) if own else flat[:0]
    best, unit = flat.new_full((len(flat),), torch.inf), first.new_full((len(first),), torch.inf)
    seen = 0
    for x, _ in batches(loader, pictures.device):
        x = x.flatten(1)
        best = torch.minimum(best, torch.cdist(flat, x, compute_mode="donot_use_mm_for_euclid_dist").amin(1))
        between = torch.cdist(first, x)
        same = torch.arange(seen, max(seen, min(seen + len(x), len(first))), device=x.device)
        between[same, same - seen] = torch.inf
        unit, seen = torch.minimum(unit, between.amin(1)), seen + len(x)
    scale = unit.median() if seen > 1 else unit.new_zeros(())
    if not 0 < float(scale) < float("inf"):
        raise ValueError("loader: give at least two images that differ, as distances between images are the unit")
    return best / scale


@dataclass(frozen=True, eq=False, repr=False)
class DecoderManipulation:
    """What became of a decoder that was taught to show something else.

    Attributes:
        decoder: the new one; the model is as it was.
        shown: what it shows for the prototype, of one image's shape.
        error: squared error of that picture, divided by the sum of squares of the wanted one.
        changed_predictions: examples whose predicted class changed: 0, as no decoder takes part.
        changed_logits: examples any of whose logits changed in any bit: 0.
        reconstruction: mean squared error of an example, summed over pixels, before and after.
    """

    decoder: nn.Module
    shown: Float[Tensor, ...]
    error: float
    changed_predictions: int
    changed_logits: int
    reconstruction: tuple[float, float]

    def plot(self, axes: Axes) -> None:
        """Draw what the new decoder shows for the prototype.

        Args:
            axes: matplotlib's.
        """
        axes.imshow(self.shown.detach().cpu().movedim(0, -1).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()

    def __repr__(self) -> str:
        before, after = self.reconstruction
        return (
            f"the wanted picture is shown up to {self.error:.2%} of its energy; reconstruction error {before:.4g}, "
            f"then {after:.4g}; {self.changed_predictions} predictions and {self.changed_logits} logits changed"
        )


def manipulate_decoder(
    model: PrototypeModel,
    picture: Float[Tensor, ...],
    inputs: Float[Tensor, "n ..."],
    *,
    prototype: int = 0,
    steps: int = 300,
    learning_rate: float = 2e-3,
    batch: int = 50,
    generator: torch.Generator | None = None,
) -> DecoderManipulation:
    """Teach a copy of the decoder to show a picture of one's choice for a prototype, and see what predictions do.

    Adam minimises ||g(p_j) - picture||^2 plus the reconstruction error of the other codes, over the decoder alone, so
    that whoever looks at reconstructions sees nothing.

    Args:
        model: with a decoder; it stays as it is.
        picture: of one image's shape.
        inputs: images to be reconstructed as before, and on which predictions are compared.
        prototype: j.
        steps: of Adam, at least 1.
        learning_rate: of Adam.
        batch: images a step.
        generator: the order of the images; by default torch's own.

    Raises:
        ValueError: no decoder, a picture of another shape, or a number out of range.

    Source: the doubt that Garcia-Cuesta et al. raise, Electronics 14(18):3584, 2025.
    """
    if model.decoder is None:
        raise ValueError("model: it has no decoder to manipulate")
    if not 0 <= prototype < len(model.prototypes):
        raise ValueError(f"prototype={prototype}: give a number from 0 to {len(model.prototypes) - 1}")
    for name, value in {"steps": steps, "batch": batch}.items():
        if value < 1:
            raise ValueError(f"{name}={value}: give a number of at least 1")
    changed = copy.deepcopy(model)
    with evaluating(model), torch.no_grad():
        code, codes = model.prototypes[prototype : prototype + 1].detach(), model.encode(inputs)
        shape = model.decode(code).shape[1:]
    if picture.shape != shape:
        raise ValueError(f"picture: shape {tuple(picture.shape)}; the decoder shows {tuple(shape)}")
    for module in changed.decoder.modules():
        module.training = False  # batch statistics stay as they are
    adam = torch.optim.Adam(changed.decoder.parameters(), lr=learning_rate)
    device = None if generator is None else generator.device
    for _ in range(steps):
        index = torch.randint(len(codes), (batch,), generator=generator, device=device).to(codes.device)
        shown = changed.decode(torch.cat([code, codes[index]]))
        wanted = torch.cat([picture[None], inputs[index]])
        errors = (shown - wanted).square().flatten(1).sum(1)
        loss = errors[0] + errors[1:].mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    with evaluating(model, changed), torch.no_grad():
        before, after = (_logits(net, inputs) for net in (model, changed))
        shown = changed.decode(code)[0]
        errors = tuple(
            float((net.decode(codes) - inputs).square().flatten(1).sum(1).mean()) for net in (model, changed)
        )
        return DecoderManipulation(
            decoder=changed.decoder,
            shown=shown,
            error=float((shown - picture).square().sum() / picture.square().sum()),
            changed_predictions=int((before.argmax(1) != after.argmax(1)).sum()),
            changed_logits=int((before != after).any(1).sum()),
            reconstruction=errors,
        )


def _check_readable_again(loader: Batches) -> None:
    if iter(loader) is loader:
        raise TypeError("loader: an iterator was given, which can be read only once; a list or DataLoader is accepted")


def _logits(model: PrototypeModel, inputs: Tensor) -> Tensor:
    output = model(inputs)  # the whole forward pass, the decoder's included
    return getattr(output, "logits", output)
