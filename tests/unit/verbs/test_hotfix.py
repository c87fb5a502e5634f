"""`nightly --only PR --onto previous` up to its composition, with a GitHub of this machine and real repositories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.unit.builders import TEN, A, B, C, edit, names
from tests.unit.verbs.test_plan_verb import CONFIG, FORK, OWN, UPSTREAM, Desk, desk  # noqa: F401

from patchstack.cli import main_group
from patchstack.errors import Incomplete, RemoteError, UsageError
from patchstack.model import Composition, Hotfix, MergePlan, NightReport, Sha
from patchstack.nightly import Part, Until, night
from patchstack.release.ledger import History, format_message
from patchstack.report.markdown import render_markdown
from patchstack.store import Run
from patchstack.verbs.hotfix import pull_names, require_onto_deployed
from patchstack.verbs.plan import composed, merge, plan
from patchstack.verbs.remote import open_remote


def admit(desk: Desk, *numbers: int) -> None:  # noqa: F811
    for number in numbers:
        desk.fork.label(number, "deploy", by="ann")


def newer(desk: Desk, branch: str, files: dict[str, str], number: int) -> Sha:  # noqa: F811
    desk.fork.push(branch, desk.workshop.commit(f"{branch}, newer", dict(files), desk.head(number)), by="bob")
    return desk.head(number)


def hotfix(desk: Desk, *only: str) -> tuple[MergePlan, Run]:  # noqa: F811
    work = desk.work()
    run = work.state.new_run()
    return plan(work, run, only=pull_names(work, only)), run


def history(desk: Desk) -> History:  # noqa: F811
    return open_remote(desk.work()).history


def test_what_is_deployed_and_what_was_asked_for_and_nothing_else(desk: Desk) -> None:  # noqa: F811
    seven, eight = desk.propose("seven", {A: edit(TEN, 1, "seven")}), desk.propose("eight", {B: edit(TEN, 1, "eight")})
    admit(desk, seven, eight)
    _, first = desk.plan()
    then = desk.promote(first)
    newer(desk, "eight", {B: edit(TEN, 1, "eight, newer")}, eight)
    desk.fork.review(eight, by="ann")
    desk.fork.label(seven, "blocked", by="ann")
    nine, ten = desk.propose("nine", {C: "nine\n"}), desk.propose("ten", {C: "ten\n"})
    admit(desk, nine, ten)
    desk.skip = f"{{pr: {eight}, because: not now}}"

    made, run = hotfix(desk, str(nine))

    assert made.hotfix == Hotfix(first.id, then.commit, (f"#{nine}",))
    assert names(made.steps) == [f"#{seven}", f"#{eight}", f"#{nine}"]
    assert made.left_out == ()
    composition = merge(desk.work(), run, again=True)
    assert (composition.hotfix, composition.left_out) == (made.hotfix, ())
    store = desk.work().store()
    assert store.parents(composition.commit) == (*store.parents(then.commit), desk.head(nine))
    assert store.read_blob(f"{composition.commit}:{B}") == edit(TEN, 1, "eight").encode()
    assert run.read(MergePlan).hotfix == run.read(Composition).hotfix == made.hotfix

    desk.promote(run)
    line = history(desk).entries[0].line
    assert (line.onto, line.left_out, [name for name, _ in line.included]) == (
        first.id,
        (),
        [f"#{seven}", f"#{eight}", f"#{nine}"],
    )
    assert f"\n\nHotfix onto: {first.id}\nBase: " in format_message(line)
    # A hotfix onto the hotfix, with another repository's; the ordinary night after it takes what there is.
    desk.propose_upstream({"python/sglang/up.py": "up\n"}, 7000)
    desk.upstream.review(7000, by="ann")
    second, _ = hotfix(desk, f"{UPSTREAM.upper()}#7000")
    assert names(second.steps)[2:] == [f"#{nine}", f"{UPSTREAM}#7000"]
    assert names(desk.plan()[0].steps) == [f"#{nine}", f"#{ten}", f"{UPSTREAM}#7000"]


def test_its_fingerprint_is_its_own(desk: Desk) -> None:  # noqa: F811
    seven = desk.propose("seven", {A: edit(TEN, 1, "seven")})
    admit(desk, seven)
    first, run = desk.plan()
    then = desk.promote(run)
    nine = desk.propose("nine", {C: "nine\n"})
    admit(desk, nine)
    ordinary, _ = desk.plan()
    made, _ = hotfix(desk, f"#{nine}")
    assert len({first.fingerprint.digest, ordinary.fingerprint.digest, made.fingerprint.digest}) == 3
    only_there = set(made.fingerprint.inputs) - set(ordinary.fingerprint.inputs)
    assert only_there == {("input onto", f"{run.id} {then.commit}")}
    assert hotfix(desk, f"#{nine}")[0].fingerprint == made.fingerprint


def test_whom_nobody_admitted_is_named_with_the_way_out(desk: Desk) -> None:  # noqa: F811
    seven = desk.propose("seven", {A: edit(TEN, 1, "seven")})
    admit(desk, seven)
    desk.promote(desk.plan()[1])
    nine = desk.propose("nine", {C: "nine\n"})
    draft = desk.fork.open_pull("nine", into="base/production", author="bob", title="a draft", draft=True)
    for number, said in ((nine, "needs admission: "), (draft, "draft: mark it as ready for review when it is")):
        with pytest.raises(Incomplete) as refused:
            hotfix(desk, f"{FORK}#{number}")
        assert f"would lack what it is for: #{number}: {said}" in str(refused.value)
    newer(desk, "seven", {B: "newer\n"}, seven)  # which nobody admitted: what counts is deployed
    with pytest.raises(UsageError) as nothing:
        hotfix(desk, str(seven))
    assert str(nothing.value) == (
        f"#{seven} is deployed already at the head that was admitted (newer heads wait for an admission of their own: "
        f"#{seven}: {desk.head(seven)[:12]}): there is nothing to do; leave it out of --only"
    )
    with pytest.raises(UsageError, match=r"--only sgl-project/sglang#99: no source lists an open pull request"):
        hotfix(desk, "sgl-project/sglang#99")


def test_where_nothing_is_deployed_there_is_nothing_to_put_it_onto(desk: Desk) -> None:  # noqa: F811
    nine = desk.propose("nine", {C: "nine\n"})
    admit(desk, nine)
    with pytest.raises(UsageError) as refused:
        hotfix(desk, str(nine))
    assert str(refused.value) == (
        "--onto previous: no night was ever promoted to deploy, so there is nothing to put a hotfix onto; run "
        "`patchstack nightly`"
    )


def test_a_hotfix_that_conflicts_leaves_no_composition_that_could_be_tested(desk: Desk) -> None:  # noqa: F811
    seven = desk.propose("seven", {A: edit(TEN, 1, "seven")})
    admit(desk, seven)
    desk.promote(desk.plan()[1])
    nine = desk.propose("nine", {A: edit(TEN, 1, "nine")})
    admit(desk, nine)
    _, run = hotfix(desk, str(nine))
    for _ in range(2):
        with pytest.raises(Incomplete, match=f"what it is for: #{nine}: conflict with #{seven} in {A}"):
            composed(desk.work(), run)
        assert not run.has(Composition)


def test_it_is_promoted_onto_the_night_that_it_was_put_onto_and_no_other(desk: Desk) -> None:  # noqa: F811
    seven = desk.propose("seven", {A: edit(TEN, 1, "seven")})
    admit(desk, seven)
    desk.promote(desk.plan()[1])
    nine = desk.propose("nine", {C: "nine\n"})
    admit(desk, nine)
    made, _ = hotfix(desk, str(nine))
    require_onto_deployed(None, History(()))
    require_onto_deployed(made.hotfix, history(desk))
    ordinary = desk.plan()[1]
    desk.promote(ordinary)
    with pytest.raises(RemoteError) as refused:
        require_onto_deployed(made.hotfix, history(desk))
    assert made.hotfix is not None
    assert str(refused.value) == (
        f"this is a hotfix onto night {made.hotfix.onto}, and night {ordinary.id} is deployed by now: nothing was "
        "moved; run `patchstack nightly --only PR --onto previous` again"
    )
    with pytest.raises(RemoteError, match="and nothing is deployed by now"):
        require_onto_deployed(made.hotfix, History(()))


# --- as a night ---


def part(desk: Desk, *only: int) -> NightReport:  # noqa: F811
    return night(desk.work(), only=tuple(f"#{number}" for number in only), part=Part(Until.MERGE))


def test_as_a_night_it_says_what_it_is_and_is_never_settled(desk: Desk) -> None:  # noqa: F811
    seven = desk.propose("seven", {A: edit(TEN, 1, "seven")})
    admit(desk, seven)
    first = desk.plan()[1]
    then = desk.promote(first)
    foreign = desk.workshop.commit("by hand", {B: "by hand\n"}, history(desk).entries[0].commit)
    desk.fork.push("deploy", foreign, by="ann")
    nine = desk.propose("nine", {C: "nine\n"})
    admit(desk, nine)

    made = part(desk, nine)

    assert (made.exit_code, made.failure) == (0, "")
    assert made.hotfix == Hotfix(first.id, then.commit, (f"#{nine}",))
    assert made.notes[0] == (
        "1 commit on top of deploy came from no promotion, and the hotfix does not have what they changed"
    )
    assert [(diff.name, diff.change) for diff in made.range_diffs] == [(f"#{seven}", "unchanged"), (f"#{nine}", "new")]
    said = render_markdown(made)
    assert f"Hotfix: what is deployed, night `{first.id}`, with `#{nine}`. Nothing else was taken." in said

    run = desk.work().state.run(made.night)
    desk.promote(run)
    assert part(desk).nothing_to_do is False  # an ordinary night has other inputs


def test_a_wrong_hotfix_leaves_no_run_and_one_that_lacks_its_fix_a_report(desk: Desk) -> None:  # noqa: F811
    seven = desk.propose("seven", {A: edit(TEN, 1, "seven")})
    admit(desk, seven)
    desk.promote(desk.plan()[1])
    before = desk.work().state.all_runs()
    for number in (seven, 99):
        with pytest.raises(UsageError):
            part(desk, number)
    assert desk.work().state.all_runs() == before

    nine = desk.propose("nine", {A: edit(TEN, 1, "nine")})
    waiting = part(desk, nine)
    admit(desk, nine)
    conflict = part(desk, nine)
    for report, reason in ((waiting, "needs admission"), (conflict, f"conflict with #{seven}")):
        assert (report.exit_code, report.composition, report.promotion) == (6, None, None)
        assert f"would lack what it is for: #{nine}: {reason}" in report.failure
    assert (waiting.hotfix, conflict.hotfix and conflict.hotfix.only) == (None, (f"#{nine}",))


# --- the command line ---


NO_NAMES = (
    *("", "#7\n", "\n7", " 7", "7 ", "#", "seven", "#0", "07", "-7", "+7", "7.0", "\u0667", "#7#7", "9" * 19),
    *("a/b/c#7", "a#7", "/b#7", "a/#7", "a/b7", "a b/c#7", "a/b#7;ls", "$(ls)#7", "a\n/b#7", "\u00e4/b#7"),
)


def test_wrong_words_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "deploy.yaml").write_text(CONFIG.replace("SOURCES", OWN).replace("SKIP", ""))
    no_name = "{!r} is no pull request: write #41, 41, or owner/name#41"
    wrong: tuple[tuple[tuple[str, ...], str], ...] = (
        (("--only", "7"), "--only takes pull requests onto what is deployed: say so with --onto previous"),
        (("--onto", "previous"), "--onto previous needs the pull requests that are to go there: --only PR"),
        (
            ("--only", "7", "--onto", "previous", "--unpack", "night.tar"),
            "--only belongs to the part that plans: what --unpack holds is planned already",
        ),
        *(
            (("--only", "8", "--only", name, "--onto", "previous"), f"--only {no_name.format(name)}")
            for name in NO_NAMES
        ),
    )
    for argv, said in wrong:
        done = CliRunner().invoke(main_group, ["--config", str(tmp_path / "deploy.yaml"), "nightly", *argv])
        assert (type(done.exception), str(done.exception)) == (UsageError, said)
    assert [path.name for path in tmp_path.iterdir()] == ["deploy.yaml"]


def test_names_are_what_a_night_calls_them(desk: Desk) -> None:  # noqa: F811
    work = desk.work()
    given = ("7", "#7", "acme/sglang#7", "ACME/SGLang#8", "SGL-Project/sglang#9", "other/repo#1", "other/repo#1")
    assert pull_names(work, given) == ("#7", "#8", "sgl-project/sglang#9", "other/repo#1")
    assert pull_names(replace(work, local=True), ("sgl-project/sglang#9",)) == ("sgl-project/sglang#9",)
    desk.sources += ", {repo: SGL-project/sglang, into: [release], heads: [acme]}"  # discover names it by the first
    assert pull_names(desk.work(), ("SGL-project/sglang#9",)) == ("sgl-project/sglang#9",)


def test_a_dry_run_shows_the_plan_and_leaves_nothing(desk: Desk) -> None:  # noqa: F811
    seven = desk.propose("seven", {A: edit(TEN, 1, "seven")})
    admit(desk, seven)
    first = desk.plan()[1]
    desk.promote(first)
    desk.propose("nine", {C: "nine\n"})
    mended = newer(desk, "seven", {A: edit(TEN, 1, "seven, mended")}, seven)
    desk.fork.review(seven, by="ann")
    runs = desk.work().state.all_runs()
    place = ("--config", str(desk.folder / "deploy.yaml"))
    done = CliRunner().invoke(main_group, [*place, "nightly", "--only", str(seven), "--onto", "previous", "--dry-run"])
    assert done.exit_code == 0, done.exception
    assert f"Hotfix: what is deployed, night {first.id}, with #{seven}. Nothing else was taken." in done.output
    assert f"#{seven} was deployed at " in done.output
    assert mended[:12] in done.output
    assert desk.work().state.all_runs() == runs
