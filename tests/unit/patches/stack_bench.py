"""A bench for the stack's tests: small releases and real patches, each made in one line.

Diffs are written by git itself with the options that CONTRIBUTING names, and not by the code under test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from patchstack.errors import PatchstackError
from patchstack.git import EMPTY_TREE, Repository, Signature
from patchstack.model import Base, Sha
from patchstack.patches.header import Patch
from patchstack.patches.series import read_series

Files = Mapping[str, str | bytes | None]
"""Path to content; None deletes the path. A leading ``+x `` in the path makes the file executable."""

MAIL_OPTIONS = (
    "-1",
    "--stdout",
    "--zero-commit",
    "--full-index",
    "--no-signature",
    "--no-stat",
    "--no-renames",
    "--binary",
    "-U3",
    "--diff-algorithm=myers",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "--no-attach",
    "--no-thread",
    "--keep-subject",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
)
AUTHOR = Signature("Acme SGLang maintainers", "sglang@acme.example", "@1795219200 +0000")
PROSE = """\
## Symptom

It fails.

## Cause

A fault.

## Cure

A hook.

## Switches

`SGLANG_X`, default 1.

## Log lines

None.

## Removal

When upstream has it.
"""


def front_matter(**changed: str | None) -> str:
    """A whole front matter, in which a key is replaced by its YAML text, or left out (None)."""
    keys: dict[str, str | None] = {
        "title": '"pd: mend it"',
        "owner": '"@acme/pd"',
        "upstream-status": '"Backport [0.5.13]"',
        "upstream": '["https://github.com/sgl-project/sglang/pull/1"]',
        "requires": "[]",
        "bases": '{"1.0": needed}',
        "guards": "[tests/regression/guard/]",
        "mutants": "[]",
        "kill-switch": '"SGLANG_X=0"',
        "remove-when": '"The base is 0.5.13 or later."',
    }
    keys.update({key.replace("_", "-"): value for key, value in changed.items()})
    return "---\n" + "".join(f"{key}: {value}\n" for key, value in keys.items() if value is not None) + "---\n"


@dataclass
class Bench:
    """A store with releases, and a folder with patches."""

    store: Repository
    root: Path
    releases: dict[str, Base] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.root / "patches"

    def tree(self, files: Files, onto: str = EMPTY_TREE) -> Sha:
        entries = []
        for name, content in files.items():
            executable, path = name.startswith("+x "), name.removeprefix("+x ")
            if content is None:
                entries.append(("0", "0" * 40, path))
            else:
                data = content.encode() if isinstance(content, str) else content
                entries.append(("100755" if executable else "100644", self.store.write_blob(data), path))
        return self.store.edit_tree(onto, entries)

    def release(self, version: str, files: Files) -> Base:
        tree = self.tree(files)
        base = Base(f"sglang=={version}", version, self.store.commit(tree, (), f"Sources of {version}\n"), tree)
        self.releases[version] = base
        return base

    def commit(self, parent: str, files: Files, message: str, author: Signature = AUTHOR) -> Sha:
        return self.store.commit(self.tree(files, self.store.tree_of(parent)), (parent,), message, author)

    def mail(self, commit: str) -> bytes:
        argv = ("-c", "core.quotepath=true", "format-patch", *MAIL_OPTIONS, commit)
        return self.store.attempt_ok(*argv).stdout

    def patch(
        self,
        slug: str,
        on: Base,
        files: Files,
        *,
        parent: str | None = None,
        up_to: str | None = None,
        author: Signature = AUTHOR,
        title: str = "pd: mend it",
        body: str = "",
        optional: bool = False,
        **header: str | None,
    ) -> Sha:
        """A patch in the series, cut on ``on`` (or on ``parent``); the commit that its diff was written from."""
        message = f"{title}\n\n{body}Cut-On: {on.version}\n"
        commit = self.commit(parent or on.commit, files, message, author)
        bases = f'{{">={on.version},<={up_to or on.version}": needed}}'
        text = front_matter(**{"title": f"'{title}'", "bases": bases, **header}) + PROSE
        self.write(slug, text, {f"{on.version}..{up_to or on.version}.patch": self.mail(commit)}, optional=optional)
        guard = self.root / "tests" / "regression" / "guard" / "test_it.py"
        guard.parent.mkdir(parents=True, exist_ok=True)
        guard.write_text("def test_it() -> None:\n    assert True\n")
        return commit

    def write(self, slug: str, text: str, diffs: Mapping[str, bytes] = {}, *, optional: bool = False) -> Path:
        folder = self.folder / slug
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "patch.md").write_text(text)
        for name, data in diffs.items():
            (folder / name).write_bytes(data)
        line = f"{slug} optional" if optional else slug
        self.order = [known for known in self.order if known.split()[0] != slug] + [line]
        self.series(*self.order)
        return folder

    def series(self, *lines: str) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "series").write_text("".join(f"{line}\n" for line in lines))

    def read(self) -> tuple[Patch, ...]:
        return read_series(self.folder)

    def problems(self, error: PatchstackError) -> list[str]:
        """The lines of a message, with paths from the patches' folder."""
        return str(error).replace(f"{self.folder}/", "").splitlines()

    def content(self, commit: str, path: str) -> str:
        data = self.store.read_blob(f"{commit}:{path}")
        assert data is not None, f"{path} is not in {commit}"
        return data.decode()
