"""Small studies in files of their own, as a stranger would write them."""

import itertools
import sys
import textwrap

import pytest

from etude.study.engines.trial import import_study
from study_files import BODY, HEAD

_NUMBER = itertools.count()


@pytest.fixture
def write_study(tmp_path):
    """Write a study file and import it; called again with the same name, it reads the new text."""

    def write(body=BODY, name=None, head=HEAD):
        stem = name or f"stranger_{next(_NUMBER)}"
        path = tmp_path / f"{stem}.py"
        path.write_text(textwrap.dedent(head).lstrip() + textwrap.dedent(body))
        sys.modules.pop(stem, None)
        return import_study(stem, str(path))

    before = list(sys.path)
    yield write
    sys.path[:] = before


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"
