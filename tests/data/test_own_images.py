"""A user's own arrays, files and folders, and what is said when they cannot be used."""

import numpy as np
import pytest
import torch
from PIL import Image

from etude.data import images
from etude.errors import MissingData

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (20, 6, 5), dtype=np.uint8)
Y = np.repeat([0, 1], 10)


def with_nan():
    x = X.astype(np.float64)
    x[3, 0, 0] = np.nan
    return x


@pytest.mark.parametrize(
    ("x", "y", "error", "says"),
    [
        (X.tolist(), Y, TypeError, "x must be an array or a tensor, not list"),
        (X, Y.tolist(), TypeError, "y must be an array or a tensor, not list"),
        (X.astype(np.int64), Y, TypeError, "x must hold uint8 .* not int64"),
        (X.astype(object), Y, TypeError, "x must hold uint8 .* not object"),
        (X, Y.astype(float), TypeError, "y must hold integers, not float64"),
        (X[0, 0], Y, ValueError, r"x must have shape .* not \(5,\)"),
        (X.reshape(20, 2, 3, 5), Y, ValueError, r"1 or 3 channels, .* not \(20, 2, 3, 5\)"),
        (X[..., None].repeat(3, 3), Y, ValueError, "channels last"),
        (X, Y[:-1], ValueError, r"y must have one label an example, shape \(20,\), not \(19,\)"),
        (X, Y[:, None], ValueError, "one label an example"),
        (X[:0], Y[:0], ValueError, "x must not be empty"),
        (with_nan(), Y, ValueError, "x must be finite in float32; example 3 is not"),
        (np.where(X > 250, np.inf, X / 255), Y, ValueError, "x must be finite"),
        (X * 1e39, Y, ValueError, "x must be finite in float32"),
        (X, Y - 1, ValueError, r"0 \.\. K-1, not -1"),
        (X, Y + 1, ValueError, "class 0 is empty"),
        (X, Y * 2, ValueError, "class 1 is empty"),
        (X, Y * 2**60, ValueError, "class 1 is empty"),
    ],
)
def test_bad_arrays(x, y, error, says):
    with pytest.raises(error, match=says):
        images((x, y))


def test_a_class_that_training_would_lose():
    y = np.zeros(20, int)
    y[5] = 1
    with pytest.raises(ValueError, match="leaves no training example of class 1"):
        images((X, y), test=19, validation=0)


@pytest.mark.parametrize(
    ("x", "shape"),
    [(X, (1, 6, 5)), (X[:, None], (1, 6, 5)), (X[:, None].repeat(3, 1), (3, 6, 5)), (X.reshape(20, 30), (1, 30))],
)
def test_shapes(x, shape):
    assert images((x, Y)).shape == shape


@pytest.mark.parametrize("label_type", ["uint8", "int32", "uint64", ">i4"])
@pytest.mark.parametrize("pixel_type", ["float16", "float64", ">f4", "longdouble"])
def test_number_types(pixel_type, label_type):
    data = images((X.astype(pixel_type), Y.astype(label_type)))
    assert data.checksum == images((X.astype(np.float32), Y)).checksum


def test_floating_numbers_keep_their_range():
    x = RNG.normal(size=(20, 6, 5)) * 9
    data = images((torch.from_numpy(x).requires_grad_(), torch.from_numpy(Y)), test=0, validation=0)
    assert not data.train.x.requires_grad
    assert data.train.x.dtype == torch.float32
    assert np.allclose(np.sort(data.train.x.numpy().ravel()), np.sort(x.ravel()))


def test_the_users_arrays_are_copied():
    x = X.astype(np.float32)
    data = images((x, Y), validation=0, test=0)
    data.train.x.zero_()
    assert (x == X).all()


def test_npz(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, x=X, y=Y)
    data = images(path)
    assert data.name == "mine"
    assert str(path) in data.source
    assert data.checksum == images((X, Y)).checksum == images(str(path)).checksum


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"images": X, "y": Y}, r"lacks \['x'\]"),
        ({"x": X, "y": Y[:-1]}, "one label an example"),
        ({"x": X, "y": Y.astype(object)}, "allow_pickle=False"),
    ],
)
def test_bad_npz(tmp_path, arrays, says):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=says) as caught:
        images(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 10, 300])
def test_truncated_npz(tmp_path, keep):
    path = tmp_path / "mine.npz"
    np.savez(path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="cannot be used"):
        images(path)


def test_missing_path(tmp_path):
    with pytest.raises(MissingData, match=r"nothing\.npz does not exist"):
        images(tmp_path / "nothing.npz")
    with pytest.raises(MissingData, match="does not exist"):
        images("./no/such/folder")


def test_another_kind_of_file(tmp_path):
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(ValueError, match="neither a folder nor an"):
        images(tmp_path / "x.csv")


@pytest.fixture
def folder(tmp_path):
    """Two classes of grey pictures."""
    root = tmp_path / "animals"
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for n in range(10):
            Image.fromarray(X[10 * label + n]).save(root / name / f"{n:02}.png")
        (root / name / "notes.txt").write_text("not an image")
    return root


def test_folder(folder):
    data = images(folder)
    assert data.name == "animals"
    assert data.classes == ("cat", "dog")
    assert data.source == f"the folder {folder}"
    assert torch.equal(data.train.x, images((X, Y)).train.x)
    assert torch.equal(data.train.y, images((X, Y)).train.y)


def test_one_colour_image_makes_all_colour(folder):
    Image.fromarray(RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(folder / "dog" / "colour.png")
    data = images(folder, test=0, validation=0)
    assert data.shape == (3, 6, 5)
    grey = (data.train.x == data.train.x[:, :1]).flatten(1).all(1)
    assert grey.sum() == 20


def test_folder_without_classes(tmp_path):
    with pytest.raises(ValueError, match="holds no subfolder"):
        images(tmp_path)


def test_empty_class(folder):
    (folder / "eel").mkdir()
    with pytest.raises(ValueError, match="class 'eel' is empty"):
        images(folder)


def test_images_of_two_sizes(folder):
    Image.new("L", (9, 9)).save(folder / "dog" / "large.png")
    with pytest.raises(ValueError, match=r"same size: .*00\.png has 6x5, .*large\.png has 9x9"):
        images(folder)


def test_damaged_image(folder):
    path = folder / "dog" / "03.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"03\.png cannot be read as an image"):
        images(folder)


def test_sixteen_bits(folder):
    Image.new("I;16", (5, 6)).save(folder / "dog" / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png has pixels of kind 'I;16'"):
        images(folder)
