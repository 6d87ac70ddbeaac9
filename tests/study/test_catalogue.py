import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from etude.errors import MissingExtra
from etude.study.catalogue import BrokenStudy, Described, UnknownStudy, catalogue, find, load, read

STUDY = '''\
"""Is the question the first line?

The rest is the description,
over two lines.
"""
from typing import ClassVar, Literal

import module_that_nobody_has
from etude.study import Config as Base, Paper, Study

SIZES = (10, 1_000)
Kind = Literal["plain", "fancy"]


class Shared(Base):
    rate: float = 0.5
    """A rate
    in (0, 1)."""


class Config(Shared):
    sizes: tuple[int, ...] = SIZES
    kind: Kind = "plain"
    level: Literal[1, 2] | None = None
    needed: str
    rate: float = 0.25
    _hidden: int = 3
    other: ClassVar[int] = 4


TINY = Config(needed="a", sizes=(1, 2))

study = Study(
    paper=Paper("On " "things", authors="Doe and Roe", year=1999, arxiv="9901.00001"),
    topic="testing",
    presets={
        "smoke": TINY,
        "laptop": Config(needed="b", sizes=SIZES),
        "extended": TINY.updated(rate=1.0),
        "paper": made(*SIZES),
    },
    extras=("reasoning",),
)


@study.measure(over=lambda c: [{}], seeds=1)
def some_rows(lab, config):
    """Rows of
    something."""


@study.claim(reported="3 %", deviation="smaller")
def it_is_so(e):
    """It is so."""


def helper(e):
    """No claim."""
'''


@pytest.fixture
def described(tmp_path):
    path = tmp_path / "some_study.py"
    path.write_text(STUDY)
    return find(str(path))


def test_describes_the_paper_and_the_docstring(described):
    assert (described.name, described.module, described.problem) == ("some-study", "some_study", "")
    assert (described.title, described.authors, described.year) == ("On things", "Doe and Roe", 1999)
    assert (described.arxiv, described.venue, described.topic) == ("9901.00001", "", "testing")
    assert described.question == "Is the question the first line?"
    assert described.description == "The rest is the description,\nover two lines."
    assert described.extras == ("reasoning",)


def test_describes_presets_by_the_fields_they_give(described):
    assert described.presets == {
        "smoke": {"needed": "'a'", "sizes": "(1, 2)"},
        "laptop": {"needed": "'b'", "sizes": "(10, 1000)"},
        "extended": {"needed": "'a'", "sizes": "(1, 2)", "rate": "1.0"},
        "paper": {"": "made(*SIZES)"},
    }


def test_describes_fields_with_inherited_ones_first(described):
    fields = {field.name: field for field in described.fields}
    assert list(fields) == ["seeds", "rate", "sizes", "kind", "level", "needed"]
    assert fields["seeds"].default == "5"
    assert fields["seeds"].help
    assert fields["rate"].default == "0.25"
    assert (fields["sizes"].annotation, fields["sizes"].default) == ("tuple[int, ...]", "(10, 1000)")
    assert fields["kind"].choices == ("plain", "fancy")
    assert fields["level"].choices == ("1", "2")
    assert fields["needed"].default is None
    assert fields["needed"].choices is None


def test_describes_measurements_and_claims_but_no_other_functions(described):
    assert described.measurements == (Described("some_rows", "Rows of something."),)
    assert described.claims == (Described("it-is-so", "It is so.", "3 %", "smaller"),)


def test_a_field_is_described_by_the_docstring_below_it(tmp_path):
    path = tmp_path / "with_help.py"
    path.write_text(STUDY.replace("    rate: float = 0.25\n", ""))
    rate = next(field for field in find(str(path)).fields if field.name == "rate")
    assert rate.help == "A rate in (0, 1)."


def test_a_config_named_like_its_base_and_pydantic_fields_are_described(tmp_path):
    path = tmp_path / "same_name.py"
    path.write_text(
        textwrap.dedent("""\
        from pydantic import Field
        from etude.study import Config, Paper, Study
        class Config(Config):
            steps: int = Field(default=3, gt=0, description="How many.")
            needed: float = Field(gt=0)
        study = Study(paper=Paper("T", "A", 2000, "0001.00001"), topic="t", presets=dict(laptop=Config(needed=1.0)))
        """)
    )
    fields = {field.name: field for field in find(str(path)).fields}
    assert list(fields) == ["seeds", "steps", "needed"]
    assert (fields["steps"].default, fields["steps"].help) == ("3", "How many.")
    assert fields["needed"].default is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = (", "line 1"),
        ("x = 1", "no `study = Study(...)`"),
        ("study = 3", "no `study = Study(...)`"),
        ("x = '\0'", "null bytes"),
    ],
)
def test_a_file_that_is_no_study_is_listed_with_its_problem_and_refused_by_find(tmp_path, monkeypatch, text, problem):
    (tmp_path / "broken.py").write_text(text)
    (tmp_path / "sound.py").write_text(STUDY)
    (tmp_path / "_left_out.py").write_text(STUDY)
    monkeypatch.setenv("ETUDE_STUDIES", str(tmp_path))
    studies = catalogue()
    assert problem in studies["broken"].problem
    assert studies["sound"].problem == ""
    assert "-left-out" not in studies
    with pytest.raises(BrokenStudy, match=r"broken\.py"):
        find("broken")


def test_two_studies_of_one_name_are_both_listed(tmp_path, monkeypatch):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        (folder / "twin.py").write_text(STUDY)
    monkeypatch.setenv("ETUDE_STUDIES", os.pathsep.join(map(str, folders)))
    twins = [entry for name, entry in catalogue().items() if name.startswith("twin")]
    assert [bool(entry.problem) for entry in twins] == [False, True]
    assert str(folders[0] / "twin.py") in twins[1].problem


def test_an_unknown_name_is_refused_with_the_nearest_one(tmp_path, monkeypatch):
    (tmp_path / "gradient_descent.py").write_text(STUDY)
    monkeypatch.setenv("ETUDE_STUDIES", str(tmp_path))
    assert find("gradient_descent").name == find("gradient-descent").name == "gradient-descent"
    with pytest.raises(UnknownStudy, match="Did you mean 'gradient-descent'"):
        find("gradient-decent")
    with pytest.raises(UnknownStudy, match=r"no study file .*absent\.py"):
        find(str(tmp_path / "absent.py"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ETUDE_STUDIES")
    with pytest.raises(UnknownStudy, match=r"'\./gradient_descent\.py'"):
        find("gradient_descent")


def test_entry_points_are_found_without_importing_the_package(tmp_path, monkeypatch):
    package = tmp_path / "their_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "their_study.py").write_text(STUDY)
    info = tmp_path / "their_package-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1\n")
    points = "[etude.studies]\none = their_package.their_study\ngone = their_package.absent\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    studies = catalogue()
    assert studies["their-study"].module == "their_package.their_study"
    assert studies["their-study"].path == package / "their_study.py"
    assert studies["absent"].problem
    assert "their_package" not in sys.modules


def test_every_shipped_study_is_described_whole():
    for path in sorted((Path(catalogue.__code__.co_filename).parent.parent / "papers").glob("[!_]*.py")):
        entry = read(path, f"etude.papers.{path.stem}")
        assert entry.problem == ""
        assert entry.question.endswith("?")
        assert {"smoke", "laptop", "extended", "paper"} <= set(entry.presets)
        assert all(claim.text and claim.reported for claim in entry.claims)
        assert entry.title
        assert entry.topic
        assert entry.measurements


def test_loading_names_what_is_missing(described, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(MissingExtra, match=r"module_that_nobody_has.*etude\[reasoning\]"):
        load(described)
    path = tmp_path / "no_extras.py"
    path.write_text(STUDY.replace('    extras=("reasoning",),\n', ""))
    with pytest.raises(BrokenStudy, match=r"no_extras\.py cannot be imported: ModuleNotFoundError"):
        load(find(str(path)))


def test_loading_refuses_a_file_named_like_another_module(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "json.py"
    path.write_text("from etude.study import Study\nstudy = Study()\n")
    with pytest.raises(BrokenStudy, match=r"another module is called 'json'.*Rename"):
        load(find(str(path)))
    path = tmp_path / "not-a-name.py"
    path.write_text("from etude.study import Study\nstudy = Study()\n")
    with pytest.raises(BrokenStudy, match="no Python name"):
        load(find(str(path)))


def test_reading_the_catalogue_imports_nothing_heavy():
    script = (
        "import sys; from etude.study.catalogue import catalogue; catalogue(); "
        "print([m for m in ('torch', 'numpy', 'pandas', 'pydantic', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
