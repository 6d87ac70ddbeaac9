"""The repository keeps its own promises: documented examples run, and what is public is documented."""

import ast
import dataclasses
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import etude
from etude.study.catalogue import catalogue

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {f"etude.{path.parent.name}" for path in ROOT.glob("src/etude/*/__init__.py")}
PUBLIC = sorted(PACKAGES - {"etude.papers", "etude.cli", "etude.web"})


def python_blocks(document: str) -> list[str]:
    """The Python examples of a document, leaving out those marked ``no-test``."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def tree() -> list[Path]:
    """The files of the repository, those about to be added included."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("no git checkout: which files belong to the repository is not known")
    command = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


# ---- documents -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(python_blocks("README.md"))))
def test_readme_example_runs(number, tmp_path):
    script = tmp_path / "example.py"
    script.write_text(python_blocks("README.md")[number], encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_readme_has_examples_and_a_place_for_the_scoreboard():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(python_blocks("README.md")) == 4
    assert text.index("<!-- scoreboard -->") < text.index("<!-- /scoreboard -->")


def test_contributing_example_is_a_study_that_runs(tmp_path):
    (example,) = python_blocks("CONTRIBUTING.md")
    (tmp_path / "random_labels.py").write_text(example, encoding="utf-8")
    command = [sys.executable, "-m", "etude", "run", "./random_labels.py", "--preset", "smoke", "--store", "store"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "random-labels-are-memorised" in done.stdout
    assert "true-labels-generalise" in done.stdout
    assert "untested" not in done.stdout
    assert (tmp_path / "reports" / "random-labels-smoke.html").is_file()


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
)
def test_links_between_documents_lead_somewhere(document):
    path = ROOT / document
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (path.parent / target).exists()]
    assert not missing


def test_changelog_names_this_version():
    versions = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert versions[0] == etude.__version__ == project["version"]


# ---- code ----------------------------------------------------------------------------------------------------------


def exported() -> list[tuple[str, object]]:
    """What the public packages export: (address, object), constants left out."""
    found = []
    for package in PUBLIC:
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                found.append((f"{package}.{name}", value))
    return found


@pytest.mark.parametrize(("address", "value"), exported(), ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_exported_is_documented(address, value):
    text = inspect.getdoc(value) if "__doc__" in vars(value) or inspect.isfunction(value) else None
    assert text, f"{address} has no docstring"
    generated = dataclasses.is_dataclass(value) and text.startswith(f"{value.__name__}(")
    assert not generated, f"{address} has only the docstring that dataclass makes"
    if inspect.isfunction(value):
        names = [name for name in inspect.signature(value).parameters if not name.startswith("_")]
        unexplained = [name for name in names if not re.search(rf"\b{re.escape(name)}\b", text)]
        elsewhere = re.search(r"[Aa]rguments[^.]* as for `|`[^`]+`, same arguments", text)
        assert not unexplained or elsewhere, f"{address}: {unexplained} is not explained"


@pytest.mark.parametrize("package", PUBLIC)
def test_what_a_package_promises_to_export_is_there(package):
    module = importlib.import_module(package)
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing
    assert sorted(set(module.__all__), key=str) == sorted(module.__all__, key=str), "a name is exported twice"


@pytest.mark.parametrize("name", [name for name, e in catalogue().items() if e.module.startswith("etude.papers.")])
def test_a_shipped_study_says_what_it_is(name):
    entry = catalogue()[name]
    assert not entry.problem
    assert {"smoke", "laptop", "extended", "paper"} <= set(entry.presets)
    assert entry.question
    assert entry.title
    assert entry.year
    assert entry.topic
    assert entry.claims
    assert all(claim.text and claim.reported for claim in entry.claims)


def test_layers_do_not_import_upwards():
    command = Path(sys.executable).parent / "lint-imports"
    if not command.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run([command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_is_under_the_layering_contract():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    named = {name for contract in settings["contracts"] for name in contract["source_modules"]}
    assert set(PUBLIC) <= named, "methods no contract holds down"


# ---- files ---------------------------------------------------------------------------------------------------------


def test_no_file_names_a_folder_of_one_machine():
    homes = "|".join(["home", "root", "work", "Users", "mnt", "scratch"])
    pattern = re.compile(rf"(?<![\w.:~/}}])/(?:{homes})/\w")
    found = []
    for path in tree():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # a picture
        found += [
            f"{path.relative_to(ROOT)}:{n}: {line.strip()}" for n, line in enumerate(lines, 1) if pattern.search(line)
        ]
    assert not found, "\n".join(found)


def test_nothing_is_unpickled():
    """Loading a pickle runs whatever is in it; so do torch.load without weights_only and numpy's allow_pickle."""
    found = []
    for path in ROOT.glob("src/etude/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            loads = isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
            allows = isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False"
            if (
                loads
                or allows
                or {"pickle", "cloudpickle", "dill", "joblib"} & {name.partition(".")[0] for name in names}
            ):
                found.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', '?')}")
    assert not found
