"""Named sets and their division. Sets that are not on the machine are skipped with the reason."""

import gzip
import hashlib
import io
import struct
import tarfile

import numpy as np
import pytest
import torch

from etude.data import available, image_data, images
from etude.data.image_data import Raw, _divide, image_set
from etude.data.image_sets import CIFAR10_CLASSES, cifar10, fashion_mnist
from etude.data.locate import SOURCES, Source
from etude.errors import MissingData, MissingExtra

SIZES = {
    "digits": (1_197, 240, 360, (1, 8, 8)),
    "mnist1d": (3_500, 500, 1_000, (1, 40)),
    "fashion-mnist": (55_000, 5_000, 10_000, (1, 28, 28)),
    "mnist": (55_000, 5_000, 10_000, (1, 28, 28)),
    "mnist-10k": (7_000, 1_000, 2_000, (1, 28, 28)),
    "cifar10": (45_000, 5_000, 10_000, (3, 32, 32)),
    "cifar10-jpeg": (45_000, 5_000, 10_000, (3, 32, 32)),
}
# Of what the loader and the division give today; raise DATA_PROTOCOL when one has to change.
# mnist1d and cifar10-jpeg pass through library code that may differ in the last bit between versions.
CONTENT = {
    "digits": "ea3d5cd7c9e3958a0972f4485a8b2fad9a1b8de2030f8e32bc252fc5e0cbcf02",
    "mnist-10k": "e433dfa2c8f1bba07fb96d2d30a7838038b767b8287dd1bd8bff303b055002a7",
    "fashion-mnist": "225df8753ab951498d55cca6c11b20fb3eee8135f636d1af87e9305be13fb662",
}


def load(name: str, **arguments):
    status = next(status for status in available() if status.name == name)
    if not status.present:
        pytest.skip(f"{name} is not on this machine: {status.needs}")
    return images(name, **arguments)


def multiset(*tensors) -> list[bytes]:
    return sorted(np.ascontiguousarray(row).tobytes() for tensor in tensors for row in tensor.numpy())


def made(n_per_class, shape=(4, 4), seed=0):
    """Distinct random images with the given numbers of examples a class."""
    labels = np.repeat(np.arange(len(n_per_class)), n_per_class)
    x = np.random.default_rng(seed).integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    return x, labels


@pytest.mark.parametrize("name", SIZES)
def test_named_sets(name):
    data = load(name)
    *sizes, shape = SIZES[name]
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == sizes
    assert data.shape == shape
    assert data.name == name
    assert data.source
    for part in parts:
        assert part.x.dtype == torch.float32
        assert part.y.dtype == torch.int64
        assert part.x.is_contiguous()
        share = torch.bincount(part.y, minlength=10) / len(part)
        assert len(share) == len(data.classes) == 10
        assert (share - 0.1).abs().max() < 0.02
        if name != "mnist1d":
            assert part.x.min() == 0
            assert part.x.max() == 1


@pytest.mark.parametrize("name", ["digits", "fashion-mnist", "mnist1d"])
def test_every_example_is_in_exactly_one_part(name):
    data = load(name)
    other = images(name, validation=0)
    assert len(other.validation) == 0
    # Compared as multisets, because some sets hold the same image twice.
    assert multiset(data.train.x, data.validation.x) == multiset(other.train.x)
    assert torch.equal(data.test.x, other.test.x)


def test_all_the_digits_are_there():
    from sklearn.datasets import load_digits

    data = images("digits")
    x, y = load_digits(return_X_y=True)
    parts = [np.column_stack([part.x.flatten(1) * 16, part.y]).astype(np.uint8) for part in _parts(data)]
    assert multiset(*map(torch.from_numpy, parts)) == multiset(torch.from_numpy(np.column_stack([x, y])).byte())


@pytest.mark.parametrize("name", CONTENT)
def test_content_is_what_it_was(name):
    assert load(name).checksum == CONTENT[name]


def test_validation_of_fashion_mnist_is_balanced_exactly():
    assert torch.bincount(load("fashion-mnist").validation.y).tolist() == [500] * 10


def test_the_global_generators_are_left_alone():
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random(2)  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    load("mnist1d")
    assert (np.random.random(2) == expected).all()  # noqa: NPY002


def test_division_does_not_depend_on_any_seed():
    torch.manual_seed(1)
    one = images("digits")
    torch.manual_seed(2)
    assert images("digits").checksum == one.checksum


def test_split_changes_validation_and_never_test():
    one, two = images("digits"), images("digits", split=1)
    assert torch.equal(one.test.x, two.test.x)
    assert torch.equal(one.test.x, images("digits", validation=100).test.x)
    assert multiset(one.train.x, one.validation.x) == multiset(two.train.x, two.validation.x)
    assert multiset(one.validation.x) != multiset(two.validation.x)
    assert one.checksum != two.checksum


def test_arrays_are_divided_without_loss_or_overlap():
    x, y = made([30, 7, 63])
    data = images((x, y), validation=11, test=13)
    assert [len(part) for part in _parts(data)] == [76, 11, 13]
    rows = multiset(*(part.x for part in _parts(data)))
    assert len(set(rows)) == 100
    assert rows == multiset(torch.from_numpy(x).unsqueeze(1).float() / 255)
    label_of = {image.tobytes(): label for image, label in zip(x.astype(np.float32) / np.float32(255), y)}
    for part in _parts(data):
        assert [label_of[image.numpy().tobytes()] for image in part.x] == part.y.tolist()


@pytest.mark.parametrize("count", [0, 1, 13, 50, 99])
def test_shares_are_within_one_of_proportional(count):
    y = np.repeat(np.arange(3), [30, 7, 63])
    rest, taken = _divide(y, count, np.random.default_rng(0).permutation(100))
    assert sorted([*rest, *taken]) == list(range(100))
    assert len(taken) == count
    assert (np.abs(np.bincount(y[taken], minlength=3) - count * np.array([0.30, 0.07, 0.63])) < 1).all()


def test_equal_remainders_go_to_the_lower_classes():
    _, taken = _divide(np.arange(4).repeat(5), 2, np.arange(20))
    assert taken.tolist() == [0, 5]


def test_order_in_a_part_is_shuffled():
    data = images(made([50, 50]), validation=0, test=0)
    assert (data.train.y[:50] == 0).sum() < 50


def test_usual_sizes_of_own_data():
    assert [len(part) for part in _parts(images(made([50, 50])))] == [70, 10, 20]


def test_checksum_sees_every_number_label_and_name():
    x, y = made([5, 5, 5])
    base = images((x, y)).checksum
    assert images((x.copy(), y.copy())).checksum == base
    assert images((torch.from_numpy(x), torch.from_numpy(y))).checksum == base
    brighter = x.copy()
    brighter[7, 0, 0] ^= 1
    swapped = y.copy()
    swapped[[0, 14]] = swapped[[14, 0]]
    variants = [images((brighter, y)), images((x, swapped)), images((x, y), validation=4), images((x, y)).flat()]
    assert len({base, *(variant.checksum for variant in variants)}) == 5


def test_to_keeps_the_data():
    data = images("digits")
    assert data.to("cpu").checksum == data.checksum
    assert data.to("meta").train.x.device.type == "meta"


def test_flat():
    data = images("digits")
    assert data.flat().shape == (64,)
    assert torch.equal(data.flat().test.x, data.test.x.flatten(1))


def test_standardized_uses_the_training_part_alone():
    x, y = made([40, 40], (3, 4, 4))
    data = images((x, y)).standardized()
    assert torch.allclose(data.train.x.mean((0, 2, 3)), torch.zeros(3), atol=1e-6)
    assert torch.allclose(data.train.x.var((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)
    raw = images((x, y))
    mean, deviation = raw.train.x.mean((0, 2, 3)), raw.train.x.std((0, 2, 3), correction=0)
    expected = (raw.test.x - mean[:, None, None]) / deviation[:, None, None]
    assert torch.allclose(data.test.x, expected, atol=1e-5)


def test_standardized_refuses_a_constant_channel():
    x, y = made([10, 10], (3, 4, 4))
    x[:, 1] = 7
    with pytest.raises(ValueError, match="constant"):
        images((x, y)).standardized()


def test_subset():
    data = images("digits")
    small = data.subset(train=100, test=50)
    assert [len(part) for part in _parts(small)] == [100, 240, 50]
    assert torch.bincount(small.train.y).tolist() == [10] * 10
    whole = set(multiset(data.train.x))
    assert whole.issuperset(multiset(small.train.x))
    assert small.checksum != data.checksum
    assert data.subset(train=len(data.train)).checksum == data.checksum


@pytest.mark.parametrize(
    ("count", "error"), [(0, ValueError), (1_198, ValueError), (True, TypeError), (1.5, TypeError)]
)
def test_subset_refuses(count, error):
    with pytest.raises(error, match="train"):
        images("digits").subset(train=count)


def test_a_part_is_a_data_set_for_a_loader():
    part = images("digits").test
    x, y = next(iter(torch.utils.data.DataLoader(part, batch_size=7)))
    assert torch.equal(x, part.x[:7])
    assert torch.equal(y, part.y[:7])


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"source": "digit"}, ValueError, "Did you mean 'digits'"),
        ({"source": 3}, TypeError, "source must be"),
        ({"source": "digits", "split": -1}, ValueError, "split must be at least 0"),
        ({"source": "digits", "split": "0"}, TypeError, "split must be an integer"),
        ({"source": "digits", "validation": -1}, ValueError, "validation"),
        ({"source": "digits", "validation": 1_437}, ValueError, "validation must be from 0 to 1436"),
        ({"source": "digits", "validation": 1_436}, ValueError, "leaves no training example of class 0"),
        ({"source": "digits", "validation": 2.0}, TypeError, "validation"),
        ({"source": "digits", "test": 1_797}, ValueError, "test must be from 0 to 1796"),
    ],
)
def test_bad_arguments(arguments, error, says):
    with pytest.raises(error, match=says):
        images(**arguments)


def test_a_published_test_part_cannot_be_resized(toy):
    with pytest.raises(ValueError, match="published with a test part of 2"):
        images("toy", test=1)


@pytest.fixture
def toy(monkeypatch):
    """A set known under the name "toy" while a test runs, from a package that is always there."""
    monkeypatch.setattr(image_data, "_ENTRIES", dict(image_data._ENTRIES))
    monkeypatch.setitem(SOURCES, "toy", None)

    @image_set(Source("toy", package="json", requirement="json"), classes=("a", "b"), validation=2)
    def load_toy(files):
        x, y = made([4, 4])
        return Raw(x, y, x[:2], y[:2])


def test_adding_a_set_is_one_row_and_one_function(toy):
    data = images("toy")
    assert [len(part) for part in _parts(data)] == [6, 2, 2]
    assert data.classes == ("a", "b")
    assert "toy" in [status.name for status in available()]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mnist1d.data", None)
    with pytest.raises(MissingExtra, match="pip install mnist1d"):
        images("mnist1d")


def idx(array: np.ndarray) -> bytes:
    return gzip.compress(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


def test_idx_files(tmp_path):
    x, y = made([3, 2], (28, 28))
    contents = {"images-idx3": x, "labels-idx1": y.astype(np.uint8)}
    paths = {}
    for part in ("train", "t10k"):
        for kind, array in contents.items():
            paths[f"{part}-{kind}-ubyte.gz"] = path = tmp_path / f"{part}-{kind}-ubyte.gz"
            path.write_bytes(idx(array))
    raw = fashion_mnist(paths)
    assert (raw.x == x).all()
    assert (raw.y_test == y).all()


def test_cifar10_records(tmp_path):
    batches = {name: made([2, 1], (3, 32, 32), seed) for seed, name in enumerate([*"12345", "test"])}
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, (x, y) in reversed(batches.items()):  # the order in the archive does not matter
            member = tarfile.TarInfo(
                f"cifar-10-batches-bin/{f'data_batch_{name}' if name.isdigit() else 'test_batch'}.bin"
            )
            content = np.column_stack([y.astype(np.uint8), x.reshape(len(x), -1)]).tobytes()
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    raw = cifar10({path.name: path})
    assert (raw.x == np.concatenate([batches[name][0] for name in "12345"])).all()
    assert raw.y.tolist() == [0, 0, 1] * 5
    assert (raw.x_test == batches["test"][0]).all()
    assert len(CIFAR10_CLASSES) == 10


def test_a_set_that_is_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("ETUDE_DATA", str(tmp_path))
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingData, match=r"cifar10-jpeg: train.parquet is not on this machine .*no address"):
        images("cifar10-jpeg")


def test_a_second_reading_shares_no_memory_with_the_first():
    data = load("fashion-mnist")
    before = hashlib.sha256(data.test.x.numpy().tobytes()).digest()
    data.test.x.zero_()
    assert hashlib.sha256(images("fashion-mnist").test.x.numpy().tobytes()).digest() == before


def _parts(data):
    return data.train, data.validation, data.test
