"""Where a login is looked for, and to whom nothing of it is told."""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import stat
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from patchstack.errors import ImageError
from patchstack.image import login
from patchstack.image.login import Login, authfile, files, login_for

HOST = "registry.example.com:5000"
CANARY = "canary-0123456789"
BASIC = base64.b64encode(f"ann:{CANARY}".encode()).decode()
ENVIRONMENT = {"PATCHSTACK_REGISTRY_USER": "bob", "PATCHSTACK_REGISTRY_PASSWORD": "from-environment"}


def auth(user: str = "ann", password: str = CANARY) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(file: Path, body: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(body if isinstance(body, str) else json.dumps(body))
    return file


def docker(home: Path, body: object) -> Path:
    return write(home / ".docker" / "config.json", body)


def found(home: Path, host: str = HOST, **environ: str) -> tuple[str, str, str] | None:
    """User, password and source, the latter from the home folder on."""
    it = login_for(host, environ, home)
    return (it.user, it.reveal(), it.source.replace(f"{home}/", "")) if it else None


def refusal(home: Path, **environ: str) -> str:
    with pytest.raises(ImageError) as caught:
        login_for(HOST, environ, home)
    told = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert not [secret for secret in (CANARY, BASIC) if secret in told]
    return str(caught.value).removeprefix(f"the login for {HOST} cannot be used: ").replace(f"{home}/", "")


@pytest.fixture(autouse=True)
def no_runtime_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """This machine may have logins of its own where podman keeps them."""
    monkeypatch.setattr(login, "NO_RUNTIME_DIR", tmp_path / "run")
    return tmp_path / "run"


# --- where it is looked for ---


def test_no_login_at_all(tmp_path: Path) -> None:
    assert login_for(HOST, {}, tmp_path) is None


def test_the_environment_is_asked_first_and_only_for_our_own_registry(tmp_path: Path) -> None:
    docker(tmp_path, {"auths": {HOST: auth()}})
    assert found(tmp_path, **ENVIRONMENT) == ("bob", "from-environment", "PATCHSTACK_REGISTRY_USER")
    theirs = login_for(HOST, ENVIRONMENT, tmp_path, ours=False)
    assert theirs is not None
    assert theirs.user == "ann"
    assert login_for("nvcr.example.com", ENVIRONMENT, tmp_path, ours=False) is None


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ("PATCHSTACK_REGISTRY_USER", "PATCHSTACK_REGISTRY_PASSWORD"),
        ("PATCHSTACK_REGISTRY_PASSWORD", "PATCHSTACK_REGISTRY_USER"),
    ],
)
def test_half_a_login_is_none(tmp_path: Path, there: str, missing: str) -> None:
    docker(tmp_path, {"auths": {HOST: auth()}})
    for other in ({}, {missing: ""}, {missing: " \n"}):
        told = refusal(tmp_path, **{there: "half", **other})
        assert told == f"{there} is set without {missing}; set both, or neither"


def test_two_empty_variables_are_no_login(tmp_path: Path) -> None:
    """As a workflow sets them whose secrets are not there."""
    assert found(tmp_path, PATCHSTACK_REGISTRY_USER="", PATCHSTACK_REGISTRY_PASSWORD="") is None


def test_the_newline_behind_a_secret_is_not_of_it(tmp_path: Path) -> None:
    it = found(tmp_path, PATCHSTACK_REGISTRY_USER="bob\n", PATCHSTACK_REGISTRY_PASSWORD="p w\n")
    assert it == ("bob", "p w", "PATCHSTACK_REGISTRY_USER")


def test_files_are_asked_in_the_order_of_the_tools(tmp_path: Path, no_runtime_folder: Path) -> None:
    environ = {
        "REGISTRY_AUTH_FILE": str(tmp_path / "named.json"),
        "XDG_RUNTIME_DIR": str(tmp_path / "runtime"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "DOCKER_CONFIG": str(tmp_path / "docker"),
    }
    places = [
        tmp_path / "named.json",
        tmp_path / "runtime" / "containers" / "auth.json",
        tmp_path / "config" / "containers" / "auth.json",
        tmp_path / "docker" / "config.json",
        tmp_path / ".docker" / "config.json",
    ]
    assert files(environ, tmp_path) == tuple(places)
    for number, place in reversed(list(enumerate(places))):
        write(place, {"auths": {HOST: auth(f"user{number}")}})
        it = login_for(HOST, environ, tmp_path)
        assert it is not None
        assert (it.user, it.source) == (f"user{number}", f"{place} for {HOST}")
    assert files({}, tmp_path) == (
        no_runtime_folder / str(os.getuid()) / "auth.json",
        tmp_path / ".config" / "containers" / "auth.json",
        tmp_path / ".docker" / "config.json",
    )


def test_a_file_without_the_host_leaves_it_to_the_next(tmp_path: Path) -> None:
    write(tmp_path / ".config" / "containers" / "auth.json", {"auths": {"elsewhere.example.com": auth("eve")}})
    docker(tmp_path, {"auths": {HOST: auth()}})
    assert found(tmp_path) == ("ann", CANARY, f".docker/config.json for {HOST}")


@pytest.mark.parametrize(
    ("written", "host"),
    [
        (HOST, HOST),
        (f"https://{HOST}", HOST),
        (f"https://{HOST}/", HOST),
        (f"http://{HOST}/v2/", HOST),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "registry-1.docker.io"),
    ],
)
def test_a_host_is_written_in_many_ways(tmp_path: Path, written: str, host: str) -> None:
    docker(tmp_path, {"auths": {written: auth()}})
    assert found(tmp_path, host) is not None


@pytest.mark.parametrize("written", ["registry.example.com", f"{HOST}0", f"x.{HOST}", f"{HOST}.evil.example.com", ""])
def test_another_host_is_another_host(tmp_path: Path, written: str) -> None:
    docker(tmp_path, {"auths": {written: auth()}})
    assert found(tmp_path) is None


def test_a_password_may_hold_colons_and_letters_of_all_kinds(tmp_path: Path) -> None:
    docker(tmp_path, {"auths": {HOST: auth("ann", "a:b=ü")}})
    it = login_for(HOST, {}, tmp_path)
    assert it is not None
    assert it.reveal() == "a:b=ü"
    assert base64.b64decode(it.basic).decode() == "ann:a:b=ü"


def test_a_user_and_a_password_in_the_clear(tmp_path: Path) -> None:
    """As Kubernetes writes them."""
    docker(tmp_path, {"auths": {HOST: {"username": "ann", "password": CANARY}}})
    assert found(tmp_path) == ("ann", CANARY, f".docker/config.json for {HOST}")


def test_what_is_empty_is_no_login(tmp_path: Path) -> None:
    """As Docker leaves it after a logout, or beside a credential store."""
    docker(tmp_path, {"auths": {HOST: {}}, "credHelpers": None, "HttpHeaders": {}})
    assert found(tmp_path) is None


# --- what cannot be used ---

NO_FILE = ".docker/config.json is no file of logins as `podman login` and `docker login` write it; log in once more"
NOT_BASE64 = f"`auth` in .docker/config.json for {HOST} is not the base64 of user:password; log in once more"
IDENTITY = (
    f".docker/config.json for {HOST} has an identity token, which only Docker itself can use; log in with a user name "
    "and an access token as its password, or set PATCHSTACK_REGISTRY_USER and PATCHSTACK_REGISTRY_PASSWORD"
)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (f'{{"auths": {{"{HOST}": {{"auth": "{BASIC}"}}', NO_FILE),
        ("", NO_FILE),
        ([BASIC], NO_FILE),
        ("[" * 100_000, NO_FILE),
        ({"auths": [BASIC]}, NO_FILE),
        ({"auths": {HOST: auth()}, "credHelpers": "x"}, NO_FILE),
        ({"auths": {HOST: BASIC}}, f"the entry in .docker/config.json for {HOST} is no login; log in once more"),
        ({"auths": {HOST: {"auth": CANARY}}}, NOT_BASE64),
        ({"auths": {HOST: {"auth": base64.b64encode(CANARY.encode()).decode()}}}, NOT_BASE64),
        ({"auths": {HOST: {"auth": base64.b64encode(b"\xff:\xff").decode()}}}, NOT_BASE64),
        ({"auths": {HOST: {"auth": 1}}}, NOT_BASE64),
        ({"auths": {HOST: {"password": CANARY}}}, NOT_BASE64),
        ({"auths": {HOST: {**auth("<token>", ""), "identitytoken": CANARY}}}, IDENTITY),
        ({"auths": {HOST: {"registrytoken": CANARY}}}, IDENTITY),
        (
            {"auths": {HOST: auth("ann", f"{CANARY}\r\nX-Header: 1")}},
            f".docker/config.json for {HOST} has a colon in the user's name, or a control character; log in once more",
        ),
        (
            {"credsStore": "../evil"},
            ".docker/config.json names a credential helper '../evil', which is no program's name; mend the file",
        ),
        (
            {"credHelpers": {HOST: ["x"]}},
            ".docker/config.json names a credential helper ['x'], which is no program's name; mend the file",
        ),
    ],
    ids=lambda it: "" if it == "" or isinstance(it, str) else type(it).__name__,
)
def test_what_cannot_be_used_is_told_without_what_is_in_it(tmp_path: Path, body: object, told: str) -> None:
    docker(tmp_path, body)
    assert refusal(tmp_path) == told


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    docker(tmp_path, "").unlink()
    (tmp_path / ".docker" / "config.json").mkdir()
    assert refusal(tmp_path) == (".docker/config.json cannot be read (IsADirectoryError); mend it, or log in once more")
    (tmp_path / ".docker" / "config.json").rmdir()
    (tmp_path / ".docker" / "config.json").write_bytes(b"\xff\xfe")
    assert "cannot be read (UnicodeDecodeError)" in refusal(tmp_path)


def test_a_broken_file_is_not_passed_over_for_the_next(tmp_path: Path) -> None:
    write(tmp_path / ".config" / "containers" / "auth.json", "{")
    docker(tmp_path, {"auths": {HOST: auth()}})
    assert refusal(tmp_path).startswith(".config/containers/auth.json is no file of logins")


# --- credential helpers ---


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Installs a helper called ``test``, a shell script; its folder, in which it can leave something."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def install(script: str) -> Path:
        program = folder / "docker-credential-test"
        program.write_text(f"#!/bin/sh\ncd {folder}\n{script}\n")
        program.chmod(0o755)
        return folder

    return install


ANSWER = f'echo \'{{"ServerURL": "x", "Username": "ann", "Secret": "{CANARY}"}}\''
TEST = "docker-credential-test"
TOLD = f"{TEST}, which .docker/config.json names for {HOST},"


@pytest.mark.parametrize(
    "config",
    [
        {"credHelpers": {HOST: "test"}},
        {"credsStore": "test"},
        {"credsStore": "test", "auths": {HOST: {}}},
        {"credHelpers": {HOST: "test"}, "credsStore": "none", "auths": {HOST: auth("eve", "x")}},
    ],
    ids=["of the host", "of all hosts", "as Docker has it", "before all else"],
)
def test_a_helper_is_asked_for_the_host(
    tmp_path: Path, helper: Callable[[str], Path], config: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHSTACK_SIGNING_KEY", CANARY)
    folder = helper(f"cat > asked; echo $* > arguments; env > environment; {ANSWER}")
    docker(tmp_path, config)
    assert found(tmp_path) == ("ann", CANARY, f"{TEST} (.docker/config.json)")
    assert (folder / "asked").read_text() == HOST
    assert (folder / "arguments").read_text() == "get\n"
    assert CANARY not in (folder / "environment").read_text()


def test_docker_hub_is_asked_for_by_its_old_name(tmp_path: Path, helper: Callable[[str], Path]) -> None:
    folder = helper(f"cat > asked; {ANSWER}")
    docker(tmp_path, {"credsStore": "test"})
    assert found(tmp_path, "docker.io") is not None
    assert (folder / "asked").read_text() == "https://index.docker.io/v1/"


def test_an_entry_with_a_login_counts_before_the_store(tmp_path: Path, helper: Callable[[str], Path]) -> None:
    helper("exit 3")
    docker(tmp_path, {"credsStore": "test", "auths": {HOST: auth()}})
    assert found(tmp_path) == ("ann", CANARY, f".docker/config.json for {HOST}")


def test_a_helper_that_has_none(tmp_path: Path, helper: Callable[[str], Path]) -> None:
    helper("echo credentials not found in native keychain; exit 1")
    docker(tmp_path, {"credsStore": "test"})
    assert found(tmp_path) is None


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo locked; exit 1", f"{TOLD} ended with 1: locked"),
        ("echo no display >&2; exit 2", f"{TOLD} ended with 2: no display"),
        (f"echo {CANARY}", f"{TOLD} answered something other than a user and a secret"),
        (f"echo '[\"{CANARY}\"]'", f"{TOLD} answered something other than a user and a secret"),
        (f'echo \'{{"Secret": "{CANARY}"}}\'', f"{TOLD} answered something other than a user and a secret"),
        (
            f'echo \'{{"Username": "<token>", "Secret": "{CANARY}"}}\'',
            f"{TOLD} has an identity token; log in with a user name and an access token as its password",
        ),
    ],
    ids=["refused", "broken", "no JSON", "a list", "no user", "identity token"],
)
def test_a_helper_that_cannot_be_used(tmp_path: Path, helper: Callable[[str], Path], script: str, told: str) -> None:
    helper(script)
    docker(tmp_path, {"credHelpers": {HOST: "test"}})
    assert refusal(tmp_path) == told


def test_a_helper_that_is_not_installed_or_does_not_end(
    tmp_path: Path, helper: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    docker(tmp_path, {"credHelpers": {HOST: "test"}})
    assert refusal(tmp_path) == (
        f"{TOLD} did not answer: `{TEST}` cannot be started: No such file or directory; install it and run again"
    )
    monkeypatch.setattr(login, "HELPER_LIMIT_S", 0.3)
    helper("exec sleep 60")
    assert refusal(tmp_path) == f"{TOLD} did not answer: `{TEST} get` was ended: it ran longer than 0 s"


# --- what is told of it ---


def test_a_login_is_in_no_text() -> None:
    it = Login("ann", CANARY, "the test")
    assert repr(it) == str(it) == f"{it}" == "Login(user='ann', password=***, source='the test')"
    for write_down in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not written down"):
            write_down(it)
    assert it.out_of(f"{CANARY} {BASIC} ann") == "*** *** ann"
    assert Login("ann", "", "the test").out_of("text") == "text"


# --- a file for other programs ---


def test_a_file_for_other_programs_is_for_us_alone_and_gone_afterwards() -> None:
    before = os.umask(0)
    try:
        with authfile(Login("ann", CANARY, "the test"), HOST) as file:
            assert json.loads(file.read_text()) == {"auths": {HOST: {"auth": BASIC}}}
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    finally:
        os.umask(before)
    assert not file.parent.exists()


def test_without_a_login_there_is_a_file_with_none() -> None:
    with authfile(None, HOST) as file:
        assert json.loads(file.read_text()) == {"auths": {}}


def test_what_goes_wrong_in_the_block_leaves_no_file() -> None:
    block = authfile(Login("ann", CANARY, "the test"), HOST)
    file = block.__enter__()
    assert not block.__exit__(KeyError, KeyError(), None)
    assert not file.parent.exists()
