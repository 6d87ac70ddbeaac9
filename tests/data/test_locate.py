"""The way to a data set's files, on a small set of its own and a server on this machine."""

import concurrent.futures
import functools
import hashlib
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from etude.data import available, locate
from etude.data.locate import File, Source, listing
from etude.errors import MissingData, Unavailable

A, B = b"first file", b"the second file"


def file(name: str, content: bytes) -> File:
    return File(name, len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """An empty cache, and two empty folders that ETUDE_DATA names."""
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ETUDE_DATA", os.pathsep.join([str(tmp_path / "one"), "", str(tmp_path / "two")]))
    for name in ("one", "two"):
        (tmp_path / name / "toy").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def server(places):
    """A server of the folder "origin"; yields its address."""
    (places / "origin").mkdir()

    class Noting(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            with (places / "requests").open("a") as log:
                log.write(f"{self.path}\n")

    handler = functools.partial(Noting, directory=str(places / "origin"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def toy(**fields) -> Source:
    return Source("toy", files=(file("a.bin", A), file("b.bin", B)), **fields)


def put(folder: Path, **contents: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}.bin").write_bytes(content)


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_the_first_folder_of_etude_data_wins(places):
    put(places / "one" / "toy", a=A, b=B)
    put(places / "two" / "toy", a=A, b=B)
    found = locate.locate(toy())
    assert found.paths == {name: places / "one" / "toy" / name for name in ("a.bin", "b.bin")}
    assert found.where == f"{places / 'one' / 'toy'} (named by ETUDE_DATA)"


def test_order_is_etude_data_then_system_then_cache(places):
    source = toy(system_folder=str(places / "system"), system_package="dataset-toy")
    for folder in (places / "cache" / "data" / "toy", places / "system", places / "two" / "toy"):
        put(folder, a=A, b=B)
        assert locate.locate(source).paths["a.bin"].parent == folder
    assert "system package dataset-toy" in dict(source.places())[places / "system"]


def test_files_of_one_set_may_lie_in_several_places(places):
    put(places / "one" / "toy", a=A)
    put(places / "two" / "toy", b=B)
    found = locate.locate(toy())
    assert found.paths["b.bin"] == places / "two" / "toy" / "b.bin"
    assert " and " in found.where


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (B[:-1], f"has {len(B) - 1} bytes where {len(B)} are expected"),
        (B.upper(), hashlib.sha256(B.upper()).hexdigest()),
    ],
    ids=["truncated", "wrong checksum"],
)
def test_a_damaged_file_is_an_error_even_if_a_good_copy_follows(places, content, says):
    put(places / "one" / "toy", a=A, b=content)
    put(places / "two" / "toy", a=A, b=B)
    with pytest.raises(MissingData) as caught:
        locate.locate(toy(address="http://127.0.0.1:9/"))
    assert says in caught.value.what
    assert str(places / "one" / "toy" / "b.bin") in caught.value.what
    assert "http://127.0.0.1:9/b.bin" in caught.value.remedy


def test_a_wrong_checksum_names_the_expected_one(places):
    put(places / "one" / "toy", a=A, b=B.upper())
    with pytest.raises(MissingData, match=hashlib.sha256(B).hexdigest()):
        locate.locate(toy())


def test_a_damaged_file_in_the_cache_is_to_be_deleted(places):
    put(places / "cache" / "data" / "toy", a=A, b=B.upper())
    with pytest.raises(MissingData, match="Delete it"):
        locate.locate(toy())


def test_a_file_that_cannot_be_read(places, monkeypatch):
    put(places / "one" / "toy", a=A, b=B)

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(MissingData, match=r"a\.bin cannot be read .*Permission denied"):
        locate.locate(toy())


def test_a_missing_set_names_every_place_and_the_remedies(places):
    source = toy(system_folder="/nowhere/toy", system_package="dataset-toy")
    with pytest.raises(MissingData) as caught:
        locate.locate(source)
    assert isinstance(caught.value, Unavailable)
    for folder in ("one/toy", "two/toy", "cache/data/toy"):
        assert str(places / folder) in caught.value.what
    assert "/nowhere/toy" in caught.value.what
    for word in ("toy", "no address", "ETUDE_DATA", "a.bin, b.bin", "dataset-toy"):
        assert word in str(caught.value)


def test_a_verified_file_is_not_read_again_until_it_changes(places, monkeypatch):
    put(places / "one" / "toy", a=A, b=B)
    locate.locate(toy())
    reads = []
    monkeypatch.setattr(
        locate.hashlib, "file_digest", lambda stream, kind: reads.append(stream.name) or hashlib.new(kind)
    )
    locate.locate(toy())
    assert reads == []
    changed = places / "one" / "toy" / "b.bin"
    os.utime(changed, ns=(0, changed.stat().st_mtime_ns + 1))
    with pytest.raises(MissingData):
        locate.locate(toy())
    assert reads == [str(changed)]


def test_an_unwritable_cache_costs_only_time(places, monkeypatch):
    put(places / "one" / "toy", a=A, b=B)
    (places / "a-file").write_bytes(b"")
    monkeypatch.setenv("ETUDE_CACHE", str(places / "a-file"))
    assert len(locate.locate(toy()).paths) == 2


def test_what_is_missing_is_fetched_verified_and_kept(places, server):
    put(places / "origin", a=A, b=B)
    put(places / "one" / "toy", a=A)
    source = toy(address=server)
    found = locate.locate(source)
    assert found.paths["b.bin"].read_bytes() == B
    assert files_below(places / "cache" / "data") == ["b.bin"]
    assert f"fetched from {server}" in found.where
    (places / "origin" / "b.bin").unlink()
    assert locate.locate(source).paths == found.paths


def test_many_at_once_fetch_a_file_once(places, server):
    put(places / "origin", a=A, b=B)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: locate.locate(toy(address=server)).paths, range(4)))
    assert found == [found[0]] * 4
    assert sorted((places / "requests").read_text().split()) == ["/a.bin", "/b.bin"]


@pytest.mark.parametrize("content", [B[:-1], B.upper(), None], ids=["truncated", "other content", "not there"])
def test_a_bad_download_leaves_nothing_behind(places, server, content):
    put(places / "origin", a=A, **({} if content is None else {"b": content}))
    with pytest.raises(MissingData) as caught:
        locate.locate(toy(address=server))
    assert f"fetching {server}b.bin failed" in caught.value.what
    if content is not None:
        for digest in (hashlib.sha256(content).hexdigest(), hashlib.sha256(B).hexdigest()):
            assert digest in caught.value.what
    assert files_below(places / "cache" / "data") == ["a.bin"]


def test_without_a_network_the_address_and_the_remedy_are_named(places):
    with pytest.raises(MissingData) as caught:
        locate.locate(toy(address="http://127.0.0.1:9/"))  # the discard port: nothing answers there
    assert "http://127.0.0.1:9/a.bin" in caught.value.what
    assert "connect to the network" in caught.value.remedy
    assert files_below(places / "cache" / "data") == []


def test_listing():
    assert listing("\n  00ff 12 a.gz\n  ff00 3 b.gz\n") == (File("a.gz", 12, "00ff"), File("b.gz", 3, "ff00"))


def test_available_says_what_is_needed(places, monkeypatch):
    monkeypatch.setattr(locate, "SOURCES", {"toy": toy(), "made": Source("made", package="not_there", requirement="x")})
    put(places / "one" / "toy", a=A, b=B[:-1])
    made, status = available()
    assert (made.name, made.present, made.needs) == ("made", False, "Install it: pip install x")
    assert not status.present
    assert status.needs.startswith("lacks b.bin. ")
    put(places / "one" / "toy", b=B)
    status = available()[1]
    assert (status.present, status.needs) == (True, "")
    assert status.where == f"{places / 'one' / 'toy'} (named by ETUDE_DATA)"


def test_asking_what_is_there_imports_no_heavy_library():
    heavy = ("torch", "sklearn", "pandas", "PIL", "pooch")
    code = f"import sys, etude.data; etude.data.available(); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_source_is_complete():
    for name, source in locate.SOURCES.items():
        assert source.name == name
        assert bool(source.files) != bool(source.package)
        assert not source.address or source.address.endswith("/")
        for entry in source.files:
            assert len(bytes.fromhex(entry.sha256)) == 32
            assert entry.size > 0
