"""The named sets of images. To add one: a `Source`, its classes and sizes, and a function from its files to `Raw`.

Checksums: Fashion-MNIST's are those of the files in its authors' repository and of the Debian package. MNIST's and
CIFAR-10's are those that many independent projects publish.
"""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np

from etude.data.image_data import Raw, image_set
from etude.data.locate import Source, listing

TEN_DIGITS = tuple("0123456789")
CLOTHES = (
    "t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


@image_set(
    Source("digits", package="sklearn", requirement="scikit-learn"), classes=TEN_DIGITS, validation=240, test=360
)
def digits(files: dict[str, Path]) -> Raw:
    """1,797 handwritten digits of 8x8 pixels in 17 grey levels (UCI Optical Recognition, its test part)."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return Raw((x / 16).astype(np.float32).reshape(-1, 8, 8), y)


@image_set(
    Source("mnist1d", package="mnist1d", requirement="mnist1d"),
    classes=TEN_DIGITS,
    validation=500,
)
def mnist1d(files: dict[str, Path]) -> Raw:
    """One-dimensional digits: templates padded, shifted, scaled, sheared and noised (Greydanus, arXiv 2011.14439).

    The authors' package makes them, with its defaults: the paper gives the templates as a picture only.
    """
    import random

    from mnist1d.data import get_dataset_args, make_dataset

    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (the package seeds the global generators)
    try:
        made = make_dataset(get_dataset_args())
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
    return Raw(made["x"], made["y"], made["x_test"], made["y_test"])


@image_set(
    Source(
        "fashion-mnist",
        files=listing(
            """
            b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7 26421856 train-images-idx3-ubyte.gz
            0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056 29491 train-labels-idx1-ubyte.gz
            cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa 4422079 t10k-images-idx3-ubyte.gz
            8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05 5125 t10k-labels-idx1-ubyte.gz
            """
        ),
        address="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        system_folder="/usr/share/datasets/fashion-mnist",
        system_package="dataset-fashion-mnist",
    ),
    classes=CLOTHES,
    validation=5_000,
)
def fashion_mnist(files: dict[str, Path]) -> Raw:
    """60,000 + 10,000 grey pictures of clothes, 28x28 (Xiao, Rasul and Vollgraf, arXiv 1708.07747)."""
    return _idx_pairs(files)


@image_set(
    Source(
        "mnist",
        files=listing(
            """
            440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609 9912422 train-images-idx3-ubyte.gz
            3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c 28881 train-labels-idx1-ubyte.gz
            8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6 1648877 t10k-images-idx3-ubyte.gz
            f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6 4542 t10k-labels-idx1-ubyte.gz
            """
        ),
        # the mirror PyTorch keeps: the authors' own page no longer hands the files out
        address="https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    classes=TEN_DIGITS,
    validation=5_000,
)
def mnist(files: dict[str, Path]) -> Raw:
    """60,000 + 10,000 handwritten digits, 28x28 (LeCun, Bottou, Bengio and Haffner, Proc. IEEE 1998)."""
    return _idx_pairs(files)


@image_set(
    Source(
        "mnist-10k",
        files=listing(
            """
            8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6 1648877 t10k-images-idx3-ubyte.gz
            f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6 4542 t10k-labels-idx1-ubyte.gz
            """
        ),
        address="https://ossci-datasets.s3.amazonaws.com/mnist/",
        folder="mnist",
    ),
    classes=TEN_DIGITS,
    validation=1_000,
    test=2_000,
)
def mnist_10k(files: dict[str, Path]) -> Raw:
    """MNIST's 10,000 test digits as a small set of their own, divided anew.

    Results on it are not results on MNIST, whose test part is divided into training and test digits here.
    """
    return Raw(_read_idx(files["t10k-images-idx3-ubyte.gz"]), _read_idx(files["t10k-labels-idx1-ubyte.gz"]))


@image_set(
    Source(
        "cifar10",
        files=listing(
            """
            c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd 170052171 cifar-10-binary.tar.gz
            """
        ),
        address="https://www.cs.toronto.edu/~kriz/",
    ),
    classes=CIFAR10_CLASSES,
    validation=5_000,
)
def cifar10(files: dict[str, Path]) -> Raw:
    """50,000 + 10,000 colour photographs, 32x32 (Krizhevsky, 2009), from the binary version: its records are plain.

    Each record is one byte of label and 3 x 1,024 bytes of red, green and blue, row by row.
    """
    import tarfile

    batches = {}
    with tarfile.open(files["cifar-10-binary.tar.gz"]) as archive:
        for member in archive:
            if member.name.endswith(".bin") and (stream := archive.extractfile(member)):
                batches[Path(member.name).name] = np.frombuffer(stream.read(), np.uint8).reshape(-1, 3_073)
    train, test = np.concatenate([batches[f"data_batch_{n}.bin"] for n in range(1, 6)]), batches["test_batch.bin"]
    return Raw(train[:, 1:].reshape(-1, 3, 32, 32), train[:, 0], test[:, 1:].reshape(-1, 3, 32, 32), test[:, 0])


@image_set(
    Source(
        "cifar10-jpeg",
        files=listing(
            """
            9cfc8c97cc610de59e8bbd2a78769b7134a00a75f9e8149be05c07ac4f3201a1 15180738 train.parquet
            28ae56ec39feee1cb5902c15e9d225665946df93c32b15add71764e72e51297f 3041398 test.parquet
            """
        ),
        folder="cifar10",
    ),
    classes=CIFAR10_CLASSES,
    validation=5_000,
)
def cifar10_jpeg(files: dict[str, Path]) -> Raw:
    """CIFAR-10's photographs re-encoded as JPEG: a different set of numbers, so a name of its own.

    Results on it are not results on CIFAR-10. Decoders differ in the last bit, and with them the checksum.
    """
    return Raw(*_jpegs(files["train.parquet"]), *_jpegs(files["test.parquet"]))


def _idx_pairs(files: dict[str, Path]) -> Raw:
    names = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    return Raw(*(_read_idx(files[name]) for name in names))


def _read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes: two zero bytes, 8, the rank, each size as a big-endian int32, data."""
    content = gzip.decompress(path.read_bytes())
    rank = content[3]
    shape = struct.unpack_from(f">{rank}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _jpegs(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow.parquet
    from PIL import Image

    table = pyarrow.parquet.read_table(path)
    pixels = np.empty((len(table), 32, 32, 3), np.uint8)
    for row, content in zip(pixels, table["image"].to_pylist()):
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            row[:] = np.asarray(image)
    return pixels.transpose(0, 3, 1, 2), table["label"].to_numpy()
