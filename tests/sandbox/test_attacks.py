"""Every attack of the catalogue, against each level this machine gives, and against no sandbox at all."""

import json
import subprocess
import sys

import pytest

from etude.sandbox import ATTACKS, LEVELS, Attack, Sandbox, check, probe
from etude.sandbox.attacks import CRITERIA, inheritance, scene
from etude.sandbox.limits import Result

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the attacks are written for Linux")


@pytest.mark.parametrize("level", LEVELS)
def test_no_attack_succeeds_that_the_level_promises_to_prevent(level):
    found = probe(level)
    if found.missing:
        pytest.skip(str(found))
    with Sandbox(level=level) as sandbox:
        attempts = check(sandbox)
    assert [attempt.attack for attempt in attempts] == list(ATTACKS)
    broken = {attempt.attack.name: attempt.evidence for attempt in attempts if attempt.succeeded and attempt.prevented}
    assert not broken
    if level == "bwrap" and found.filter:
        assert all(attempt.prevented for attempt in attempts)


def test_the_catalogue_is_public_and_large():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 40
    assert {attack.criterion for attack in ATTACKS} <= CRITERIA.keys()
    facts = {fact for attack in ATTACKS for fact in attack.prevented_by}
    assert facts <= {"limits", "network", "files", "processes", "filter"}


# ---- the criteria see an escape where there is one -----------------------------------------------------------------

BARE = """
import json, sys
source, told = json.loads(sys.stdin.read())
program = {"__name__": "program"}
exec(source, program)
try:
    value = program["attack"](told)
    json.dumps(value)
except BaseException as error:
    value = repr(error)
print(json.dumps(value))
"""

UNSTOPPED = """
read-passwd read-file read-project symlink hard-link climb proc-root write-outside delete-outside fill-disk large-file
environment c-environment descriptors import-project connect datagram http unix-socket abstract-socket socket-by-ctypes
one-fork thread-bomb shell c-system spawn exec daemon signal-caller memory-of-caller environment-of-caller
memory-files map-memory
""".split()  # noqa: SIM905 - a list one reads


@pytest.mark.parametrize("name", UNSTOPPED)
def test_without_a_sandbox_the_attack_succeeds(name, tmp_path):
    (attack,) = [attack for attack in ATTACKS if attack.name == name]
    with inheritance() as secret, scene(secret) as here:
        told = json.dumps([attack.source, here.told(0)])
        done = subprocess.run(
            [sys.executable, "-c", BARE],
            input=told,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=120,
            check=False,
            close_fds=False,
        )
        value = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None
        here.results = [Result("value", value)]
        assert CRITERIA[attack.criterion](here), value


def test_an_escape_is_reported_as_one():
    class Open(Sandbox):
        """A sandbox that lets one program write outside."""

        def run(self, source, entry, inputs, *, limits=None):
            if "OPEN" in source:
                exec(source, program := {})
                program[entry](inputs[0])
            return super().run(source.replace("OPEN", ""), entry, inputs, limits=limits)

    level = next(level for level in LEVELS if not probe(level).missing)
    source = "def attack(found):  # OPEN\n    open(found['marker'], 'w').close()\n    return 1"
    harmless = Attack("harmless", "return", "def attack(found):\n    return 1", "boasted")
    with Open(level=level) as sandbox:
        escape, other = check(sandbox, [Attack("escape", "write", source, "marker_was_written"), harmless])
    assert escape.succeeded
    assert escape.evidence == "it wrote a file outside"
    assert not other.succeeded
    assert other.outcomes == ("value", "value")


def test_a_sandbox_of_several_workers_is_refused():
    level = next(level for level in LEVELS if not probe(level).missing)
    with Sandbox(level=level, workers=2) as sandbox, pytest.raises(ValueError, match="workers"):
        check(sandbox)
