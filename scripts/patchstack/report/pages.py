"""A whole night, and what each verb shows, as pages."""

from __future__ import annotations

from patchstack.model import (
    Composition,
    GuardReport,
    MergePlan,
    NightReport,
    Promotion,
    Verdicts,
)
from patchstack.report import (
    blame_words,
    hotfix,
    image_words,
    lane_words,
    loss_words,
    measure_words,
    operator,
    sections,
    words,
)
from patchstack.report.page import Line, Page, Prose, Quoted, Section, Table


def night_page(report: NightReport) -> Page:
    composition = report.composition
    left_out = composition.left_out if composition else report.left_out
    parts: list[Section] = [*blame_words.sections(report)]
    if composition:
        parts.append(sections.included(composition.included))
    parts += sections.left_out(left_out)
    parts += loss_words.section(report.losses)
    parts += image_words.section(report.image, report.image_tests)
    if composition and not report.nothing_to_do:
        parts += sections.tests(report.tests, report.quarantined_green, report.lanes)
        parts += measure_words.section(report.measures)
        parts += lane_words.section(report.lanes)
    parts += sections.verdicts(report.verdicts, report.promotion.line.channels if report.promotion else ())
    parts += operator.bars_section(report.bars)
    parts += sections.range_diffs(report.previous, report.range_diffs)
    parts += sections.asked(report.asked)
    parts += sections.timings(report.timings)
    parts += sections.notes(report.notes)
    but = blame_words.without_the_guilty(report)
    title = words.night_title(report.night, report.lane, report.headline, exclusions=but)
    return Page(title, _night_lead(report), tuple(parts))


def _night_lead(report: NightReport) -> tuple[Line, ...]:
    lines: list[Line] = []
    if report.nothing_to_do:
        lines.append(words.nothing_to_do(report.previous))
        if report.previous:
            lines += [words.ledger_tree(report.previous), words.ledger_included(report.previous)]
    if report.failure:
        lines.append(words.failed(report.exit_code))
        lines += [(Prose(problem),) for problem in report.failure.splitlines()]
    lines += blame_words.lead(report)
    if report.promotion:
        lines += [words.moved(report.promotion), words.tagged(report.promotion.line.tag)]
    elif not report.nothing_to_do:
        lines.append(words.NOTHING_MOVED)
    lines += [operator.held(report.held)] if report.held else []
    if report.image and report.image.image:
        lines.append(image_words.pulled(report.image.image))
    lines += hotfix.lead(report.hotfix)
    if report.composition:
        lines += [words.on_base(report.composition.base), words.composed(report.composition)]
    return (*lines, words.published_on(report.remote))


def plan_page(plan: MergePlan, run: str) -> Page:
    lead = (*hotfix.lead(plan.hotfix), words.on_base(plan.base), words.to_merge(plan.steps, plan.fingerprint.digest))
    parts = (sections.included(plan.steps), *sections.left_out(plan.left_out))
    return Page(words.plan_title(run, plan.lane), lead, parts)


def composition_page(composition: Composition, run: str) -> Page:
    lead = (*hotfix.lead(composition.hotfix), words.on_base(composition.base), words.composed(composition))
    parts = (sections.included(composition.included), *sections.left_out(composition.left_out))
    return Page(words.composition_title(run, composition.lane), lead, parts)


def guards_page(report: GuardReport, verdicts: Verdicts) -> Page:
    parts = (*sections.tests(report, (), None), *sections.verdicts(verdicts.verdicts, None))
    return Page(words.guards_title(report.lane), (), parts)


def proof_page(report: GuardReport) -> Page:
    (proof,) = report.proofs
    return Page(words.proof_title(proof), (words.why(proof),), sections.trials(report))


def promotion_page(promotion: Promotion, dry_run: bool) -> Page:
    move = words.would_move(promotion) if dry_run else words.moved(promotion)
    rows = tuple(((Quoted(ref),), (words.short(sha),)) for ref, sha in promotion.pushed)
    refs = Section(words.MOVES, table=Table(words.MOVE_COLUMNS, rows))
    return Page(words.promotion_title(promotion.lane), (move, words.tagged(promotion.line.tag)), (refs,))
