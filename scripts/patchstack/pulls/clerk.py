"""Asks GitHub about the pull requests of one repository after the other, each question once a night."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from patchstack.github import GitHub, OpenPull
from patchstack.model import Asked, LeftOut, Outcome, Reason, Sha
from patchstack.pulls.admission import Admitted, Facts, NotAdmitted, approval_of_head, approvals, decide
from patchstack.pulls.gone import find_gone, unlisted
from patchstack.pulls.memo import Memory
from patchstack.pulls.targets import Chosen, Fate, Rules, choose, has_label, leave_out


@dataclass(frozen=True)
class Taken:
    """A pull request whose commits are to be read, at the one commit that is meant."""

    rules: Rules
    chosen: Chosen
    head: Sha
    """What was admitted; of one that is no candidate, where it is now."""
    admitted_by: str = ""

    @property
    def newer_head(self) -> Sha | None:
        return None if self.head == self.chosen.pull.head else self.chosen.pull.head


@dataclass(frozen=True)
class Answers:
    """What GitHub said of one repository."""

    rules: Rules
    open_pulls: tuple[OpenPull, ...]
    taken: tuple[Taken, ...]
    left_out: tuple[LeftOut, ...]
    asked: Asked


@dataclass(frozen=True)
class Clerk:
    github: GitHub
    fork: str
    admit_label: str
    memory: Memory
    previous: Mapping[str, Sha]
    """The pull requests of the last promoted night, by name."""
    writers: dict[str, bool]
    """Whether an account may push to the fork, as far as that was asked."""

    def read(self, rules: Rules) -> Answers:
        before = self.github.calls
        listed = self.github.open_pulls(rules.repo)
        slipped, gone = find_gone(self.github, rules, listed, self.previous)
        pulls = (*listed, *slipped)
        judged, others = choose(pulls, rules)
        answers = [self._take(rules, one) if isinstance(one, Chosen) else one for one in judged]
        named = {one.name for one in judged}
        dropped = (
            unlisted(pull, name, self.previous[name])
            for pull in pulls
            if (name := rules.name(pull.number)) in self.previous and name not in named
        )
        return Answers(
            rules,
            pulls,
            tuple(one for one in answers if isinstance(one, Taken)),
            (*(one for one in answers if isinstance(one, LeftOut)), *gone, *dropped),
            Asked(rules.repo, len(pulls), others, self.github.calls - before),
        )

    def _take(self, rules: Rules, chosen: Chosen) -> Taken | LeftOut:
        if chosen.fate is not Fate.CANDIDATE:
            return Taken(rules, chosen, chosen.pull.head)
        decided = self._admission(rules.repo, chosen.pull)
        if isinstance(decided, NotAdmitted):
            return leave_out(chosen.pull, chosen.name, Outcome.WAITING, Reason.NEEDS_ADMISSION, decided.why)
        return Taken(rules, chosen, decided.head, decided.by)

    def _admission(self, repo: str, pull: OpenPull) -> Admitted | NotAdmitted:
        """One request for its reviews, one for its events where somebody may have admitted it, and one for the
        pushes where only its label can have done so; none if it is remembered.
        """
        facts = self.memory.recall(repo, pull) or Facts(self.github.reviews(repo, pull.number))
        labelled = has_label(pull, self.admit_label)
        if facts.events is None and (labelled or approvals(facts.reviews)):
            facts = replace(facts, events=self.github.events(repo, pull.number))
        approved = approval_of_head(pull, facts, self._can_write)
        if approved is None and labelled and facts.pushes is None:
            facts = replace(facts, pushes=self.github.pushes(pull.head_repo, pull.head_ref))
        self.memory.learn(repo, pull, facts)
        return approved or decide(pull, facts, label=self.admit_label, fork=self.fork, can_write=self._can_write)

    def _can_write(self, login: str) -> bool:
        # Asked each night anew: it is no matter of the pull request, and can be taken away at any time.
        if login not in self.writers:
            self.writers[login] = bool(login) and self.github.can_write(self.fork, login)
        return self.writers[login]
