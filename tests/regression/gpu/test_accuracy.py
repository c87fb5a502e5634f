"""accuracy: what a server says to each prompt, alone and beside others; and GSM8K, where its file is at hand.

Of 40 questions of GSM8K the share of right answers has a standard deviation of 7.7 points: a text that changed is
seen earlier. So each prompt is asked alone and beside others, and what is said to it tonight is compared with what the
last promoted image says on the same machine (``accuracy-texts``).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from testbed import Ports
from testbed.answers import Answer
from testbed.clients import ask_whole, sampling
from testbed.device import deterministic_flags, device
from testbed.forms import Form, models_folder
from testbed.gsm8k import NEXT, SHOTS, is_right, prompts, read_problems, write_problems
from testbed.measures import Measure
from testbed.pd_traffic import Traffic
from testbed.program import Programs
from testbed.server import Server, ServerOptions, start_server
from testbed.thresholds import threshold

pytestmark = [
    pytest.mark.lane("1-gpu", est_s=300, guards=[], owner="@acme/sglang"),
    pytest.mark.limit(1800),
]

START_LIMIT_S = 900.0


def start(form: Form, programs: Programs, ports: Ports) -> Server:
    flags = (*deterministic_flags(device()), "--max-running-requests", str(form.at_once))
    options = ServerOptions(model=form.model, tp=form.tp, pool_tokens=form.pool_tokens, flags=flags)
    return start_server(programs, ports, options, limit_s=START_LIMIT_S)


@pytest.mark.form("accuracy", "texts")
def test_a_text_depends_on_its_prompt_alone(form: Form, programs: Programs, ports: Ports, measure: Measure) -> None:
    for text in texts_of(form, programs, ports):
        measure("accuracy-texts", digest(text))


@pytest.mark.lane("2-gpu")
@pytest.mark.form("accuracy", "texts-of-two-ranks")
def test_a_text_of_two_ranks_depends_on_its_prompt_alone(
    form: Form, programs: Programs, ports: Ports, measure: Measure
) -> None:
    for text in texts_of(form, programs, ports):
        measure("accuracy-texts-of-two-ranks", digest(text))


def texts_of(form: Form, programs: Programs, ports: Ports) -> list[str]:
    server = start(form, programs, ports)
    questions = form.traffic.prompts()
    alone = ask_whole(server, questions, form.new_tokens, at_once=1)
    server.flush()
    beside = ask_whole(server, questions, form.new_tokens, at_once=form.at_once)
    assert failures([*alone, *beside]) == []
    same = sum(one.tokens == other.tokens for one, other in zip(alone, beside, strict=True)) / len(alone)
    assert same >= threshold("accuracy", "same_beside_others"), same
    return [answer.text for answer in alone]


@pytest.mark.lane("1-gpu", est_s=600)
@pytest.mark.form("accuracy", "gsm8k")
def test_gsm8k(form: Form, programs: Programs, ports: Ports, tmp_path: Path, measure: Measure) -> None:
    file = data_of(form, tmp_path)
    asked = prompts(read_problems(file), form.questions)
    server = start(form, programs, ports)
    texts = [text for text, _ in asked]
    answers = ask_whole(server, texts, form.new_tokens, at_once=form.at_once, **sampling(form.new_tokens, NEXT))
    assert failures(answers) == []
    right = sum(is_right(answer.text, problem) for answer, (_, problem) in zip(answers, asked, strict=True))
    measure("accuracy-gsm8k", right / len(asked))
    assert right / len(asked) >= threshold("accuracy", "gsm8k_right"), f"{right} of {len(asked)}"


def data_of(form: Form, folder: Path) -> Path:
    """GSM8K's file among the models; a rehearsal makes one of the bed's own word problems."""
    if form.is_rehearsal:
        return write_problems(folder / form.data, Traffic(form.questions + SHOTS, 1, 1, form.seed))
    models = models_folder()
    if models is None or not (models / form.data).is_file():
        pytest.skip(f"there is no {form.data} in the folder of models")
    return models / form.data


def failures(answers: list[Answer]) -> list[str]:
    return [answer.describe() for answer in answers if not answer.ok][:3]


def digest(text: str) -> float:
    """A whole number below 2**53 for a text, which a sample can carry."""
    return float(int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]))
