"""Questions to a real `git` in real repositories."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from registry import git
from registry.errors import NotNow, RegistryError, UsageError


@pytest.fixture(autouse=True)
def _identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "gitconfig"
    config.write_text("[user]\n\tname = Someone\n\temail = someone@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def write(root: Path, **files: str) -> None:
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    git.init(root)
    write(root, catalog__a="1", catalog__b="2", other="3")
    run(root, "add", ".")
    run(root, "commit", "-qm", "first")
    return root


def clone_of_bare(repo: Path, tmp_path: Path) -> tuple[Path, Path]:
    bare = tmp_path / "bare.git"
    run(tmp_path, "clone", "-q", "--bare", str(repo), str(bare))
    clone = tmp_path / "clone"
    run(tmp_path, "clone", "-q", str(bare), str(clone))
    return bare, clone


def test_the_root_is_found_upwards(repo: Path) -> None:
    assert git.root(repo / "catalog") == repo.resolve()
    assert git.root(repo) == repo.resolve()


def test_outside_a_repository_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a folder inside a Git repository"):
        git.root(tmp_path)


def test_a_linked_work_tree_has_a_root_of_its_own(repo: Path, tmp_path: Path) -> None:
    run(repo, "worktree", "add", "-q", str(tmp_path / "linked"))

    assert git.root(tmp_path / "linked" / "catalog") == (tmp_path / "linked").resolve()
    assert git.head(tmp_path / "linked") == git.head(repo)


def test_a_new_repository_has_a_first_branch_and_no_commit(tmp_path: Path) -> None:
    git.init(tmp_path / "new" / "deep", "trunk")

    assert git.head(tmp_path / "new" / "deep") is None
    assert run(tmp_path / "new" / "deep", "symbolic-ref", "--short", "HEAD") == "trunk"


def test_a_repository_is_not_emptied_by_init(repo: Path) -> None:
    before = git.head(repo)

    git.init(repo)

    assert git.head(repo) == before is not None


def test_revisions_are_resolved_to_commits(repo: Path) -> None:
    run(repo, "tag", "-a", "v1", "-m", "x")
    head = git.head(repo)

    assert git.resolve(repo, "HEAD") == head
    assert git.resolve(repo, "main") == head
    assert git.resolve(repo, "v1") == head
    assert git.resolve(repo, str(head)[:8]) == head


@pytest.mark.parametrize(
    "rev", ["", "nothing", "HEAD~5", "--all", "-h", "HEAD:catalog", "a b", "a\0b"]
)
def test_an_unknown_revision_is_wrong_usage(repo: Path, rev: str) -> None:
    with pytest.raises(UsageError, match="expected a revision of repo, found"):
        git.resolve(repo, rev)


def test_an_unknown_revision_gets_the_nearest_branch_or_tag(repo: Path) -> None:
    run(repo, "tag", "release-1")

    with pytest.raises(UsageError) as caught:
        git.resolve(repo, "relase-1")
    assert caught.value.hint == "did you mean release-1"


def test_files_of_a_revision_have_mode_and_object(repo: Path) -> None:
    (repo / "catalog" / "ü *").write_text("4")
    (repo / "catalog" / "run").write_text("5")
    (repo / "catalog" / "run").chmod(0o755)
    (repo / "catalog" / "link").symlink_to("/etc/passwd")
    run(repo, "add", ".")
    run(repo, "commit", "-qm", "second")

    files = git.tree_files(repo, "HEAD", "catalog")

    assert {path: mode for path, (mode, _) in files.items()} == {
        "catalog/a": "100644",
        "catalog/b": "100644",
        "catalog/link": git.SYMLINK,
        "catalog/run": "100755",
        "catalog/ü *": "100644",
    }
    assert sorted(git.tree_files(repo, "HEAD~1")) == ["catalog/a", "catalog/b", "other"]
    assert git.tree_files(repo, "HEAD", "nothing") == {}


def test_files_are_named_from_the_root_whatever_the_prefix_looks_like(repo: Path) -> None:
    assert git.tree_files(repo, "HEAD", "cat*") == {}
    assert git.tracked_links(repo, "cat*") == []


def test_blobs_are_read_in_one_call(repo: Path) -> None:
    (repo / "empty").write_bytes(b"")
    (repo / "binary").write_bytes(b"\0\n\nx blob 3\n")
    run(repo, "add", ".")
    run(repo, "commit", "-qm", "second")
    files = {path: oid for path, (_, oid) in git.tree_files(repo, "HEAD").items()}

    blobs = git.read_blobs(repo, [*files.values(), files["other"]])

    assert {path: blobs[oid] for path, oid in files.items()} == {
        "binary": b"\0\n\nx blob 3\n",
        "catalog/a": b"1",
        "catalog/b": b"2",
        "empty": b"",
        "other": b"3",
    }
    assert git.blob_sizes(repo, [files["binary"]]) == {files["binary"]: 12}
    assert git.read_blobs(repo, []) == {}


def test_many_large_blobs_do_not_block(repo: Path) -> None:
    for number in range(50):
        (repo / f"big{number}").write_bytes(bytes([number]) * 200_000)
    run(repo, "add", ".")
    run(repo, "commit", "-qm", "big")
    ids = [oid for _, oid in git.tree_files(repo, "HEAD").values()]

    assert sum(map(len, git.read_blobs(repo, ids).values())) == 50 * 200_000 + 3


def test_a_missing_object_is_told(repo: Path) -> None:
    with pytest.raises(RegistryError, match=f"expected the Git object {'0' * 40}, found none"):
        git.read_blobs(repo, ["0" * 40])


def test_status_tells_what_differs(repo: Path) -> None:
    write(repo, catalog__a="changed", **{"catalog__new file": "x"})
    (repo / "other").unlink()
    run(repo, "add", "catalog/a")

    assert git.status(repo) == {"catalog/a": "M ", "other": " D", "catalog/new file": "??"}
    assert git.status(repo, "catalog") == {"catalog/a": "M ", "catalog/new file": "??"}
    assert git.is_dirty(repo, ["catalog/a"])
    assert git.is_dirty(repo, ["catalog/"])
    assert not git.is_dirty(repo, ["catalog/b", "cat"])
    assert not git.is_dirty(repo, [])


def test_a_renamed_file_is_one_removed_and_one_new(repo: Path) -> None:
    run(repo, "mv", "other", "moved")

    assert git.status(repo) == {"moved": "A ", "other": "D "}


def test_ignored_paths_are_told_and_tracked_ones_are_not_among_them(repo: Path) -> None:
    write(repo, **{".gitignore": "*.tmp\nother\nfolder/\n", "x.tmp": "", "folder__y": ""})

    found = git.ignored(repo, ["x.tmp", "other", "folder/y", "catalog/a", ":(top)*.tmp", "*"])

    assert found == {"x.tmp", "folder/y", ":(top)*.tmp"}
    assert git.ignored(repo, []) == set()
    assert git.ignored(repo, ["catalog/a"]) == set()


def test_tracked_symlinks_and_submodules_are_found(repo: Path) -> None:
    (repo / "catalog" / "link").symlink_to("a")
    run(repo, "add", "catalog/link")
    run(repo, "update-index", "--add", "--cacheinfo", f"160000,{git.head(repo)},catalog/module")
    write(repo, catalog__untracked="x")

    (repo / "link").symlink_to("a")
    run(repo, "add", "link")

    assert git.tracked_links(repo, "catalog") == ["catalog/link", "catalog/module"]
    assert git.tracked_links(repo) == ["catalog/link", "catalog/module", "link"]


def test_a_commit_holds_these_paths_only_and_leaves_the_index_alone(repo: Path) -> None:
    write(repo, catalog__a="mine", catalog__new="mine", other="theirs", staged="theirs")
    (repo / "catalog" / "b").unlink()
    run(repo, "add", "staged", "other")

    commit = git.commit(repo, ["catalog/a", "catalog/new", "catalog/b", "never-there"], "Built a")

    assert commit == git.head(repo)
    changed = run(repo, "show", "--name-status", "--format=%s", "HEAD").split("\n")
    assert changed == ["Built a", "", "M\tcatalog/a", "D\tcatalog/b", "A\tcatalog/new"]
    assert git.status(repo) == {"other": "M ", "staged": "A "}


def test_a_commit_without_changes_makes_none(repo: Path) -> None:
    before = git.head(repo)

    assert git.commit(repo, ["catalog/a"], "Nothing") == before


def test_a_path_with_a_star_is_a_path(repo: Path) -> None:
    write(repo, **{"*": "star", "x": "untouched"})

    git.commit(repo, ["*"], "Star")

    assert git.status(repo) == {"x": "??"}


def test_a_refusing_hook_is_told_in_its_own_words(repo: Path) -> None:
    hook = repo / ".git" / "hooks" / "pre-commit"
    hook.write_text("#!/bin/sh\necho 'not on Fridays' >&2\nexit 1\n")
    hook.chmod(0o755)
    write(repo, catalog__a="new")

    with pytest.raises(RegistryError, match="git commit: not on Fridays"):
        git.commit(repo, ["catalog/a"], "x")


def test_a_locked_index_passes(repo: Path) -> None:
    (repo / ".git" / "index.lock").touch()
    write(repo, catalog__a="new")

    with pytest.raises(NotNow, match=r"git add: .*index\.lock"):
        git.commit(repo, ["catalog/a"], "x")


def test_a_missing_identity_has_a_hint(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    run(repo, "config", "user.useConfigOnly", "true")
    write(repo, catalog__a="new")

    with pytest.raises(RegistryError) as caught:
        git.commit(repo, ["catalog/a"], "x")
    assert "git config user.email" in caught.value.hint


def test_a_push_reaches_the_remote(repo: Path, tmp_path: Path) -> None:
    bare, clone = clone_of_bare(repo, tmp_path)
    write(clone, catalog__a="new")
    commit = git.commit(clone, ["catalog/a"], "Built a")

    assert git.push(clone) is True
    assert git.resolve(bare, "main") == commit
    assert git.push(clone) is True


def test_a_remote_that_moved_rejects_the_push(repo: Path, tmp_path: Path) -> None:
    bare, clone = clone_of_bare(repo, tmp_path)
    run(tmp_path, "clone", "-q", str(bare), str(tmp_path / "other"))
    write(tmp_path / "other", other="moved")
    moved = git.commit(tmp_path / "other", ["other"], "Moved")
    assert git.push(tmp_path / "other")
    write(clone, catalog__a="new")
    git.commit(clone, ["catalog/a"], "Built a")

    assert git.push(clone) is False
    assert git.resolve(bare, "main") == moved
    git.fetch(clone)
    assert git.resolve(clone, "origin/main") == moved


def test_a_branch_is_pushed_to_its_upstream_of_another_name(repo: Path, tmp_path: Path) -> None:
    bare, clone = clone_of_bare(repo, tmp_path)
    run(clone, "switch", "-q", "-c", "local", "--track", "origin/main")
    write(clone, catalog__a="new")
    commit = git.commit(clone, ["catalog/a"], "Built a")

    assert git.push(clone) is True
    assert git.resolve(bare, "main") == commit


def test_a_branch_without_upstream_goes_to_origin_under_its_own_name(
    repo: Path, tmp_path: Path
) -> None:
    bare, clone = clone_of_bare(repo, tmp_path)
    run(clone, "switch", "-q", "-c", "feature")

    assert git.push(clone) is True
    assert git.resolve(bare, "feature") == git.head(clone)


def test_a_remote_whose_hook_declines_is_an_error_with_its_words(
    repo: Path, tmp_path: Path
) -> None:
    bare, clone = clone_of_bare(repo, tmp_path)
    hook = bare / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    write(clone, catalog__a="new")
    git.commit(clone, ["catalog/a"], "Built a")

    with pytest.raises(RegistryError, match=r"git push: .*pre-receive hook declined") as caught:
        git.push(clone)
    assert not isinstance(caught.value, NotNow)


def test_an_unreachable_remote_passes(repo: Path) -> None:
    run(repo, "remote", "add", "origin", "http://127.0.0.1:9/none.git")

    with pytest.raises(NotNow, match="git push: unable to access"):
        git.push(repo)
    with pytest.raises(NotNow, match="git fetch: unable to access"):
        git.fetch(repo)


def test_only_a_repository_with_a_remote_has_a_place_to_push_to(repo: Path, tmp_path: Path) -> None:
    _, clone = clone_of_bare(repo, tmp_path)

    assert git.has_upstream(clone)
    assert not git.has_upstream(repo)


def test_a_detached_head_cannot_be_pushed(repo: Path) -> None:
    run(repo, "checkout", "-q", "--detach")

    with pytest.raises(RegistryError, match="expected a branch, found a detached HEAD"):
        git.push(repo)


def test_variables_that_would_redirect_git_are_left_out(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.bare'='true'")

    assert git.resolve(repo, "HEAD") == git.head(repo)
    assert git.status(repo) == {}


def test_identity_and_transport_of_the_environment_are_kept() -> None:
    given = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_SSH_COMMAND": "b",
        "GIT_DIR": "c",
        "PATH": "d",
        "LC_ALL": "e",
    }

    found = git.environment(given)

    assert found["GIT_AUTHOR_NAME"] == "a"
    assert found["GIT_SSH_COMMAND"] == "b"
    assert found["PATH"] == "d"
    assert found["LC_ALL"] == "C"
    assert "GIT_DIR" not in found


def test_a_machine_without_git_is_told(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(RegistryError, match="expected the command git, found none"):
        git.head(repo)


def test_a_git_that_does_not_answer_passes(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")

    with pytest.raises(NotNow, match="git status: no answer within 1 s"):
        git._ask(repo, "status", seconds=1)


def test_a_damaged_repository_is_told_in_gits_words(repo: Path) -> None:
    (repo / ".gitignore").mkdir()
    (repo / ".git" / "HEAD").write_text("nonsense")

    with pytest.raises(RegistryError, match="git ls-files: not a git repository"):
        git.tracked_links(repo)
    with pytest.raises(RegistryError, match="git check-ignore: not a git repository"):
        git.ignored(repo, ["x"])


def test_every_version_of_a_file_is_told_also_of_branches_if_asked(tmp_path: Path) -> None:
    def ask(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def commit(path: str, text: str) -> str:
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        ask("add", "-A")
        ask("commit", "-qm", text)
        return ask("hash-object", path)

    git.init(tmp_path)
    assert git.versions(tmp_path, None, "kept") == {}
    for preference in ("log.diffMerges combined", "color.ui always", "log.showSignature true"):
        ask("config", *preference.split())
    first = commit("kept/ä\tb\n.txt", "one")
    ask("switch", "-qc", "side")
    second = commit("kept/other", "two")
    ask("switch", "-q", "main")
    commit("elsewhere", "three")
    third = commit("kept/ä\tb\n.txt", "four")
    ask("rm", "-qr", "kept")
    ask("commit", "-qm", "gone")

    assert git.versions(tmp_path, ["HEAD"], "kept") == {"kept/ä\tb\n.txt": {first, third}}
    ask("merge", "-q", "--no-edit", "side")
    every = {"kept/ä\tb\n.txt": {first, third}, "kept/other": {second}}
    assert git.versions(tmp_path, ["HEAD"], "kept") == every
    assert git.versions(tmp_path, None, "kept") == every


def test_a_followed_branch_is_cloned_without_files_or_hooks(repo: Path, tmp_path: Path) -> None:
    bare, _ = clone_of_bare(repo, tmp_path)
    template = tmp_path / "template/hooks"
    template.mkdir(parents=True)
    (template / "post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (template / "post-checkout").chmod(0o755)
    run(repo, "config", "--global", "init.templateDir", str(template.parent))
    run(repo, "config", "--global", "core.hooksPath", str(template))
    root = tmp_path / "followed"

    git.clone(str(bare), root, "main")

    assert [path.name for path in root.iterdir()] == [".git"]
    git.reset(root, git.remote_head(root, "main"))
    assert git.status(root) == {}
    assert (root / "other").read_text() == "3"
    assert not (tmp_path / "ran").exists()


def test_a_branch_is_fetched_though_it_was_rewritten(repo: Path, tmp_path: Path) -> None:
    bare, _ = clone_of_bare(repo, tmp_path)
    root = tmp_path / "followed"
    git.clone(str(bare), root, "main")
    first = git.fetch_branch(root, "main")
    run(repo, "commit", "-q", "--amend", "-m", "rewritten")
    run(repo, "push", "-qf", str(bare), "HEAD:main")

    second = git.fetch_branch(root, "main")

    assert second == git.head(repo) == git.remote_head(root, "main") != first
    assert not git.differs(root, first, second, ["catalog", "other"])
    assert git.is_ancestor(root, second, second)
    assert not git.is_ancestor(root, first, second)
    assert not git.is_ancestor(root, "0" * 40, second)
    git.reset(root, first)
    (root / "other").write_text("changed")
    (root / ".git/index.lock").write_text("of a git that was killed")
    git.reset(root, second)
    assert (git.head(root), git.status(root)) == (second, {})


def test_what_differs_between_commits_is_asked_by_folder(repo: Path) -> None:
    first = git.resolve(repo, "HEAD")
    write(repo, catalog__a="changed")
    run(repo, "commit", "-qam", "second")

    assert git.differs(repo, first, "HEAD", ["catalog", "absent"])
    assert not git.differs(repo, first, "HEAD", ["other", "catalog/b"])
    with pytest.raises(RegistryError, match="git diff-tree"):
        git.differs(repo, "0" * 40, "HEAD", ["catalog"])


def test_a_repository_or_branch_that_is_not_there_is_told(repo: Path, tmp_path: Path) -> None:
    bare, _ = clone_of_bare(repo, tmp_path)

    with pytest.raises(RegistryError, match=r"git clone: .*absent"):
        git.clone(str(bare), tmp_path / "one", "absent")
    with pytest.raises(NotNow, match="git clone: unable to access"):
        git.clone("http://127.0.0.1:9/none.git", tmp_path / "two", "main")
    git.clone(str(bare), tmp_path / "three", "main")
    bare.rename(tmp_path / "moved.git")
    with pytest.raises(NotNow, match="git fetch"):
        git.fetch_branch(tmp_path / "three", "main")


def test_only_a_signature_by_an_allowed_key_is_good(repo: Path, tmp_path: Path) -> None:
    keys = [tmp_path / name for name in ("ours", "theirs")]
    for key in keys:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(command, check=True)
    public = keys[0].with_suffix(".pub").read_text()
    (tmp_path / "allowed").write_text(f"someone@example.org {public}")
    git.set_setting(repo, "gpg.format", "ssh")
    git.set_setting(repo, "gpg.ssh.allowedSignersFile", str(tmp_path / "allowed"))
    told = {}
    for name, signed in (("ours", ["-S"]), ("theirs", ["-S"]), ("nobody", [])):
        git.set_setting(repo, "user.signingKey", str(tmp_path / name))
        run(repo, "commit", "-q", "--allow-empty", *signed, "-m", name)
        told[name] = git.signature_problem(repo, git.resolve(repo, "HEAD"))

    assert told["ours"] is None
    assert told["theirs"] is not None
    assert told["nobody"] == "it has no signature"
    assert git.setting(repo, "gpg.format") == "ssh"
    assert git.setting(repo, "no.such") is None


def test_the_history_of_a_file_is_told_by_the_commits_of_the_branch(repo: Path) -> None:
    write(repo, file="one\n", other="x\n")
    first = git.commit(repo, ["file", "other"], "first <b>\n\nmore")
    run(repo, "switch", "-qc", "side")
    write(repo, file="two\n")
    git.commit(repo, ["file"], "on the side")
    run(repo, "switch", "-q", "main")
    write(repo, other="y\n")
    second = git.commit(repo, ["other"], "not of this file")
    run(repo, "merge", "-q", "--no-ff", "-m", "landed", "side")
    landed = run(repo, "rev-parse", "HEAD")
    (repo / "file").unlink()
    removed = git.commit(repo, ["file"], "removed")

    found = git.history(repo, "file", 10)

    assert [(one.id, one.subject) for one in found] == [
        (removed, "removed"),
        (landed, "landed"),
        (first, "first <b>"),
    ]
    assert {one.author for one in found} == {"Someone"}
    assert found[0].blob is None
    blobs = git.read_blobs(repo, [one.blob for one in found if one.blob])
    assert list(blobs.values()) == [b"two\n", b"one\n"]
    assert [one.id for one in git.history(repo, "file", 1)] == [removed]
    assert git.history(repo, "absent", 10) == []
    changed = git.last_changes(repo, ".")
    assert (changed["file"][0], changed["other"][0]) == (removed, second)
    assert "" not in changed
    assert changed["file"][1] == found[0].at
