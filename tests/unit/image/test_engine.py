"""How engines are told what to do, and what they are kept from; with real podman it is in tests/e2e."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from patchstack import process
from patchstack.errors import MachineError
from patchstack.image import engine as module
from patchstack.image.engine import DigestDiffers, Engine, Limits, engine_at_hand
from patchstack.image.login import Login
from patchstack.image.names import Place

DIGEST = f"sha256:{'a' * 64}"
PLACE = Place("registry.example.com", "acme/sglang")
LOGIN = Login("ann", "canary-0123456789", "the test")

# It writes down how it was called, with the files that it was pointed at, and answers as an engine does.
PROGRAM = """\
#!/bin/sh
{{
  for word in "$@"; do printf '%s\\n' "$word"; done
  echo "CONFIG: $(cat "$DOCKER_CONFIG/config.json" 2>/dev/null)"
  echo "SECRET: $PATCHSTACK_REGISTRY_PASSWORD"
  echo END
}} >> {log}
case "$*" in
  *"image inspect"*RepoDigests*) printf '["registry.example.com/acme/sglang@%s"] sha256:1234\\n' {digest} ;;
  *"image inspect"*) exit 1 ;;
  "version"*) echo 28 ;;
  *" run "*|"run "*) cat; exit {run} ;;
esac
"""


class Told:
    """A program in an engine's place."""

    def __init__(self, folder: Path, name: str, *, digest: str = DIGEST, run: int = 0) -> None:
        self.log = folder / "log"
        self.program = folder / name
        self.program.write_text(PROGRAM.format(log=self.log, digest=digest, run=run))
        self.program.chmod(0o755)

    @property
    def calls(self) -> list[list[str]]:
        return [call.splitlines() for call in self.log.read_text().split("END\n") if call]

    def call(self, verb: str) -> list[str]:
        (found,) = [call for call in self.calls if verb in call]
        return found


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where podman would keep what lasts as long as its containers."""
    place = tmp_path / "run"
    monkeypatch.setattr(module, "_run_folder", lambda folder: place)
    place.mkdir()
    return place


def test_docker_is_told_the_same_as_podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_folder: Path) -> None:
    monkeypatch.setenv("PATCHSTACK_REGISTRY_PASSWORD", LOGIN.reveal())
    options = {}
    for name in ("podman", "docker"):
        folder = tmp_path / name
        folder.mkdir()
        told = Told(folder, name)
        with Engine(name, told.program, "runc").opened(folder) as opened:
            image = opened.pull(PLACE, DIGEST, LOGIN)
            ran = opened.run(image, ["python3", "-c", "code"], stdin="input", limits=Limits(5.0, memory_mib=100))
        assert (image, ran.returncode, ran.stdout) == ("1234", 0, "input")
        text = told.log.read_text()
        assert LOGIN.reveal() not in text
        assert "SECRET: \n" in text
        options[name] = {word for word in told.call("run") if word.startswith("--")}
    asked = ("--network=none", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--pull=never")
    for name in ("podman", "docker"):
        assert set(asked) <= options[name]
        assert not [option for option in options[name] if option.startswith(("--privileged", "--volume", "--mount"))]
    # Podman ends a container by itself when nobody is left to do it; docker cannot.
    differ = {option.partition("=")[0] for option in options["podman"] ^ options["docker"]}
    own = {"--root", "--runroot", "--tmpdir", "--storage-driver", "--storage-opt", "--timeout"}
    # Docker's daemon gives a container none of our variables; podman gives it a proxy's, which may have a password.
    assert differ == {*own, "--http-proxy"}
    assert "--http-proxy=false" in options["podman"]


def test_docker_gets_the_login_as_a_folder_that_is_gone_afterwards(tmp_path: Path) -> None:
    told = Told(tmp_path, "docker")
    with Engine("docker", told.program).opened(tmp_path) as opened:
        opened.pull(PLACE, DIGEST, LOGIN)
    config = next(line for line in told.call("pull") if line.startswith("CONFIG: ")).removeprefix("CONFIG: ")
    assert json.loads(config) == {"auths": {PLACE.host: {"auth": LOGIN.basic}}}
    assert all("CONFIG: " in call for call in told.calls if "pull" not in call)  # none: nothing else is shown it


def test_what_has_another_digest_than_was_asked_for_is_refused(tmp_path: Path) -> None:
    other = f"sha256:{'b' * 64}"
    told = Told(tmp_path, "docker", digest=other)
    with (
        Engine("docker", told.program).opened(tmp_path) as opened,
        pytest.raises(DigestDiffers, match=f"was asked for {DIGEST} and has {other}"),
    ):
        opened.pull(PLACE, DIGEST, None)


def test_an_engine_that_could_not_run_anything_says_so(tmp_path: Path) -> None:
    told = Told(tmp_path, "docker", run=125)
    with Engine("docker", told.program).opened(tmp_path) as opened, pytest.raises(process.ProcessFailed):
        opened.run("1234", ["python3"], limits=Limits(5.0))
    assert told.calls[-2][:2] == ["rm", "--force"]  # the container that it may have made


def test_only_a_registry_of_this_machine_is_spoken_to_without_encryption(tmp_path: Path, run_folder: Path) -> None:
    told = Told(tmp_path, "podman")
    with Engine("podman", told.program, "runc").opened(tmp_path) as opened:
        opened.pull(PLACE, DIGEST, None)
        assert "--tls-verify=false" not in told.call("pull")
        told.log.unlink()
        opened.pull(Place("127.0.0.1:5000", "sglang"), DIGEST, None)
        assert "--tls-verify=false" in told.call("pull")


def test_podman_reads_settings_of_ours_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_folder: Path
) -> None:
    monkeypatch.setenv("CONTAINERS_CONF_OVERRIDE", "/somebody/elses")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/somebody/elses")
    told = Told(tmp_path, "podman")
    with Engine("podman", told.program, "crun").opened(tmp_path) as opened:
        said = {
            name: text for name, text in opened.environment.items() if name.startswith(("CONTAINERS_", "REGISTRY_"))
        }
    settings = tmp_path / "containers" / "settings"
    assert said == {
        "CONTAINERS_CONF": str(settings / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(settings / "storage.conf"),
    }
    assert 'runtime = "crun"' in (settings / "containers.conf").read_text()
    assert f'graphroot = "{tmp_path}/containers/storage"' in (settings / "storage.conf").read_text()


# --- where podman keeps what lasts as long as its containers -------------------------------------------


@pytest.fixture
def as_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Not root, whose folder would be in /run."""
    above = tmp_path / "above"
    above.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(above))
    user = os.getuid()
    monkeypatch.setattr(module.os, "getuid", lambda: user or 4711)
    if user == 0:
        monkeypatch.setattr(module, "_owner_of", lambda found: 4711 if found.st_uid == 0 else found.st_uid)
    return above


def test_the_run_folder_is_this_users_alone_and_as_short_as_podman_wants_it(as_a_user: Path, tmp_path: Path) -> None:
    place = module._run_folder(tmp_path)
    assert place.parent == as_a_user
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert len(place.name) <= 24
    assert module._run_folder(tmp_path) == place
    assert module._run_folder(tmp_path / "other") != place


def test_a_run_folder_that_others_can_write_to_is_refused(as_a_user: Path, tmp_path: Path) -> None:
    place = module._run_folder(tmp_path)
    place.chmod(0o777)
    with pytest.raises(MachineError, match="is not this user's own folder"):
        module._run_folder(tmp_path)
    place.chmod(0o700)
    (place / "boot").unlink()
    place.rmdir()
    place.symlink_to(tmp_path)
    with pytest.raises(MachineError, match="is not this user's own folder"):
        module._run_folder(tmp_path)


def test_what_was_true_before_the_machine_was_started_is_forgotten(as_a_user: Path, tmp_path: Path) -> None:
    place = module._run_folder(tmp_path)
    (place / "libpod").mkdir()
    (place / "libpod" / "alive").touch()
    module._run_folder(tmp_path)
    assert (place / "libpod" / "alive").exists()
    (place / "boot").write_text("another start")
    module._run_folder(tmp_path)
    assert not (place / "libpod").exists()


# --- what is at hand -----------------------------------------------------------------------------------


def at_hand(folder: Path, monkeypatch: pytest.MonkeyPatch, *programs: str) -> Engine | None:
    for name in programs:
        place = folder / name
        place.write_text("#!/bin/sh\necho 28\n")
        place.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(module, "_SYSTEM_FOLDERS", str(folder / "nowhere"))
    return engine_at_hand()


def test_podman_with_a_runtime_comes_before_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert at_hand(tmp_path, monkeypatch) is None
    assert at_hand(tmp_path, monkeypatch, "podman") is None
    assert at_hand(tmp_path, monkeypatch, "docker") == Engine("docker", tmp_path / "docker")
    assert at_hand(tmp_path, monkeypatch, "crun") == Engine("podman", tmp_path / "podman", "crun")
    assert at_hand(tmp_path, monkeypatch, "runc") == Engine("podman", tmp_path / "podman", "runc")


def test_a_docker_without_an_engine_behind_it_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho Cannot connect to the Docker daemon >&2\nexit 1\n")
    docker.chmod(0o755)
    assert at_hand(tmp_path, monkeypatch) is None
