"""Code that nobody trusts, in a real child: what it can read, write, reach and end, by each means."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.unit.regress.test_guards_gone_wild import fake_bed

from patchstack import process
from patchstack.errors import MachineError
from patchstack.model import GuardOutcome
from patchstack.regress import enclose, execute, record, unprivileged
from patchstack.regress.crew import has_own_network
from patchstack.regress.enclose import Means
from patchstack.regress.execute import Tree, child_environment, run_suite
from patchstack.regress.suites import Suite
from patchstack.regress.unprivileged import FIRST_ID, LONE_ID, Cell, unreadable
from patchstack.verbs import test as verb

CANARY = "canary-5f1c"

SYSTEM_PYTHON = Path("/usr/bin/python3")
"""The one that runs the tests may lie in root's HOME, where nobody else gets to."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture(params=[Means.NAMESPACES, Means.IDENTITY])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Means:
    """Each means of root, the second as on a machine that allows no namespaces."""
    if request.param is Means.IDENTITY:
        monkeypatch.setattr(unprivileged, "namespace_fault", lambda: "unshare: Operation not permitted")
        if not SYSTEM_PYTHON.exists():
            pytest.skip("no Python that everybody may run")
    elif unprivileged.namespace_fault():
        pytest.skip(f"no namespaces here: {unprivileged.namespace_fault()}")
    return Means(request.param)


def open_to_all(folder: Path) -> None:
    """Let everybody get to ``folder``, which pytest makes for its user alone."""
    top = Path(tempfile.gettempdir())
    for path in (folder, *folder.parents):
        if path.is_relative_to(top) and path != top:
            path.chmod(0o755)


@dataclass
class Machine:
    """A user's machine in a folder that everybody may look into, with a canary in each place."""

    folder: Path
    root: Path
    tree: Tree
    home: Path
    secrets: dict[str, Path] = field(default_factory=dict)

    def keep(self, name: str, path: Path, mode: int = 0o644) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CANARY)
        path.chmod(mode)
        self.secrets[name] = path

    def cell(self) -> AbstractContextManager[Cell]:
        return unprivileged.cell(self.root, self.tree.folder, self.tree.python, self.tree.bytecode)

    def run(self, code: str, *arguments: object) -> str:
        """What ``code`` prints as the code of a candidate."""
        with self.cell() as cell:
            argv = [str(self.tree.python), "-c", code, *map(str, arguments)]
            environment = child_environment(self.root, self.tree, cell.home)
            done = process.run(cell.argv(argv), cwd=self.root, env=environment, timeout_s=60, check=False)
            cell.require_begun()
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def tries(self, code: str, *arguments: object) -> str:
        """``done``, or the name of the error by which ``code``, an expression, failed."""
        return self.run(TRIES.format(code=code), *arguments)


TRIES = """
import ctypes, os, signal, socket, sys
from pathlib import Path
place = Path(sys.argv[1]) if len(sys.argv) > 1 else None
try:
    {code}
    print("done")
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture
def machine(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    if "means" in request.fixturenames:
        request.getfixturevalue("means")
    open_to_all(tmp_path)
    root, tree = fake_bed(tmp_path)
    if unprivileged.means() is Means.IDENTITY:
        tree = replace(tree, python=SYSTEM_PYTHON)
    home = tmp_path / "home"
    machine = Machine(tmp_path, root, tree, home)
    machine.keep("home", home / ".netrc")
    machine.keep("store", root / ".patchstack" / "store.git" / "config")
    machine.keep("login", root / ".patchstack" / "registry" / "login.json")
    machine.keep("git", root / ".git" / "config")
    machine.keep("runtime", tmp_path / "run" / "docker.json")
    machine.keep("answers", tmp_path / "cache" / "answers" / "a.json")
    machine.keep("other tree", tmp_path / "cache" / "trees" / "other" / "python" / "a.py")
    machine.keep("other bytecode", tmp_path / "cache" / "bytecode" / "other" / "a.pyc")
    for name, value in {
        "HOME": home,
        "XDG_RUNTIME_DIR": tmp_path / "run",
        "PATCHSTACK_CACHE": tmp_path / "cache",
        "GITHUB_TOKEN": CANARY,
        "CANARY": CANARY,
    }.items():
        monkeypatch.setenv(name, str(value))
    return machine


@as_root
def test_where_another_program_gets_namespaces_so_do_we() -> None:
    """Else all that needs them here would be skipped, and nights would make do with less."""
    asked = ["unshare", "--user", "--mount", "--pid", "--net", "--ipc", "--fork", "--mount-proc", "true"]
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(asked, check=False, capture_output=True).returncode == 0:
            assert unprivileged.namespace_fault() == ""


# --- what it can read ---


@as_root
def test_what_is_the_user_s_is_not_there(machine: Machine) -> None:
    """Also where everybody on the machine may read it; `Means.IDENTITY` can only keep what file modes keep."""
    if unprivileged.means() is not Means.NAMESPACES:
        pytest.skip(unprivileged.namespace_fault())
    seen = machine.run(
        "import os, sys; print([os.path.exists(name) for name in sys.argv[1:]])", *machine.secrets.values()
    )
    assert dict(zip(machine.secrets, json.loads(seen.lower()), strict=True)) == dict.fromkeys(machine.secrets, False)


@as_root
def test_what_only_its_owner_may_read_stays_so(machine: Machine, means: Means) -> None:
    machine.keep("key", machine.tree.folder / "key", 0o600)
    assert machine.tries("place.read_text()", machine.secrets["key"]) == "PermissionError"


@as_root
def test_what_the_user_keeps_in_a_folder_that_is_shown_is_covered(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if unprivileged.means() is not Means.NAMESPACES:
        pytest.skip(unprivileged.namespace_fault())
    home = machine.tree.folder / "home"
    machine.keep("in the tree", home / ".netrc")
    monkeypatch.setenv("HOME", str(home))
    assert machine.run("import os, sys; print(os.listdir(sys.argv[1]))", home) == "[]"
    assert machine.tries("(place / 'new').touch()", home) == "OSError"


READS = """
import os, sys
found = [dict(os.environ)]
for name in os.listdir("/proc"):
    if name.isdigit():
        for file in ("environ", "cwd", "fd", "mem"):
            path = f"/proc/{name}/{file}"
            try:
                found.append(open(path, "rb").read() if file == "environ" else os.stat(path + "/"))
            except OSError:
                pass
print(sys.argv[1] in repr(found), len(found) > 1)
"""


@as_root
def test_no_environment_that_it_can_read_holds_the_canary(machine: Machine, means: Means) -> None:
    """`GITHUB_TOKEN` and `CANARY` are in ours, and in that of a program beside us."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, env={"CANARY": CANARY}) as beside:
        assert machine.run(READS, CANARY) == "False True"
        for pid in (os.getpid(), beside.pid):
            said = machine.tries("place.read_bytes()", f"/proc/{pid}/environ")
            assert said == {Means.NAMESPACES: "FileNotFoundError", Means.IDENTITY: "PermissionError"}[means]
        beside.communicate()


def test_its_environment_is_an_allow_list(machine: Machine) -> None:
    assert CANARY not in machine.run("import os; print(dict(os.environ))")


@contextlib.contextmanager
def answering(address: str | tuple[str, int]) -> Iterator[socket.socket]:
    """An agent that says the canary to whoever connects."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind(address)
        server.listen()
        yield server


ASKS = "socket.socket(getattr(socket, sys.argv[2])).connect(eval(sys.argv[3]))"


@as_root
def test_agents_and_servers_of_this_machine_cannot_be_reached(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if unprivileged.means() is not Means.NAMESPACES:
        pytest.skip(unprivileged.namespace_fault())
    agent = machine.folder / "agent.sock"
    abstract = f"\0agent-{os.getpid()}"
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    with answering(str(agent)), answering(abstract), answering(("127.0.0.1", 0)) as loopback:
        agent.chmod(0o777)
        said = [
            machine.tries(ASKS, "-", kind, repr(address))
            for kind, address in (
                ("AF_UNIX", str(agent)),
                ("AF_UNIX", abstract),
                ("AF_INET", loopback.getsockname()),
            )
        ]
    assert said == ["FileNotFoundError", "ConnectionRefusedError", "ConnectionRefusedError"]


@as_root
def test_the_agent_of_the_user_asks_who_connects(machine: Machine, means: Means) -> None:
    """As ssh-agent makes its socket: for its owner alone."""
    agent = machine.tree.folder / "agent.sock"
    with answering(str(agent)):
        agent.chmod(0o600)
        assert machine.tries(ASKS, "-", "AF_UNIX", repr(str(agent))) == "PermissionError"


# Joins a session with a key in it, add_key(2), and becomes what is named behind; its parent is that one's.
WITH_KEY = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None)
if libc.syscall(250, 1, None) < 0 or libc.syscall(248, b"user", b"canary", b"secret", 6, -3) < 0:
    sys.exit(3)
if sys.argv[1].startswith("{"):
    sys.argv[1:] = [*sys.argv[2:], json.dumps({**json.loads(sys.argv[1]), "parent": os.getppid()})]
os.execv(sys.argv[1], sys.argv[1:])
"""
# Asks for that key by its name, request_key(2).
ASKS_KEY = """
import ctypes
print(ctypes.CDLL(None).syscall(249, b"user", b"canary", None, 0) > 0)
"""


@as_root
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the calls' numbers are those of x86_64")
def test_the_keys_of_the_session_are_not_its(machine: Machine, means: Means) -> None:
    with machine.cell() as cell:
        asks = [str(machine.tree.python), "-c", ASKS_KEY]
        *started, plan = cell.argv(asks)

        def say(*argv: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-c", WITH_KEY, *argv], capture_output=True, text=True, check=False, cwd=machine.root
            )

        plain = say(*asks)
        if plain.returncode == 3:
            pytest.skip("the kernel has no keys")
        assert plain.stdout.strip() == "True"
        assert say(plan, *started).stdout.strip() == "False"
        cell.require_begun()


# --- what it can do ---


@as_root
def test_it_is_nobody_outside_and_root_inside_if_it_can(machine: Machine, means: Means) -> None:
    ours = os.getgroups()
    os.setgroups([4])
    try:
        said = machine.run("import os; open(os.environ['HOME'] + '/made', 'w'); print(os.getuid(), os.getgroups())")
    finally:
        os.setgroups(ours)
    assert said == {Means.NAMESPACES: "0 []", Means.IDENTITY: f"{LONE_ID} []"}[means]
    gives = "os.chown(Path(os.environ['HOME']), 54321, 54321)"
    assert machine.tries(gives) == {Means.NAMESPACES: "done", Means.IDENTITY: "PermissionError"}[means]


@as_root
def test_what_it_writes_belongs_to_nobody(machine: Machine, means: Means) -> None:
    machine.run("import os; open(os.environ['PYTHONPYCACHEPREFIX'] + '/made', 'w')")
    made = (machine.tree.bytecode / "made").stat()
    owner = {Means.NAMESPACES: FIRST_ID, Means.IDENTITY: LONE_ID}[means]
    assert (made.st_uid, made.st_gid) == (owner, owner)


@as_root
@pytest.mark.parametrize("where", ["tree", "bed", "guards", "other tree", "other bytecode", "store"])
def test_it_writes_only_where_it_may(machine: Machine, means: Means, where: str) -> None:
    places = {
        "tree": machine.tree.folder / "python",
        "bed": Path(sys.prefix),
        "guards": machine.root / "tests" / "regression",
        **{name: path.parent for name, path in machine.secrets.items()},
    }
    read_only_or_absent = "OSError" if where in ("tree", "bed", "guards") else "FileNotFoundError"
    expected = "PermissionError" if means is Means.IDENTITY else read_only_or_absent
    assert machine.tries("(place / 'planted').touch()", places[where]) == expected
    assert not (places[where] / "planted").exists()


@as_root
def test_its_file_system_cannot_be_opened_up(machine: Machine, means: Means) -> None:
    """Neither what is read-only, nor what lies under a cover, also from a name space of its own."""
    code = """libc = ctypes.CDLL(None, use_errno=True)
    libc.unshare(0x10020000)
    failed = [libc.mount(b"none", str(place).encode(), None, flags, None) < 0 for flags in (0x1020, 0x1028, 0x20)]
    failed.append(libc.umount2(str(place).encode(), 2) < 0)
    print(failed)"""
    said = machine.tries(code, machine.tree.folder).splitlines()[0]
    assert said == "[True, True, True, True]"
    if means is Means.NAMESPACES:
        roots = "print([line for line in open('/proc/self/mountinfo') if line.split()[4] == '/'].__len__())"
        assert machine.run(roots) == "1"  # the machine's own lies nowhere below


@as_root
@pytest.mark.parametrize("how", ["place.unlink()", "place.rename('/tmp/x')", "place.with_name('more').touch()"])
def test_its_record_stays_the_file_that_we_read(machine: Machine, means: Means, how: str) -> None:
    """It could be a link to what only we may read."""
    code = how.replace("place", "Path(os.environ['HOME']).with_name('record.jsonl')")
    assert machine.tries(code) in ("OSError", "PermissionError")


@as_root
def test_a_mask_of_ours_hides_nothing_from_it(machine: Machine, means: Means) -> None:
    before = os.umask(0o077)
    try:
        assert machine.run("print('here')") == "here"
    finally:
        os.umask(before)


@as_root
def test_it_has_a_loopback_to_listen_on(machine: Machine) -> None:
    said = machine.tries("socket.create_connection((open_ := socket.create_server(('127.0.0.1', 0))).getsockname())")
    assert said == "done"


def test_whatever_it_leaves_in_its_home_goes(machine: Machine) -> None:
    """Folders in folders, more of them than Python's own way of removing them has stack for."""
    code = "import os; [(os.mkdir('d'), os.chdir('d')) for _ in range(3000)]"
    with machine.cell() as cell:
        argv = cell.argv([str(machine.tree.python), "-c", f"import os; os.chdir(os.environ['HOME']); {code}"])
        environment = child_environment(machine.root, machine.tree, cell.home)
        assert process.run(argv, env=environment, check=False).returncode == 0
        assert (cell.home / "d" / "d").is_dir()
    assert not cell.home.parent.exists()


@as_root
@pytest.mark.parametrize("how", ["os.kill({pid}, 9)", "open('/proc/{pid}/mem', 'wb')"])
def test_it_cannot_end_or_change_our_processes(machine: Machine, means: Means, how: str) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as beside:
        said = machine.tries(how.format(pid=beside.pid))
        assert beside.poll() is None
        beside.communicate()
    assert said in ("ProcessLookupError", "PermissionError", "FileNotFoundError")


@as_root
def test_it_gets_no_rights_by_a_program(machine: Machine, means: Means) -> None:
    said = machine.run("print([line for line in open('/proc/self/status') if line.startswith('NoNewPrivs')])")
    assert said == "['NoNewPrivs:\\t1\\n']"


# Whether System V's shared memory has a segment of this key: shmget(2).
HAS_SEGMENT = "import ctypes, sys; print(ctypes.CDLL(None).shmget(int(sys.argv[1]), 0, 0) >= 0)"


@as_root
def test_memory_that_programs_share_is_its_own(machine: Machine) -> None:
    if unprivileged.means() is not Means.NAMESPACES:
        pytest.skip(unprivileged.namespace_fault())
    key, libc = os.getpid() << 8, ctypes.CDLL(None)
    segment = libc.shmget(key, 4096, 0o1666)
    try:
        assert segment >= 0
        assert machine.run(HAS_SEGMENT, key) == "False"
    finally:
        libc.shmctl(segment, 0, None)
    ours = Path("/dev/shm") / f"patchstack-test-{os.getpid()}"
    ours.touch()
    try:
        assert machine.tries("place.stat()", ours) == "FileNotFoundError"
        assert machine.tries(f"Path('/dev/shm/{ours.name}-theirs').touch()") == "done"
        assert not ours.with_name(f"{ours.name}-theirs").exists()
    finally:
        ours.unlink()


# --- its end ---


DAEMON = """
import os, signal, sys
up, tells = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        held = os.open(sys.argv[1], os.O_WRONLY)
        os.write(held, b"up")
        os.write(tells, b".")
        signal.pause()
    os._exit(0)
os.read(up, 1)
{then}
"""


@as_root
@pytest.mark.parametrize("then", ["os.wait(); os._exit(0)", "os.kill(os.getpid(), 9)", "signal.pause()"])
def test_nothing_that_it_started_outlives_it(machine: Machine, then: str) -> None:
    """Also what left its session, however it ended: by itself or by us."""
    if unprivileged.means() is not Means.NAMESPACES:
        pytest.skip(unprivileged.namespace_fault())
    machine.tree.bytecode.mkdir()
    fifo = machine.tree.bytecode / "held"
    os.mkfifo(fifo)
    fifo.chmod(0o622)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    with machine.cell() as cell:
        argv = cell.argv([str(machine.tree.python), "-c", DAEMON.format(then=then), str(fifo)])
        environment = child_environment(machine.root, machine.tree, cell.home)
        with subprocess.Popen(argv, cwd=machine.root, env=environment, start_new_session=True) as child:
            holder = os.open(fifo, os.O_WRONLY)
            assert os.read(reader, 2) == b"up"
            os.close(holder)
            if "pause" in then:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            assert os.read(reader, 1) == b""  # the last that had it open has ended
    os.close(reader)


@pytest.mark.parametrize(("code", "ended"), [("os._exit(7)", 7), ("os.kill(os.getpid(), 11)", -11)])
def test_it_ends_as_the_program_ended(machine: Machine, code: str, ended: int) -> None:
    with machine.cell() as cell:
        argv = cell.argv([str(machine.tree.python), "-c", f"import os; {code}"])
        assert process.run(argv, check=False).returncode == ended
        cell.require_begun()


# --- what cannot be reached ---


def test_what_somebody_else_cannot_get_to_is_named(tmp_path: Path) -> None:
    open_to_all(tmp_path)
    place = tmp_path / "cache" / "tree"
    place.mkdir(parents=True)
    assert unreadable([place], ancestors=True) is None
    (tmp_path / "cache").chmod(0o700)
    assert unreadable([place]) is None
    assert unreadable([place], ancestors=True) == tmp_path / "cache"
    place.chmod(0o700)
    assert unreadable([place]) == place


@as_root
def test_without_namespaces_what_cannot_be_reached_is_one_error(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unprivileged, "namespace_fault", lambda: "unshare: Operation not permitted")
    if not SYSTEM_PYTHON.exists():
        pytest.skip("no Python that everybody may run")
    machine.tree = replace(machine.tree, python=SYSTEM_PYTHON)
    machine.folder.chmod(0o700)
    with pytest.raises(MachineError) as caught:
        machine.run("pass")
    assert str(caught.value) == (
        f"code of candidates runs as a user without rights, who cannot get to {machine.folder} (this machine gives "
        "root no namespaces: unshare: Operation not permitted): run as a user who is not root, or move what is there: "
        "PATCHSTACK_CACHE is the cache, TMPDIR the folder for temporary files"
    )


@as_root
def test_a_repository_that_only_its_owner_reads_is_one_error(machine: Machine) -> None:
    (machine.root / "tests").chmod(0o700)
    with pytest.raises(MachineError, match=r"tests is readable to its owner alone: `chmod -R go\+rX "):
        machine.run("pass")


def test_a_program_that_cannot_be_started_is_this_machine_s_fault(machine: Machine) -> None:
    with machine.cell() as cell:
        process.run(cell.argv(["/not/there"]), cwd=machine.root, check=False)
        with pytest.raises(MachineError, match=r"cannot be started on this machine: .*No such file"):
            cell.require_begun()


def test_a_parent_that_has_died_already_starts_nothing(machine: Machine) -> None:
    with machine.cell() as cell:
        plan = json.loads(cell.argv([str(machine.tree.python), "-c", "print('begun')"])[-1])
        argv = [sys.executable, "-I", "-S", enclose.__file__, json.dumps({**plan, "parent": 1})]
        done = process.run(argv, cwd=machine.root, check=False)
    assert (done.returncode, done.stdout) == (125, "")


# --- guards ---


def guard_says(tmp_path: Path, *tests: str) -> dict[str, GuardOutcome]:
    root, tree = fake_bed(tmp_path, *tests)
    found = run_suite(Suite("x", ("tests/regression/x",), "d"), tree, root, tmp_path / "x.log", 60.0)
    return {result.test.rpartition(":")[2]: result.outcome for result in found}


@as_root
def test_guards_run_as_root_of_their_own_world(tmp_path: Path) -> None:
    """With the real plugin, which takes a network of its own; another user's files are there for a guard to make."""
    if unprivileged.means() is not Means.NAMESPACES:
        pytest.skip(unprivileged.namespace_fault())
    tests = """
def test_root(tmp_path):
    file = tmp_path / "f"
    file.touch()
    os.chown(file, 54321, 54321)
    assert (os.geteuid(), file.stat().st_uid) == (0, 54321)

def test_network():
    import socket
    from testbed import network
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
    assert network.make_private() == network.PRIVATE
"""
    assert guard_says(tmp_path, tests) == {"test_root": GuardOutcome.PASS, "test_network": GuardOutcome.PASS}


@as_root
def test_what_lies_on_the_path_of_the_tree_runs_no_other_way(machine: Machine, means: Means) -> None:
    """A `sitecustomize` runs before any line of a guard, also where the bed is only asked for a network."""
    says = "import os\nopen(os.environ['PYTHONPYCACHEPREFIX'] + '/ran', 'w')\n"
    (machine.tree.folder / "python" / "sitecustomize.py").write_text(says)
    has_own_network(machine.root, machine.tree)
    owner = {Means.NAMESPACES: FIRST_ID, Means.IDENTITY: LONE_ID}[means]
    assert (machine.tree.bytecode / "ran").stat().st_uid == owner


def test_who_runs_guards_is_part_of_what_answers_are_kept_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {verb._runner_digest()}
    for number, module in enumerate((execute, record, unprivileged, enclose), start=1):
        changed = tmp_path / "module.py"
        changed.write_text(f"changed = {number}\n")
        with monkeypatch.context() as patch:
            patch.setattr(module, "__file__", str(changed))
            found.add(verb._runner_digest())
    assert len(found) == 5


def test_no_other_module_starts_the_bed_s_interpreter() -> None:
    """But to ask it what it is, and to install what the locks name: without a tree on its path."""
    package = Path(unprivileged.__file__).parents[1]
    starts = "process.run(", "child_environment("
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if all(word in path.read_text() for word in starts)
    }
    assert found == {"regress/execute.py", "regress/crew.py"}
