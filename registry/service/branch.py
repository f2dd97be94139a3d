"""The followed branch in the service's own clone: fetched, judged, and only then checked out.

Knows what makes a commit one to follow, not what is built of it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from registry import git, lock, observation
from registry.errors import RegistryError
from registry.service import reading
from registry.service.place import Place

_NAME, _EMAIL = "merge-registry", "merge-registry@localhost"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a commit is not followed."""

    reason: str
    message: str


def fetch(place: Place) -> str:
    """Return the branch's commit as its repository has it now; makes the clone at the first time.

    Raises RegistryError where the repository is not reached.
    """
    if place.clone.exists():
        return git.fetch_branch(place.clone, place.branch)
    # Under another name until it is whole.
    half = place.folder / "clone.new"
    shutil.rmtree(half, ignore_errors=True)
    git.clone(place.repository, half, place.branch)
    if not git.setting(half, "user.email"):
        git.set_setting(half, "user.name", _NAME)
        git.set_setting(half, "user.email", _EMAIL)
    half.rename(place.clone)
    return git.remote_head(place.clone, place.branch)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a commit must be to be followed.

    It descends from `accepted`, the last that was followed, or from `forgiven`.
    """

    accepted: str | None
    forgiven: str | None = None
    require_signed: bool = False


def refusal(place: Place, commit: str, rules: Rules) -> Refusal | None:
    """Return why a fetched commit must not be followed.

    What we follow already is not judged again: it may be a commit of our own, signed by nobody.
    """
    root, accepted = place.clone, rules.accepted
    if accepted and commit in (accepted, git.head(root)):
        return None
    roots = [one for one in (accepted, rules.forgiven) if one]
    if accepted and not any(git.is_ancestor(root, one, commit) for one in roots):
        message = (
            f"branch {place.branch} was rewritten: {commit[:12]} does not descend from "
            f"{accepted[:12]}, which was followed last"
        )
        return Refusal("BranchRewritten", message)
    if rules.require_signed and (problem := git.signature_problem(root, commit)):
        return Refusal("Unsigned", f"commit {commit[:12]} has no good signature: {problem}")
    return _invalid(place, commit)


def _invalid(place: Place, commit: str) -> Refusal | None:
    """Return what is wrong with the catalog at a commit that is not checked out."""
    try:
        reading.ask("judge", place.clone, commit)
    except reading.Invalid as error:
        return Refusal("InvalidCatalog", error.message)
    return None


def check_out(place: Place, commit: str, *, is_first: bool) -> None:
    """Make the clone's files those of a commit, unless they are already and more was added to them.

    At first nothing is there: a clone has no files until its commit was judged.

    Records that were committed here but not pushed go with a commit that is no ancestor of them:
    their bytes stay in the store, from which the next sync restores. Raises NotNow while a sync of
    an earlier instance still runs.
    """
    root = place.clone
    head = git.head(root)
    if not is_first and head and git.is_ancestor(root, commit, head):
        return
    with lock.held(observation.state_folder(root) / "lock", 0):
        git.reset(root, commit)


def brings_inputs(place: Place, older: str, newer: str) -> bool:
    """Return whether a commit brings other bytes to build from or to measure with than another.

    A build whose weights were altered has the same key when they are restored.
    """
    return git.differs(place.clone, older, newer, _INPUTS)


_INPUTS = tuple(f"catalog/{kind}" for kind in ("bases", "adapters", "checkpoints", "suites"))


def accepted(place: Place) -> str | None:
    """Return the commit of the branch if ours is the same: what was just pushed, or followed."""
    try:
        remote = git.remote_head(place.clone, place.branch)
    except RegistryError:
        return None
    return remote if remote == git.head(place.clone) else None
