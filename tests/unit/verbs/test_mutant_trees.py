"""Trees of mutants: each in its run's folder for its own while, whatever ended the run before."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.verbs.fork_bench import workplace

from patchstack.git import EMPTY_TREE
from patchstack.model import Mutant, Sha
from patchstack.regress.bed import Bed
from patchstack.regress.execute import Tree
from patchstack.regress.steps import Subject
from patchstack.upstream.lay import materialise
from patchstack.verbs import trees
from patchstack.verbs.trees import MutantTrees, sweep_mutants
from patchstack.workplace import Workplace

CONFIG = """\
schema: 1
fork: {repo: acme/sglang}
lanes:
  production: {upstream: {git: "https://example.com/x", ref: main}, branch: deploy}
channels:
  nightly: {needs: [cpu]}
"""


@pytest.fixture
def work(tmp_path: Path) -> Workplace:
    (tmp_path / "deploy.yaml").write_text(CONFIG)
    return workplace(tmp_path, local=True)


def tree(work: Workplace, text: str) -> Sha:
    store = work.store()
    files = {"python/a.py": text, "python/same.py": "SAME = 1\n"}
    entries = [("100644", store.write_blob(content.encode()), path) for path, content in files.items()]
    return store.edit_tree(EMPTY_TREE, entries)


def found(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_mutant_s_tree_is_laid_when_its_turn_comes_and_dropped_after_it(
    work: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "_wheel_of", lambda work: None)
    bed, run = Bed(Path("python"), "k" * 20, "2.0"), work.state.new_run()
    origin = Subject("base", False, tree(work, "A = 1\n"), Tree(tmp_path / "origin", bed.python, tmp_path / "code"))
    mutants = MutantTrees(work, run, bed, {"fix": origin})
    materialise(work.store(), origin.sha, origin.tree.folder)
    compiled = (tmp_path / "code").joinpath(*origin.tree.folder.parts[1:], "python")
    compiled.mkdir(parents=True)
    for name in ("a", "same"):
        (compiled / f"{name}.cpython-311.pyc").write_bytes(b"code")
    mutated = tree(work, "A = 2\n")
    subject = mutants.subject("fix", Mutant("two", mutated, mutated), mutated)
    assert (subject.label, subject.mutant, subject.mutant_name) == ("mutant fix/two", "fix/two", "two")
    folder = run.folder / "mutants" / "fix" / "two"
    assert not folder.exists()
    mutants.lay(subject)
    assert (folder / "tree" / "python" / "a.py").read_text() == "A = 2\n"
    assert found(folder / "tree") == ["python/a.py", "python/same.py"]
    assert [Path(path).name for path in found(folder / "bytecode")] == ["same.cpython-311.pyc"]
    mutants.drop(subject)
    assert found(run.folder) == []


def test_what_a_killed_run_left_goes_with_the_next_one(work: Workplace) -> None:
    killed = work.state.new_run()
    for name in ("mutants/fix/two/tree/python/a.py", "logs/composed/fix.log"):
        (killed.folder / name).parent.mkdir(parents=True)
        (killed.folder / name).write_text("")
    sweep_mutants(work)
    assert found(killed.folder) == ["logs/composed/fix.log"]
