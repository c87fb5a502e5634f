"""The programs that run inside an image, run here: on a module search path with a server of a few lines on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from patchstack.image import probe
from patchstack.image.answers import Imported, Imports, Request, read_answer

MODEL = "def make_tiny_model(folder):\n    folder.mkdir()\n    (folder / 'config.json').write_text('{}')\n"
SERVER = """\
import http.server, json, os, pathlib, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, {})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = pathlib.Path(sys.argv[sys.argv.index("--model-path") + 1])
        right = asked["input_ids"] == [1, 2] and model.joinpath("config.json").is_file()
        right = right and os.environ["MARK"] == "given" and "--flag" in sys.argv
        self.answer(200 if right else 400, {"output_ids": [7] * asked["sampling_params"]["max_new_tokens"]})
    def answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

print("noise on standard output", flush=True)
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def run(name: str, asked: Mapping[str, object], site: Path, **environment: str) -> str:
    """What a probe says, with the modules in ``site``."""
    done = subprocess.run(
        [sys.executable, "-c", probe.source(name)],
        input=json.dumps(asked),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(site), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def request(site: Path, *, make_model: str = MODEL, limit_s: float = 60.0, **environment: str) -> Request:
    asked = {
        "make_model": make_model,
        "flags": ["--flag"],
        "environment": {"MARK": "given"},
        "tokens": 3,
        "prompt": [1, 2],
        "limit_s": limit_s,
    }
    found = read_answer(Request, run("request", asked, site, **environment))
    assert found is not None
    return found


def server(folder: Path, code: str) -> Path:
    (folder / "sglang").mkdir()
    (folder / "sglang" / "__init__.py").write_text("")
    (folder / "sglang" / "launch_server.py").write_text(code)
    return folder


# --- one request ---------------------------------------------------------------------------------------


def test_a_server_answers(tmp_path: Path) -> None:
    found = request(server(tmp_path, SERVER))
    assert (found.stage, found.status, found.tokens) == ("answered", 200, [7, 7, 7])
    assert (found.late, found.ended) == (False, None)
    assert "noise on standard output" in found.noise


def test_what_the_image_sets_comes_before_what_the_probe_is_given(tmp_path: Path) -> None:
    found = request(server(tmp_path, SERVER), MARK="the image's")
    assert (found.stage, found.status) == ("request", 400)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("[]", "[]"),
        ('{"output_ids": null}', '{"output_ids": null}'),
        ("no JSON", "no JSON"),
        ('{"text": "x"}', '{"text"'),
    ],
)
def test_an_answer_without_tokens_is_none(tmp_path: Path, body: str, words: str) -> None:
    code = SERVER.replace("json.dumps(body).encode()", f"{body!r}.encode()")
    found = request(server(tmp_path, code))
    assert (found.stage, found.status, found.tokens) == ("request", 200, [])
    assert found.words.startswith(words)


def test_a_server_that_ends(tmp_path: Path) -> None:
    found = request(server(tmp_path, "raise SystemExit('no such device')"))
    assert (found.stage, found.ended, found.late) == ("start", 1, False)
    assert found.noise.strip().endswith("no such device")


def test_a_server_that_ends_when_it_is_asked(tmp_path: Path) -> None:
    code = SERVER.replace("    def do_POST(self):\n", "    def do_POST(self):\n        os._exit(3)\n")
    found = request(server(tmp_path, code))
    assert (found.stage, found.ended) == ("request", 3)


def test_a_server_that_never_comes_up_is_ended(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    code = f"import os, signal\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\nsignal.pause()"
    found = request(server(tmp_path, code), limit_s=5.0)
    assert (found.stage, found.late) == ("start", True)
    assert not Path("/proc", mark.read_text()).exists()


def test_a_model_that_cannot_be_made(tmp_path: Path) -> None:
    found = request(server(tmp_path, SERVER), make_model="import no_such_module")
    assert (found.stage, found.ended) == ("model", 1)
    assert "no_such_module" in found.noise


# --- imports -------------------------------------------------------------------------------------------


def imports(site: Path, *modules: str, limit_s: float = 60.0) -> Imports:
    found = read_answer(Imports, run("imports", {"modules": modules, "environment": {}, "limit_s": limit_s}, site))
    assert found is not None
    return found


def test_each_import_is_answered_for(tmp_path: Path) -> None:
    for name, code in {
        "fine": "print('noise on standard output')",
        "broken": "raise RuntimeError('no')",
        "lacking": "import no_such_module",
        "leaving": "raise SystemExit(0)",
        "torn": "def",
    }.items():
        (tmp_path / f"{name}.py").write_text(code)
    found = imports(tmp_path, "fine", "broken", "lacking", "leaving", "torn", "absent")
    assert found.imports == [
        Imported("fine", None, None),
        Imported("broken", "RuntimeError: no", None),
        Imported("lacking", "ModuleNotFoundError: No module named 'no_such_module'", "no_such_module"),
        Imported("leaving", "SystemExit: 0", None),
        Imported("torn", "SyntaxError: invalid syntax (torn.py, line 1)", None),
        Imported("absent", "ModuleNotFoundError: No module named 'absent'", "absent"),
    ]
    assert (found.ended, found.late, found.noise) == (0, False, "noise on standard output\n")


def test_a_module_that_ends_the_process_has_no_answer(tmp_path: Path) -> None:
    (tmp_path / "fine.py").write_text("")
    (tmp_path / "ends.py").write_text("import os\nos._exit(0)")
    found = imports(tmp_path, "fine", "ends", "fine")
    assert found.imports == [Imported("fine", None, None)]
    assert found.ended == 0


def test_a_module_that_hangs_is_ended(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text("import signal\nsignal.pause()")
    found = imports(tmp_path, "hangs", limit_s=2.0)
    assert (found.imports, found.late) == ([], True)


def test_probes_need_nothing_but_the_standard_library() -> None:
    for name in ("imports", "request"):
        assert "patchstack" not in probe.source(name)
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", probe.source(name).replace("main()\n", "pass\n")],
            stdin=subprocess.DEVNULL,
            check=True,
        )
