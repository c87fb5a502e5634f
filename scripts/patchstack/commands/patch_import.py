"""`patchstack patch import`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from patchstack.console import Options, emit, with_dry_run, with_json, workplace

if TYPE_CHECKING:
    from patchstack.verbs.patch_import import BranchImport


@click.command(name="import")
@click.argument("revisions", metavar="BASE..BRANCH")
@click.option("--repo", "url", metavar="URL", help="A git URL or folder that has the branch. [default: the remote]")
@with_json
@with_dry_run
@click.pass_obj
def patch_import(options: Options, revisions: str, url: str | None, as_json: bool, dry_run: bool) -> None:
    """Make a patch of each commit that BRANCH has gathered on BASE: all of them, or nothing is written."""
    from patchstack.verbs.patch_import import import_branch

    work = workplace(options)
    with work.locked():
        found = import_branch(work, revisions, url=url, dry_run=dry_run)
    emit(json.dumps({**_as_json(found), "dry_run": dry_run}, indent=2) if as_json else _told(found, dry_run))


def _as_json(found: BranchImport) -> dict[str, object]:
    from pydantic import TypeAdapter

    body: dict[str, object] = TypeAdapter(type(found)).dump_python(found, mode="json")
    return body


def _told(found: BranchImport, dry_run: bool) -> str:
    from patchstack.report.inert import visible

    turned = found.turned
    written = "would be written" if dry_run else "written"
    count = f"{len(turned.imported)} patch{'' if len(turned.imported) == 1 else 'es'}"
    lines = [f"{found.begin[:12]}..{found.tip[:12]} on {found.base}: {count} {written}"]
    for patch in turned.imported:
        requires = f", requires {', '.join(patch.requires)}" if patch.requires else ""
        left_off = f"; not carried: {', '.join(patch.left_off)}" if patch.left_off else ""
        lines.append(f"  {patch.slug}: {patch.origin[:12]} {patch.title!r}{requires}{left_off}")
    for other in turned.not_imported:
        left_off = f" ({', '.join(other.left_off)})" if other.left_off else ""
        lines.append(f"  not imported: {other.commit[:12]} {other.title!r}: {other.fate}{left_off}")
    if found.differences:
        number = f"{len(found.differences)} path{'' if len(found.differences) == 1 else 's'}"
        lines.append(f"the composed stack differs from the branch in {number} that the release carries:")
        lines += [f"  {difference.path}: {difference.why}" for difference in found.differences]
    else:
        lines.append("the composed stack has the branch's very files, as far as the release carries them")
    if turned.imported and not dry_run:
        lines.append("write what is TODO in each patch.md, and its guard; `patchstack lint` names every place")
    return "\n".join(map(visible, lines))
