"""The `git` command, one function per question. Knows paths and object ids, not what they hold.

Paths go in and come out relative to the repository's root, with `/`. Git is asked with `-z` and in
an environment of our own: a hook or another tool that started us may have pointed GIT_DIR or
GIT_INDEX_FILE elsewhere, and a path with a `*` in it is a path, not a pattern.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import NotNow, RegistryError, UsageError, did_you_mean

if TYPE_CHECKING:
    from subprocess import CompletedProcess

SYMLINK = "120000"
SUBMODULE = "160000"

# Who commits and how the network is reached stay the user's choice; all else would redirect git.
_KEPT = (
    "GIT_AUTHOR_",
    "GIT_COMMITTER_",
    "GIT_SSH",
    "GIT_ASKPASS",
    "GIT_SSL_",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_COUNT",  # this one and the next two are how CI systems give credentials
    "GIT_CONFIG_KEY_",
    "GIT_CONFIG_VALUE_",
)
_FIXED = {
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",  # asking must not make a user's `git commit` fail
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
}
_CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")
_NETWORK_SECONDS = 120
# Parts of git's messages after which the same command may work later.
_PASSING = (
    "index.lock",
    "cannot lock ref",
    "could not resolve host",
    "unable to access",
    "could not read from remote",
    "connection",
    "timed out",
    "early eof",
    "no space left",
)


def root(start: Path) -> Path:
    """Return the root of the repository that `start` lies in, found upwards as git does.

    Raises UsageError outside a repository.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / ".git").exists():  # a file in linked work trees and submodules
            return folder
    msg = f"expected a folder inside a Git repository, found {start}"
    raise UsageError(msg, "run the command in a catalog, or make one with: registry init DIR")


def init(folder: Path, branch: str = "main") -> None:
    """Make `folder` a Git repository whose first branch is `branch`; an existing one stays."""
    folder.mkdir(parents=True, exist_ok=True)
    _ask(folder, "init", "--quiet", f"--initial-branch={branch}")


def head(root: Path) -> str | None:
    """Return the commit that is checked out, None before the first one."""
    done = _run(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    return done.stdout.decode().strip() or None


def identity(root: Path) -> str | None:
    """Return `Name <address>` as Git would enter it as author, None if it knows none."""
    done = _run(root, "var", "GIT_AUTHOR_IDENT")
    told = done.stdout.decode("utf-8", "replace").strip()
    return told.rpartition(" ")[0].rpartition(" ")[0] or None if done.returncode == 0 else None


def address(root: Path) -> str | None:
    """Return where this repository is fetched from, without credentials; None if from nowhere."""
    done = _run(root, "config", "--get", "remote.origin.url")
    return _CREDENTIALS.sub("", done.stdout.decode("utf-8", "replace").strip()) or None


def with_upstream(root: Path, revision: str) -> list[str]:
    """Return a revision, and the branch that the current one follows, as last fetched, if any."""
    done = _run(root, "rev-parse", "--verify", "--quiet", "@{upstream}^{commit}")
    return [revision, done.stdout.decode().strip()] if done.returncode == 0 else [revision]


def versions(root: Path, revs: Iterable[str] | None, prefix: str) -> dict[str, set[str]]:
    """Return every file that a commit behind these revisions added or changed under `prefix`.

    With the object ids of all its versions; None stands for all branches, tags and other refs.
    """
    form = ("--full-history", "--no-renames", "--raw", "--no-abbrev", "-z", "--format=")
    # Whatever a user prefers:
    plain = ("--no-color", "--no-show-signature", "--no-diff-merges")
    behind = ("--all",) if revs is None else ("--end-of-options", *revs)
    told = _ask(root, "log", *form, *plain, *behind, "--", prefix)
    found: dict[str, set[str]] = {}
    parts = iter(told.split(b"\0"))
    for facts in parts:
        # `:100644 100644 <old> <new> M`, then the path as a part of its own
        if facts.lstrip(b"\n").startswith(b":"):
            _, _, _, new, kind = facts.decode("ascii").split()
            path = os.fsdecode(next(parts))
            if kind != "D":
                found.setdefault(path, set()).add(new)
    return found


def resolve(root: Path, rev: str) -> str:
    """Return the commit id of a revision: a branch, a tag, an id, `HEAD~1`.

    Raises UsageError for an unknown one.
    """
    question = ("--verify", "--quiet", "--end-of-options", f"{rev}^{{commit}}")
    done = _run(root, "rev-parse", *question) if rev and "\0" not in rev else None
    if done is not None and done.returncode == 0:
        return done.stdout.decode().strip()
    msg = f"expected a revision of {root.name}, found {rev!a}"
    raise UsageError(msg, did_you_mean(rev, ref_names(root)))


def ref_names(root: Path) -> list[str]:
    """Return the short names of all branches and tags."""
    told = _ask(root, "for-each-ref", "--format=%(refname:short)")
    return told.decode(errors="replace").split()


def tree_files(root: Path, rev: str, prefix: str = "") -> dict[str, tuple[str, str]]:
    """Return the files under `prefix` at a commit: path to (mode, object id), sorted by path."""
    arguments = ("-r", "-z", "--full-tree", "--end-of-options", rev)
    listing = _ask(root, "ls-tree", *arguments, *(("--", prefix) if prefix else ()))
    found: dict[str, tuple[str, str]] = {}
    for facts, path in _entries(listing):
        mode, _, object_id = facts.split()
        found[path] = (mode, object_id)
    return found


def differing(root: Path, rev: str, prefixes: Iterable[str]) -> set[str]:
    """Return the tracked files below `prefixes` that are not as at a commit in the working tree."""
    below = list(prefixes)
    if not below:
        return set()
    arguments = ("--name-only", "-z", "--no-renames", "--no-ext-diff", "--no-textconv")
    told = _ask(root, "diff", *arguments, "--end-of-options", rev, "--", *below)
    return {os.fsdecode(path) for path in told.split(b"\0") if path}


def tracked_links(root: Path, prefix: str = "") -> list[str]:
    """Return the tracked symlinks and submodules under `prefix`."""
    listing = _ask(root, "ls-files", "--stage", "-z", *(("--", prefix) if prefix else ()))
    modes = tuple(f"{mode} ".encode() for mode in (SYMLINK, SUBMODULE))
    links = [one for one in listing.split(b"\0") if one.startswith(modes)]
    return [path for _, path in _entries(b"\0".join(links))]


def _entries(listing: bytes) -> Iterable[tuple[str, str]]:
    for entry in listing.split(b"\0"):
        if entry:
            facts, _, path = entry.partition(b"\t")
            yield facts.decode("ascii"), os.fsdecode(path)


def blob_sizes(root: Path, object_ids: Iterable[str]) -> dict[str, int]:
    """Return the size of every object in bytes, without reading it."""
    wanted = list(dict.fromkeys(object_ids))
    told = _ask(root, "cat-file", "--batch-check", stdin="".join(f"{i}\n" for i in wanted).encode())
    sizes: dict[str, int] = {}
    for line in told.decode("ascii").splitlines():
        sizes |= dict([_size(line)])
    return sizes


def read_blobs(root: Path, object_ids: Iterable[str]) -> dict[str, bytes]:
    """Return the content of every object by id, from one call of git, all in memory at once."""
    wanted = list(dict.fromkeys(object_ids))
    if not wanted:
        return {}
    stdin = "".join(f"{object_id}\n" for object_id in wanted).encode()
    told = _ask(root, "cat-file", "--batch", "--buffer", stdin=stdin)
    blobs: dict[str, bytes] = {}
    start = 0
    while start < len(told):
        end = told.index(b"\n", start)
        object_id, size = _size(told[start:end].decode("ascii"))
        blobs[object_id] = told[end + 1 : end + 1 + size]
        start = end + 1 + size + 1
    return blobs


def _size(line: str) -> tuple[str, int]:
    object_id, *facts = line.split()
    if len(facts) != 2:  # `<id> missing`, in a shallow or partial clone
        msg = f"expected the Git object {object_id}, found none"
        raise RegistryError(msg, "fetch the whole history: git fetch --unshallow")
    return object_id, int(facts[1])


def status(root: Path, prefix: str = "") -> dict[str, str]:
    """Return what differs from HEAD under `prefix`: path to git's two letters (`??`: untracked)."""
    arguments = ("--porcelain", "-z", "--untracked-files=all", "--no-renames")
    told = _ask(root, "status", *arguments, *(("--", prefix) if prefix else ()))
    lines = [os.fsdecode(entry) for entry in told.split(b"\0") if entry]
    return {line[3:]: line[:2] for line in lines}


def is_dirty(root: Path, paths: Iterable[str]) -> bool:
    """Return whether any of these files, or anything below these folders, differs from HEAD."""
    asked = {path.rstrip("/") for path in paths}
    return any(not asked.isdisjoint(_with_parents(path)) for path in status(root))


def _with_parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]


def ignored(root: Path, paths: Iterable[str]) -> set[str]:
    """Return those of the paths that .gitignore files leave out; a tracked one is not ignored."""
    # This verb refuses GIT_LITERAL_PATHSPECS; a path that starts with ./ has no magic either.
    stdin = b"".join(b"./" + os.fsencode(path) + b"\0" for path in paths)
    if not stdin:
        return set()
    done = _run(root, "check-ignore", "-z", "--stdin", stdin=stdin)
    if done.returncode not in (0, 1):  # 1: none of them
        raise _failure("check-ignore", done)
    return {os.fsdecode(path).removeprefix("./") for path in done.stdout.split(b"\0") if path}


def commit(root: Path, paths: Iterable[str], message: str) -> str:
    """Commit these paths and nothing else, and return the commit; what else is staged stays so.

    A path that vanished is committed as removed. Without any change HEAD is returned as it is.
    """
    asked = set(paths)
    changed = sorted(path for path in status(root) if path in asked)
    if not changed:
        return resolve(root, "HEAD")
    stdin = b"".join(os.fsencode(path) + b"\0" for path in changed)
    listed = ("--pathspec-from-file=-", "--pathspec-file-nul")
    _ask(root, "add", "--all", *listed, stdin=stdin)
    _ask(root, "commit", "--quiet", "--only", f"--message={message}", *listed, stdin=stdin)
    return resolve(root, "HEAD")


# Settings of a clone that a program follows a branch with: nothing but git itself runs in it.
_QUIET_CLONE = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "gc.autoDetach": "false",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
}
_CLONE_SECONDS = 3600


def clone(url: str, folder: Path, branch: str) -> None:
    """Clone one branch, with its whole history, into an absent folder; no hooks, no submodules.

    No file is checked out: see `reset`.
    Raises NotNow without network, RegistryError where there is no such repository or branch.
    """
    quiet = [part for key, value in _QUIET_CLONE.items() for part in ("-c", f"{key}={value}")]
    one = ("--quiet", "--origin=origin", "--single-branch", "--no-tags", "--no-checkout")
    what = ("--template=", *quiet, f"--branch={branch}", "--end-of-options", url, str(folder))
    _ask(folder.parent, "clone", *one, *what, seconds=_CLONE_SECONDS)


def fetch_branch(root: Path, branch: str) -> str:
    """Fetch one branch of `origin`, forced pushes too, and return its commit.

    Raises NotNow without network, RegistryError where there is no such repository or branch.
    """
    ref = f"+refs/heads/{branch}:{_remote_ref(branch)}"
    arguments = ("--quiet", "--no-tags", "--end-of-options", "origin", ref)
    _ask(root, "fetch", *arguments, seconds=_NETWORK_SECONDS)
    return remote_head(root, branch)


def remote_head(root: Path, branch: str) -> str:
    """Return the commit that a branch of `origin` had when it was last fetched or pushed."""
    return resolve(root, _remote_ref(branch))


def _remote_ref(branch: str) -> str:
    return f"refs/remotes/origin/{branch}"


def is_ancestor(root: Path, older: str, newer: str) -> bool:
    """Return whether a commit is `newer` or lies in its history; False if it is not known."""
    return _run(root, "merge-base", "--is-ancestor", older, newer).returncode == 0


def differs(root: Path, older: str, newer: str, paths: Iterable[str]) -> bool:
    """Return whether anything below these paths is not the same at two commits."""
    done = _run(root, "diff-tree", "--quiet", "-r", older, newer, "--", *paths)
    if done.returncode not in (0, 1):
        raise _failure("diff-tree", done)
    return done.returncode == 1


def signature_problem(root: Path, commit: str) -> str | None:
    """Return what is wrong with the signature of a commit; None if git holds it for good.

    Which keys are good is the configuration of who runs this: GnuPG's keyring, or
    `gpg.ssh.allowedSignersFile`.
    """
    done = _run(root, "verify-commit", commit)
    if done.returncode == 0:
        return None
    told = done.stderr.decode(errors="replace").strip().splitlines()
    return told[-1] if told else "it has no signature"


def reset(root: Path, commit: str) -> None:
    """Make branch, index and tracked files what a commit has; only for who is alone at work there.

    What another git that was killed left of its lock is removed.
    """
    (root / ".git/index.lock").unlink(missing_ok=True)
    _ask(root, "reset", "--quiet", "--hard", commit)


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit that changed a file: when it was made in seconds since 1970, by whom, what it says.

    `blob` is the object id of the file then, None where it was removed.
    """

    id: str
    at: int
    author: str
    subject: str
    blob: str | None


# A branch is told by the commits on it: of what was merged into it, that it was.
_ON_BRANCH = (
    *("-m", "--first-parent", "--no-renames", "--no-ext-diff", "--no-textconv"),
    *("--no-color", "--no-show-signature"),  # which a user's own settings may ask for
)


def history(root: Path, path: str, most: int) -> list[Commit]:
    """Return the commits that changed a file, the newest first, at most so many."""
    form = "--format=%x00%H%x00%ct%x00%an%x00%s%x00"
    arguments = ("--raw", "--no-abbrev", form, f"--max-count={most}")
    told = _ask(root, "log", *_ON_BRANCH, *arguments, "HEAD", "--", path)
    parts = told.decode(errors="replace").split("\0")[1:]
    found = []
    for commit, at, author, subject, raw in zip(*[iter(parts)] * 5, strict=False):
        blob = raw.split()[3] if raw.strip() else ""
        is_there = bool(blob.strip("0"))
        found.append(Commit(commit, int(at), author, subject, blob if is_there else None))
    return found


def last_changes(root: Path, prefix: str) -> dict[str, tuple[str, int]]:
    """Return the commit that changed each file under `prefix` last, and when that was made.

    For plain names: others come as git quotes them.
    """
    arguments = ("--name-only", "--format=%x00%H%x00%ct%x00")
    told = _ask(root, "log", *_ON_BRANCH, *arguments, "HEAD", "--", prefix)
    parts = told.decode(errors="replace").split("\0")[1:]
    found: dict[str, tuple[str, int]] = {}
    for commit, at, paths in zip(*[iter(parts)] * 3, strict=False):
        for path in paths.strip("\n").splitlines():
            found.setdefault(path, (commit, int(at)))
    return found


def setting(root: Path, key: str) -> str | None:
    """Return what git's configuration says of a key, None if nothing."""
    done = _run(root, "config", "--get", key)
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None


def set_setting(root: Path, key: str, value: str) -> None:
    """Set a key of the repository's own configuration."""
    _ask(root, "config", "--local", key, value)


def fetch(root: Path) -> None:
    """Fetch from the remote of the current branch, or `origin`. Raises NotNow without network."""
    remote, _ = _upstream(root)
    _ask(root, "fetch", "--quiet", "--end-of-options", remote, seconds=_NETWORK_SECONDS)


def push(root: Path) -> bool:
    """Push the current branch if its remote has not moved meanwhile; False if it has.

    Never forced: the remote takes the new commit only on top of what it has at that moment.
    Raises NotNow without network, RegistryError when the remote refuses for another reason.
    """
    remote, ref = _upstream(root)
    arguments = ("--porcelain", "--end-of-options", remote, f"HEAD:{ref}")
    done = _run(root, "push", *arguments, seconds=_NETWORK_SECONDS)
    told = done.stdout.decode(errors="replace")
    refusals = [line.split("\t")[-1] for line in told.splitlines() if line.startswith("!")]
    if done.returncode == 0:
        return True
    if any(part in line for line in refusals for part in ("[rejected]", "cannot lock ref")):
        return False
    if refusals:
        msg = f"git push: {refusals[0]}"
        raise RegistryError(msg, "the remote refuses this branch; see its rules or hooks")
    raise _failure("push", done)


def has_upstream(root: Path) -> bool:
    """Return whether the current branch, or the repository as `origin`, has a place to push to."""
    remote, _ = _upstream(root)
    return remote in _ask(root, "remote").decode(errors="replace").split()


def _upstream(root: Path) -> tuple[str, str]:
    """Return remote and ref of the current branch; `origin` and the same name if none is set."""
    branch = _run(root, "symbolic-ref", "--quiet", "--short", "HEAD").stdout.decode().strip()
    if not branch:
        msg = "expected a branch, found a detached HEAD"
        raise RegistryError(msg, "check out a branch: git switch BRANCH")
    keys = (f"branch.{branch}.remote", f"branch.{branch}.merge")
    remote, ref = (_run(root, "config", "--get", key).stdout.decode().strip() for key in keys)
    return remote or "origin", ref or f"refs/heads/{branch}"


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for git: that of the caller without what would redirect git."""
    kept = {k: v for k, v in given.items() if not k.startswith("GIT_") or k.startswith(_KEPT)}
    return kept | _FIXED


def _ask(root: Path, verb: str, *arguments: str, stdin: bytes = b"", seconds: int = 600) -> bytes:
    done = _run(root, verb, *arguments, stdin=stdin, seconds=seconds)
    if done.returncode != 0:
        raise _failure(verb, done)
    return done.stdout


def _run(
    root: Path, verb: str, *arguments: str, stdin: bytes = b"", seconds: int = 600
) -> CompletedProcess[bytes]:
    import subprocess  # 10 ms: commands that find everything in the index do without

    command = ["git", "-C", str(root), verb, *arguments]
    env = environment(os.environ)
    if verb == "check-ignore":
        del env["GIT_LITERAL_PATHSPECS"]
    try:
        return subprocess.run(
            command, input=stdin, capture_output=True, env=env, timeout=seconds, check=False
        )
    except FileNotFoundError:
        msg = "expected the command git, found none"
        raise RegistryError(msg, "install Git 2.30 or newer") from None
    except subprocess.TimeoutExpired:
        msg = f"git {verb}: no answer within {seconds} s"
        raise NotNow(msg) from None


def _failure(verb: str, done: CompletedProcess[bytes]) -> RegistryError:
    """Return what git said last as an error, a passing one if it looks like that."""
    lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    last = (fatal or lines or [f"exit code {done.returncode}"])[-1]
    message = f"git {verb}: {last.removeprefix('fatal: ').removeprefix('error: ')}"
    if any(part in "\n".join(lines).lower() for part in _PASSING):
        return NotNow(message, "try again later")
    if "tell me who you are" in "\n".join(lines).lower():
        return RegistryError(message, "set user.name and user.email: git config user.email …")
    return RegistryError(message)
