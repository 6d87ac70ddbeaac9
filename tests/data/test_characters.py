"""Omniglot as it was published, and its division by alphabet; a made set stands in where it is not at hand."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from etude.data import Characters, available, characters, omniglot
from etude.data.locate import File, Source
from etude.errors import MissingData


def small(**arguments) -> Characters:
    status = next(status for status in available() if status.name == "omniglot-small")
    if not status.present:
        pytest.skip(f"not on this machine: {status.needs}")
    return omniglot(**arguments)


def archive(alphabets):
    """A zip as the published ones: 1-bit drawings of which each has one black pixel of its own."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("__MACOSX/images/A/character01/._0001_01.png", b"")
        for alphabet, count in alphabets.items():
            for character in range(1, count + 1):
                for drawing in range(1, 21):
                    pixels = np.full((105, 105), 255, np.uint8)
                    pixels[character, drawing] = 0
                    image = io.BytesIO()
                    Image.fromarray(pixels).convert("1").save(image, "PNG")
                    name = f"images/{alphabet}/character{character:02}/0001_{drawing:02}.png"
                    made.writestr(name, image.getvalue())
    return stream.getvalue()


@pytest.fixture
def toy(monkeypatch, tmp_path):
    import hashlib

    files = {"one.zip": archive({"B": 2, "A": 1}), "two.zip": archive({"C": 3, "A": 1})}
    (tmp_path / "toy").mkdir()
    for name, content in files.items():
        (tmp_path / "toy" / name).write_bytes(content)
    described = tuple(File(name, len(text), hashlib.sha256(text).hexdigest()) for name, text in files.items())
    monkeypatch.setitem(characters._SOURCES, "small", Source("toy", files=described))
    monkeypatch.setenv("ETUDE_DATA", str(tmp_path))
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    return omniglot(size=105)


def test_a_set_is_read_in_order_and_what_archives_share_counts_once(toy):
    assert toy.alphabets == ("A", "B", "B", "C", "C", "C")
    assert toy.drawings.shape == (6, 20, 1, 105, 105)
    assert toy.groups.tolist() == list(range(6))
    rows, columns = [1, 1, 2, 1, 2, 3], range(1, 21)
    for number, row in enumerate(rows):
        for drawing, column in enumerate(columns):
            assert toy.drawings[number, drawing, 0, row, column] == 1
    assert toy.drawings.sum() == 6 * 20


def test_smaller_drawings_are_averages_over_areas(toy):
    third = omniglot(size=35)
    averages = torch.nn.functional.avg_pool2d(toy.drawings.flatten(0, 1), 3)
    assert torch.allclose(third.drawings, averages.view(6, 20, 1, 35, 35))
    assert omniglot().drawings.shape == (6, 20, 1, 28, 28)


def test_versions_are_all_turned_and_mirrored_ones_and_keep_their_group(toy):
    many = toy.turned_and_mirrored()
    assert len(many) == 48
    assert many.alphabets[:16] == ("A",) * 8 + ("B",) * 8
    assert many.groups.tolist() == [group for group in range(6) for _ in range(8)]
    drawing = toy.drawings[1, 4, 0].numpy()
    expected = {np.rot90(side, turns).tobytes() for side in (drawing, np.fliplr(drawing)) for turns in range(4)}
    assert {one.numpy().tobytes() for one in many.drawings[8:16, 4, 0]} == expected
    assert len(expected) == 8
    assert many.checksum != toy.checksum


def test_classes_are_found_by_alphabet(toy):
    assert toy.of(["C", "A"]).tolist() == [0, 3, 4, 5]
    with pytest.raises(ValueError, match="alphabets: 'D' is not among A, B, C"):
        toy.of(["A", "D"])
    with pytest.raises(ValueError, match="alphabets: none was given"):
        toy.of([])


def test_a_damaged_archive_is_refused(toy, tmp_path):
    path = tmp_path / "toy" / "one.zip"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(MissingData, match=r"one\.zip has SHA-256"):
        omniglot()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"part": "large"}, "part='large'"),
        ({"size": 0}, "size=0"),
        ({"size": 106}, "size=106"),
        ({"size": 2.5}, r"size=2\.5"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        omniglot(**arguments)


def test_the_small_set_is_what_was_published():
    data = small()
    counts = {name: data.alphabets.count(name) for name in sorted(set(data.alphabets))}
    assert counts == {
        "Balinese": 24, "Early_Aramaic": 22, "Greek": 24, "Japanese_(katakana)": 47, "Korean": 40, "Latin": 26,
        "Sanskrit": 42, "Tagalog": 17,
    }  # fmt: skip
    assert data.drawings.shape == (242, 20, 1, 28, 28)
    assert data.drawings.dtype == torch.float32
    ink = data.drawings.mean((1, 2, 3, 4))
    assert ink.min() > 0.01  # strokes, not their ground
    assert ink.max() < 0.2
    assert omniglot().checksum == data.checksum == ("2e9f0f9a9b36e0218816b1aee277faa2800b39bd60e412e97237956fcc0dc5ac")
