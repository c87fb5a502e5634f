"""Pull requests as topics: merged by their head, or their own diff replayed onto the base.

A head is merged as it is when every commit that it adds to the base is its own, none of them has what no pull
request may bring in, and all that it changes has a place on the base. Otherwise its own diff, as far as the base
carries it, becomes one commit on the base plus the patches that the head contains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from patchstack.compose import lookup
from patchstack.compose.carried import Carried, roots, sort_out
from patchstack.compose.conflict import plain_paths, touches
from patchstack.compose.left_out import leave_out, listed
from patchstack.compose.limits import too_large
from patchstack.compose.lookup import Pair, Walk
from patchstack.compose.memo import Memo
from patchstack.compose.octopus import write_stack
from patchstack.compose.protected import PROTECTED, Refusal, refusal
from patchstack.compose.replay import replay
from patchstack.git import Change, Repository, readable
from patchstack.model import Base, Kind, LeftOut, Outcome, Pull, Reason, Sha, Topic

_FEW = 10
"""Commits: what more of them change is not held in memory for all pull requests at once."""


def pull_topics(
    store: Repository,
    base: Base,
    patch_topics: Sequence[Topic],
    pulls: Sequence[Pull],
    *,
    lane: str,
    protected: Sequence[str] = PROTECTED,
    memo: Memo | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[tuple[Topic, ...], tuple[LeftOut, ...]]:
    """Every pull request that can be merged as a topic, and every other one with the reason, in the order given."""
    large = too_large(store, pulls)
    facts = _Facts.read(store, base, patch_topics, [pull for pull in pulls if pull.name not in large])
    ground = _Ground(store, base, lane, tuple(patch_topics), tuple(protected), roots(store, base.tree), facts)
    topics: list[Topic] = []
    left_out: list[LeftOut] = []
    for pull in pulls:
        progress(f"pull request {pull.name}")
        made = _refused(pull, large[pull.name]) if pull.name in large else ground.take(pull)
        if isinstance(made, Topic):
            topics.append(made)
        else:
            left_out.append(made)
    return _with_patch_ids(store, topics, memo or Memo()), tuple(left_out)


def _with_patch_ids(store: Repository, topics: Sequence[Topic], memo: Memo) -> tuple[Topic, ...]:
    """``topics`` with the ids of their own diffs: the diffs are written for all at once, and read by nobody else."""
    keys = {(topic.own_from, topic.own_to): f"{topic.own_from} {topic.own_to}" for topic in topics}
    known = {pair: memo.patch_id(key) for pair, key in keys.items()}
    fresh = lookup.patch_ids(store, (pair for pair, patch_id in known.items() if patch_id is None))
    for pair, patch_id in fresh.items():
        memo.keep_patch_id(keys[pair], patch_id)
    ids = known | fresh
    return tuple(replace(topic, patch_id=ids[topic.own_from, topic.own_to] or "") for topic in topics)


def _refused(pull: Pull, refused: Refusal) -> LeftOut:
    return leave_out(pull, Outcome.EXCLUDED, refused.reason, refused.detail, files=refused.files)


@dataclass(frozen=True)
class _Facts:
    """What git says of pull requests, read for all of them at once."""

    changes: Mapping[Pair, tuple[Change, ...]]
    """From where each was cut to its head."""
    ways: Mapping[Pair, Walk]
    """Its own commits."""
    patches: Mapping[Sha, frozenset[Sha]]
    """By head: the commits of patches that it contains."""
    on_the_way: Mapping[Pair, tuple[Change, ...]]
    """What its own commits change one by one, where they are few; nothing where one changes what the whole does."""

    @classmethod
    def read(cls, store: Repository, base: Base, patches: Sequence[Topic], pulls: Sequence[Pull]) -> _Facts:
        own = [(pull.merge_base, pull.head) for pull in pulls]
        ways = lookup.walks(store, own)
        heads = (pull.head for pull in pulls)
        contained = lookup.reached(store, base.commit, heads, (patch.commit for patch in patches))
        few = {pair: ways[pair] for pair in own if len(ways[pair].parents) <= _FEW and not _is_one_step(pair, ways)}
        one: dict[Pair, tuple[Change, ...]] = {pair: () for pair in own if _is_one_step(pair, ways)}
        return cls(lookup.changes(store, own), ways, contained, one | lookup.changes_on_the_way(store, few))


def _is_one_step(pair: Pair, ways: Mapping[Pair, Walk]) -> bool:
    begin, end = pair
    parents = ways[pair].parents
    return len(parents) == 1 and parents[end][:1] == (begin,)


@dataclass
class _Ground:
    """What pull requests are put on, and the stacks that were made of it so far."""

    store: Repository
    base: Base
    lane: str
    patches: tuple[Topic, ...]
    protected: tuple[str, ...]
    carried_below: tuple[str, ...]
    facts: _Facts
    stacks: dict[tuple[str, ...], tuple[Sha, tuple[str, ...]]] = field(default_factory=dict)

    def take(self, pull: Pull) -> Topic | LeftOut:
        changes = self.facts.changes[pull.merge_base, pull.head]
        if not changes:
            detail = f"its head has the files of {pull.merge_base[:12]} in {pull.target}, from which it was cut"
            return leave_out(pull, Outcome.EXCLUDED, Reason.EMPTY, detail)
        refused = refusal(self.store, changes, self.protected)
        if refused:
            return _refused(pull, refused)
        carried = sort_out(changes, self.carried_below)
        if carried.build_files:
            detail = f"{self.base.name} is installed as it was built; use a lane whose upstream is `git:`"
            files = tuple(map(readable, carried.build_files))
            return leave_out(pull, Outcome.EXCLUDED, Reason.BUILD_FILES, detail, files=files)
        if not carried.on_base:
            detail = f"{self.base.name} holds only {listed(self.carried_below)}; use a lane whose upstream is `git:`"
            files = tuple(map(readable, carried.left_off))
            return leave_out(pull, Outcome.EXCLUDED, Reason.NOT_CARRIED, detail, files=files)
        if pull.shared or carried.left_off or self._had_what_is_refused(pull):
            return self._replayed(pull, carried)
        return self._by_head(pull, changes)

    def _had_what_is_refused(self, pull: Pull) -> bool:
        """Whether a commit on the way to the head has what the head may not have, and has not.

        Merged by its head, it would be in the history of `deploy` all the same, where nobody who looks at the
        diff sees it, and GitHub takes no workflow from a workflow's token.
        """
        on_the_way = self.facts.on_the_way.get((pull.merge_base, pull.head))
        if on_the_way is None:
            on_the_way = self.store.changes_on_the_way(pull.merge_base, pull.head)
        return refusal(self.store, on_the_way, self.protected) is not None

    def _by_head(self, pull: Pull, changes: Sequence[Change]) -> Topic:
        contained = self.facts.patches[pull.head]
        requires = tuple(patch.name for patch in self.patches if patch.commit in contained)
        return self._topic(pull, pull.head, tuple(change.path for change in changes), requires, ())

    def _replayed(self, pull: Pull, carried: Carried) -> Topic | LeftOut:
        onto, requires = self._stack(self._contained(pull))
        done = replay(self.store, pull, onto, self.carried_below)
        if done.commit is None:
            files = plain_paths(done.conflicts)
            under = f"{self.base.name} with {listed(requires)}" if requires else self.base.name
            branch = f"stack/{self.lane}" if requires else f"base/{self.lane}"
            detail = (
                f"its own diff, {pull.merge_base[:12]}..{pull.head[:12]} (it was cut from {pull.target}), does not "
                f"merge on {under}: rebase it onto {branch}"
            )
            twins = tuple(patch.name for patch in self.patches if patch.name in requires and touches(patch, files))
            return leave_out(pull, Outcome.EXCLUDED, Reason.CONFLICT, detail, twins=twins, files=files)
        paths = tuple(change.path for change in self.store.changes(onto, done.commit))
        return self._topic(pull, done.commit, paths, requires, carried.left_off)

    def _topic(
        self, pull: Pull, commit: Sha, paths: Sequence[str], requires: tuple[str, ...], left_off: Sequence[str]
    ) -> Topic:
        return Topic(
            name=pull.name,
            kind=Kind.PULL,
            title=pull.title,
            author=pull.author,
            head=pull.head,
            commit=commit,
            own_from=pull.merge_base,
            own_to=pull.head,
            patch_id="",
            paths=tuple(map(readable, paths)),
            requires=requires,
            target=pull.target,
            replayed=commit != pull.head,
            not_carried=tuple(map(readable, left_off)),
            url=pull.url,
            newer_head=pull.newer_head,
        )

    def _contained(self, pull: Pull) -> tuple[Topic, ...]:
        """The patches that the head contains: the topic's very commit, or a form that it had in an older stack.

        The commits of an older stack are known by their subject, which is the patch's title.
        """
        commits = self.facts.patches[pull.head]
        titles: set[str] = set()
        if pull.target == f"stack/{self.lane}":
            walk = ("--no-show-signature", "--format=%H%x00%s", pull.head, f"^{self.base.commit}", "--")
            # Not splitlines(): a subject may hold what Python takes for the end of a line.
            rows = [line.split("\0") for line in self.store.run("log", *walk).split("\n") if line]
            own = self.facts.ways[pull.merge_base, pull.head].parents
            titles = {row[1] for row in rows if row[0] not in own}
        return tuple(patch for patch in self.patches if patch.commit in commits or patch.title in titles)

    def _stack(self, patches: tuple[Topic, ...]) -> tuple[Sha, tuple[str, ...]]:
        """The base with ``patches`` as one commit, and the names of those that are in it."""
        if not patches:
            return self.base.commit, ()
        names = tuple(patch.name for patch in patches)
        if names not in self.stacks:
            commit, joined = write_stack(self.store, self.base, patches)
            self.stacks[names] = commit, tuple(patch.name for patch in joined)
        return self.stacks[names]
