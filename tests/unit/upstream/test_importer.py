"""A base commit is a function of upstream's bytes, and of nothing else."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from patchstack import process
from patchstack.errors import ConfigError, MachineError, RemoteError
from patchstack.git import EMPTY_TREE, GitFailed, Repository
from patchstack.model import Base
from patchstack.upstream.importer import import_ref, import_release
from patchstack.upstream.wheel import Wheel

FILE = stat.S_IFREG | 0o644
MakeWheel = Callable[..., Wheel]


def _content(store: Repository, base: Base) -> dict[str, tuple[str, bytes | None]]:
    return {entry.path: (entry.mode, store.read_blob(entry.sha)) for entry in store.list_tree(base.tree)}


# --- releases -----------------------------------------------------------------------------------------


def test_a_release_becomes_one_commit_of_its_sources(repository: Repository, wheel: Wheel) -> None:
    base = import_release(repository, wheel)

    assert _content(repository, base) == {
        "python/sglang/__init__.py": ("100644", b"import sglang.srt\n"),
        "python/sglang/run.sh": ("100755", b"#!/bin/sh\n"),
        "python/sglang/srt/engine.py": ("100644", b"ENGINE = 1\n"),
        "python/tools/tag.py": ("100644", b"print('tag')\n"),
    }
    assert (base.name, base.version) == ("sglang==0.5.12.post1", "0.5.12.post1")
    assert base.natives == (wheel.native,)
    assert repository.parents(base.commit) == ()
    assert repository.show(base.commit, "%an <%ae> %ad|%cn <%ce> %cd|%B").strip() == (
        "patchstack <patchstack@localhost> Thu Jan 1 00:00:00 1970 +0000|"
        "patchstack <patchstack@localhost> Thu Jan 1 00:00:00 1970 +0000|"
        "Sources of sglang 0.5.12.post1"
    )


def test_every_wheel_of_a_release_gives_one_commit(repository: Repository, make_wheel: MakeWheel) -> None:
    source = ("sglang/a.py", b"A = 1\n", FILE)
    here = make_wheel([source, ("sglang/a.cpython-311.so", b"one", FILE)], tags="cp311-cp311-manylinux_2_34_x86_64")
    there = make_wheel([("sglang/a.cpython-312.so", b"two", FILE), source], tags="cp312-cp312-manylinux_2_34_aarch64")

    bases = [import_release(repository, wheel) for wheel in (here, there)]

    assert bases[0].commit == bases[1].commit
    assert [(native.python, native.platform) for base in bases for native in base.natives] == [
        ("cp311", "manylinux_2_34_x86_64"),
        ("cp312", "manylinux_2_34_aarch64"),
    ]


def test_nothing_of_the_user_leaks_into_the_commit(
    sealed: Path, tmp_path: Path, wheel: Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = import_release(Repository.init(tmp_path / "plain.git"), wheel)
    for setting in (
        "core.autocrlf true",
        "core.eol crlf",
        "core.attributesFile ~/attributes",
        "i18n.commitEncoding latin1",
    ):
        process.run(["git", "config", "--global", *setting.split()])
    (sealed / "attributes").write_text("* text eol=crlf ident\n")
    for name, value in {
        "TZ": "Pacific/Kiritimati",
        "LC_ALL": "tr_TR.UTF-8",
        "GIT_AUTHOR_NAME": "Somebody",
        "GIT_COMMITTER_DATE": "@1700000000 +0530",
        "GIT_DIR": str(tmp_path / "elsewhere.git"),
        "GIT_DEFAULT_HASH": "sha256",
    }.items():
        monkeypatch.setenv(name, value)
    before = os.umask(0o077)
    try:
        other = import_release(Repository.init(tmp_path / "other.git"), wheel)
    finally:
        os.umask(before)

    assert other == plain


def test_bytes_and_names_pass_unfiltered(repository: Repository, make_wheel: MakeWheel) -> None:
    files = {
        ".gitattributes": b"* text=auto eol=lf ident export-ignore\n*.txt working-tree-encoding=UTF-16\n",
        "sglang/crlf.py": b"a = 1\r\nb = 2\r\n",
        "sglang/ident.txt": b"$Id$\n",
        "sglang/zeros.bin": bytes(range(256)) * 64,
        "sglang/no_newline": b"x",
        "sglang/empty.py": b"",
        'sglang/sp ace "quoted".json': b"{}",
        "sglang/gr\u00fc\u00dfe.py": b"# gr\xc3\xbc\xc3\x9fe\n",
        "sglang/E=32,N=1792,dtype=fp8[1].json": b"{}",
    }
    base = import_release(repository, make_wheel([(name, data, FILE) for name, data in files.items()]))

    assert _content(repository, base) == {f"python/{name}": ("100644", data) for name, data in files.items()}


def test_a_release_is_imported_once(repository: Repository, wheel: Wheel) -> None:
    base = import_release(repository, wheel)
    wheel.path.unlink()
    assert import_release(repository, wheel) == base


def test_a_wheel_damaged_since_it_was_fetched_is_the_machines_fault(repository: Repository, wheel: Wheel) -> None:
    wheel.path.write_bytes(wheel.path.read_bytes()[:-30])
    with pytest.raises(MachineError, match="remove it and run again"):
        import_release(repository, wheel)
    assert repository.refs() == {}


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (("../evil.py", b"", FILE), "'../evil.py' leads out of its folder"),
        (("sglang/../../evil.py", b"", FILE), "leads out of its folder"),
        (("/etc/evil.py", b"", FILE), "'/etc/evil.py' is an absolute path"),
        (("sglang//evil.py", b"", FILE), "has an empty part"),
        (("sglang/./evil.py", b"", FILE), "has an empty part"),
        (("sglang/.GIT/hooks/post-checkout", b"", FILE), "leads into a .git folder"),
        (("sglang\\..\\evil.py", b"", FILE), "has a control character or a backslash in its name"),
        (("sglang/a\nb.py", b"", FILE), "has a control character"),
        (("sglang/a.py\0.txt", b"", FILE), "has a control character"),
        (("sglang/link.py", b"../../../etc/passwd", stat.S_IFLNK | 0o777), "'sglang/link.py' is a symbolic link"),
        (("sglang/pipe", b"", stat.S_IFIFO | 0o644), "is a special file"),
        (("sglang/good.py", b"again", FILE), "'sglang/good.py' is there twice"),
        (("sglang/good.py/x.py", b"", FILE), "is both a file and the folder of 'sglang/good.py/x.py'"),
        (("sglang-0.5.12.post1.data/scripts/run", b"", FILE), "is in a .data folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_entry_that_no_honest_release_has_is_refused(
    repository: Repository, make_wheel: MakeWheel, entry: tuple[str, bytes, int], problem: str
) -> None:
    wheel = make_wheel([("sglang/good.py", b"good", FILE), entry])

    with pytest.raises(RemoteError) as caught:
        import_release(repository, wheel)

    assert str(caught.value).startswith("sglang-0.5.12.post1-py3-none-any.whl is refused: ")
    assert problem in str(caught.value)
    assert repository.refs() == {}


def test_a_wheel_without_sources_is_refused(repository: Repository, make_wheel: MakeWheel) -> None:
    with pytest.raises(RemoteError, match="it holds no source file"):
        import_release(repository, make_wheel([("sglang/a.so", b"", FILE)]))


def test_a_stream_that_is_cut_short_imports_nothing(repository: Repository) -> None:
    with tempfile.TemporaryFile() as stream:
        stream.write(b"blob\ndata 2\nok\n")
        stream.seek(0)
        with pytest.raises(GitFailed, match="stream ends early"):
            repository.fast_import(stream)


# --- git ----------------------------------------------------------------------------------------------


class Upstream:
    """A bare repository that stands for upstream's: what a test commits, tags and branches."""

    def __init__(self, folder: Path) -> None:
        self.bare = Repository.init(folder)
        self.url = str(folder)
        self.head = ""

    def commit(self, files: dict[str, tuple[str, bytes]], date: str = "@1700000000 +0530") -> str:
        tree = self.bare.edit_tree(
            EMPTY_TREE, [(mode, self.bare.write_blob(data), path) for path, (mode, data) in files.items()]
        )
        with_date = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        parents = ["-p", self.head] if self.head else []
        self.head = self.bare.run("commit-tree", tree, *parents, "-m", "upstream", env=with_date)
        self.bare.set_refs({"refs/heads/main": self.head})
        return self.head

    def tag(self, name: str, *, annotated: bool = False) -> None:
        self.bare.run("tag", *(["-a", "-m", name] if annotated else []), name, self.head)


SOURCES = {
    ".github/workflows/ci.yml": ("100644", b"on: push\n"),
    "python/sglang/.github/x.yml": ("100644", b"x\n"),
    "python/sglang/a.py": ("100644", b"A = 1\r\n"),
    "python/sglang/run.sh": ("100755", b"#!/bin/sh\n"),
    "python/sglang/_core.so": ("100755", b"\x7fELF"),
    "python/sglang.dist-info/METADATA": ("100644", b"Name: sglang\n"),
    "test/test_a.py": ("100644", b"import sglang\n"),
}


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    """One commit, tagged v0.5.12.post1."""
    upstream = Upstream(tmp_path / "upstream.git")
    upstream.commit(SOURCES)
    upstream.tag("v0.5.12.post1", annotated=True)
    return upstream


def test_a_tag_becomes_one_commit_on_upstreams(repository: Repository, upstream: Upstream) -> None:
    base = import_ref(repository, upstream.url, "v0.5.12.post1")

    assert _content(repository, base) == {
        "python/sglang/a.py": ("100644", b"A = 1\r\n"),
        "python/sglang/run.sh": ("100755", b"#!/bin/sh\n"),
        "test/test_a.py": ("100644", b"import sglang\n"),
    }
    assert base.name == f"{upstream.url}@v0.5.12.post1"
    assert base.version == "0.5.12.post1"
    assert repository.parents(base.commit) == (upstream.head,)
    assert repository.show(base.commit, "%an %at %ct %cd").split(" ", 3) == [
        "patchstack", "1700000000", "1700000000", "Tue Nov 14 22:13:20 2023 +0000",
    ]  # fmt: skip


def test_both_sources_give_the_same_paths_below_python(
    repository: Repository, upstream: Upstream, make_wheel: MakeWheel
) -> None:
    package = {path: value for path, value in SOURCES.items() if path.startswith("python/sglang/")}
    modes = {"100644": FILE, "100755": stat.S_IFREG | 0o755}
    wheel = make_wheel([(path.removeprefix("python/"), data, modes[mode]) for path, (mode, data) in package.items()])

    from_git = import_ref(repository, upstream.url, "main")

    assert repository.list_tree(from_git.tree, "python") == repository.list_tree(import_release(repository, wheel).tree)


def test_the_same_commit_in_another_store_and_by_another_name(
    tmp_path: Path, repository: Repository, upstream: Upstream
) -> None:
    bases = [
        import_ref(repository, upstream.url, "v0.5.12.post1"),
        import_ref(Repository.init(tmp_path / "second.git"), f"file://{upstream.url}", "main"),
        import_ref(Repository.init(tmp_path / "third.git"), upstream.url, upstream.head),
        import_ref(Repository.init(tmp_path / "fourth.git"), upstream.url, "refs/heads/main"),
    ]
    assert {(base.commit, base.tree, base.version) for base in bases} == {
        (bases[0].commit, bases[0].tree, "0.5.12.post1")
    }


def test_a_branch_is_followed_and_says_how_far_it_is(repository: Repository, upstream: Upstream) -> None:
    import_ref(repository, upstream.url, "main")
    upstream.commit(SOURCES | {"python/sglang/b.py": ("100644", b"B = 1\n")})
    upstream.tag("v0.5.9")  # an older release, tagged late
    upstream.tag("nightly")
    head = upstream.commit(SOURCES | {"python/sglang/b.py": ("100644", b"B = 2\n")})

    base = import_ref(repository, upstream.url, "main")

    assert base.version == f"0.5.12.post1+2.g{head[:7]}"
    assert repository.parents(base.commit) == (head,)
    assert repository.read_blob(f"{base.tree}:python/sglang/b.py") == b"B = 2\n"


def test_a_commit_that_was_fetched_before_needs_no_network(repository: Repository, upstream: Upstream) -> None:
    base = import_ref(repository, upstream.url, upstream.head)
    Path(upstream.url).rename(f"{upstream.url}.away")

    assert import_ref(repository, upstream.url, upstream.head, offline=True) == base
    assert import_ref(repository, upstream.url, upstream.head) == base
    with pytest.raises(RemoteError, match=r"upstream\.git@main needs the network, which is not to be used"):
        import_ref(repository, upstream.url, "main", offline=True)


def test_a_repository_that_cannot_be_read_is_a_remotes_fault(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"nowhere\.git cannot be read: fatal: "):
        import_ref(repository, str(tmp_path / "nowhere.git"), "main")
    with pytest.raises(RemoteError, match=r"fetching from .*nowhere\.git failed: fatal: "):
        import_ref(repository, str(tmp_path / "nowhere.git"), "a" * 40)
    assert repository.refs() == {}


def test_a_ref_that_is_not_there_or_not_clear_is_a_fault_of_the_configuration(
    repository: Repository, upstream: Upstream
) -> None:
    with pytest.raises(ConfigError, match=r"upstream\.git has no branch or tag 'ain'"):
        import_ref(repository, upstream.url, "ain")
    with pytest.raises(ConfigError, match=r"has no branch or tag '\*'"):
        import_ref(repository, upstream.url, "*")
    upstream.bare.set_refs({"refs/heads/v0.5.12.post1": upstream.head})
    with pytest.raises(
        ConfigError, match=r"both a branch and a tag 'v0\.5\.12\.post1'; write refs/tags/v0\.5\.12\.post1 or"
    ):
        import_ref(repository, upstream.url, "v0.5.12.post1")
    blob = upstream.bare.write_blob(b"no commit")
    upstream.bare.run("tag", "a-file", blob)
    with pytest.raises(ConfigError, match=r"a-file of .* is no commit"):
        import_ref(repository, upstream.url, "a-file")


def test_a_history_without_a_release_tag_is_refused(repository: Repository, tmp_path: Path) -> None:
    upstream = Upstream(tmp_path / "untagged.git")
    upstream.commit(SOURCES)
    upstream.tag("vendor")
    with pytest.raises(ConfigError, match=r"no release tag \(v0\.5\.23\) is in the history of .*untagged\.git@main"):
        import_ref(repository, upstream.url, "main")


def test_no_password_gets_into_a_name(repository: Repository, upstream: Upstream, sealed: Path) -> None:
    process.run(["git", "config", "--global", f"url.{upstream.url}.insteadOf", "https://me:secret@host.invalid/s.git"])
    base = import_ref(repository, "https://me:secret@host.invalid/s.git", "main")
    assert base.name == "https://host.invalid/s.git@main"
