"""The accelerator: what it remembers, what it never trusts, and that losing it costs nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from registry import index as index_module
from registry import sealed
from registry.index import FILE, Index, signature
from registry.sealed import FOLDER
from schemas.digest import TreeError, hash_file, hash_folder, tree_digest

OLD = (3, 10**18, 10**18, 7)


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust files of just now, but where a test says otherwise."""
    monkeypatch.setattr(index_module, "SETTLING_NS", 0)


def stored(root: Path, kind: str = "document") -> Path:
    return root / FOLDER / f"{FILE}-{kind}"


class Counter:
    def __init__(self, value: Any) -> None:
        self.value = value
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        return self.value


def test_a_document_is_remembered_between_commands(tmp_path: Path) -> None:
    data = {"a": [1, 1.0, 0.1, None, True, "ü"], "big": 2**53 - 1}
    index = Index(tmp_path)
    index.put_document("catalog/a.yaml", OLD, data)
    index.save()

    found = Index(tmp_path).get_document("catalog/a.yaml", OLD)

    assert found == data
    assert [type(value) for value in found["a"]] == [type(value) for value in data["a"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("changed", [0, 1, 2, 3])
def test_any_change_of_size_time_or_inode_makes_it_unknown(tmp_path: Path, changed: int) -> None:
    index = Index(tmp_path)
    index.put_document("a", OLD, {"x": 1})
    facts = list(OLD)
    facts[changed] += 1

    assert index.get_document("a", tuple(facts)) is None  # type: ignore[arg-type]
    assert index.get_document("b", OLD) is None
    assert index.get_document("a", OLD) == {"x": 1}


def test_a_stat_and_its_four_numbers_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("x")
    stat = file.stat()
    index = Index(tmp_path)
    index.put_document("a", stat, {"x": 1})

    facts = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    assert index.get_document("a", facts) == {"x": 1}


def test_a_file_changed_within_2_seconds_is_never_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "SETTLING_NS", 2 * 10**9)
    now = time.time_ns()
    index = Index(tmp_path)

    assert signature((1, now, now, 1)) is None
    assert signature((1, now - 3 * 10**9, now, 1)) is None
    assert signature((1, now, now - 3 * 10**9, 1)) is None
    assert signature((1, now - 3 * 10**9, now - 3 * 10**9, 1)) is not None
    index.put_document("a", (1, now, now, 1), {"x": 1})
    index.save()
    assert not stored(tmp_path).exists()


def test_objects_of_git_are_known_by_id_beside_the_working_file(tmp_path: Path) -> None:
    index = Index(tmp_path)
    index.put_document("a", "1f0c", {"then": 1})
    index.put_document("a", OLD, {"now": 1})
    index.save()

    again = Index(tmp_path)

    assert again.get_document("a", "1f0c") == {"then": 1}
    assert again.get_document("a", OLD) == {"now": 1}
    assert again.get_document("a", "2222") is None
    assert again.get_document("b", "1f0c") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"nonsense",
        lambda text: text[:-1],
        lambda text: text.replace(b'"x":1', b'"x":2'),
        lambda text: text.partition(b"\n")[0] + b"\n[]",
        lambda text: b"\xff" + text,
        lambda text: b"other " + text,
        lambda text: text.partition(b"\n")[2],
    ],
)
def test_a_damaged_index_is_an_empty_one_and_heals(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    index = Index(tmp_path)
    index.put_document("a", OLD, {"x": 1})
    index.save()
    stored(tmp_path).write_bytes(damage(stored(tmp_path).read_bytes()))

    damaged = Index(tmp_path)
    assert damaged.get_document("a", OLD) is None
    damaged.put_document("a", OLD, {"x": 1})
    damaged.save()

    assert Index(tmp_path).get_document("a", OLD) == {"x": 1}


def test_an_index_of_other_readers_is_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index(tmp_path)
    index.put_document("a", OLD, {"x": 1})
    index.save()
    monkeypatch.setattr(index_module, "_version", lambda: "another")

    assert Index(tmp_path).get_document("a", OLD) is None


def test_an_index_that_somebody_committed_is_not_believed(tmp_path: Path) -> None:
    for name in ("attacker", "victim"):
        (tmp_path / name / ".git").mkdir(parents=True)
    forged = Index(tmp_path / "attacker")
    forged.put_document("a", "1f0c", {"name": "forged"})
    forged.save()
    stored(tmp_path / "victim").parent.mkdir()
    content = stored(tmp_path / "attacker", "blob").read_bytes()
    stored(tmp_path / "victim", "blob").write_bytes(content)

    victim = Index(tmp_path / "victim")

    assert victim.get_document("a", "1f0c") is None
    assert Index(tmp_path / "attacker").get_document("a", "1f0c") == {"name": "forged"}


def test_an_index_without_a_key_is_not_believed_in_a_repository(tmp_path: Path) -> None:
    index = Index(tmp_path)
    index.put_document("a", "1f0c", {"name": "forged"})
    index.save()
    (tmp_path / ".git").mkdir()

    assert Index(tmp_path).get_document("a", "1f0c") is None


def test_a_key_that_a_crash_left_empty_counts_as_none_and_is_made_anew(tmp_path: Path) -> None:
    key = tmp_path / ".git" / "registry-index-key"
    key.parent.mkdir()
    index = Index(tmp_path)
    index.put_document("a", "1f0c", {"x": 1})
    index.save()
    forged = blake2b(b"{}", key=b"", digest_size=32).hexdigest()
    key.write_bytes(b"")
    (tmp_path / FOLDER / "forged").write_bytes(f"1 {forged}\n{{}}".encode())

    assert sealed.read(tmp_path, "forged", "1") is None
    assert Index(tmp_path).get_document("a", "1f0c") is None
    again = Index(tmp_path)
    again.put_document("a", "1f0c", {"x": 1})
    again.save()
    assert key.stat().st_size == 32
    assert Index(tmp_path).get_document("a", "1f0c") == {"x": 1}


def test_a_linked_work_tree_keeps_its_key_in_its_git_folder(tmp_path: Path) -> None:
    (tmp_path / "main" / ".git" / "worktrees" / "x").mkdir(parents=True)
    root = tmp_path / "linked"
    root.mkdir()
    (root / ".git").write_text("gitdir: ../main/.git/worktrees/x\n")
    index = Index(root)
    index.put_document("a", "1f0c", {"x": 1})
    index.save()

    assert Index(root).get_document("a", "1f0c") == {"x": 1}
    assert (tmp_path / "main/.git/worktrees/x/registry-index-key").stat().st_size == 32


def test_it_may_be_deleted_at_any_time(tmp_path: Path) -> None:
    index = Index(tmp_path)
    index.put_document("a", OLD, {"x": 1})
    index.save()
    stored(tmp_path).unlink()

    assert Index(tmp_path).get_document("a", OLD) is None


def test_it_is_written_only_if_something_is_new(tmp_path: Path) -> None:
    index = Index(tmp_path)
    index.save()
    assert not stored(tmp_path).exists()
    index.put_document("a", OLD, {"x": 1})
    index.save()
    stored(tmp_path).unlink()

    index.save()
    assert not stored(tmp_path).exists()
    again = Index(tmp_path)
    again.get_document("a", OLD)
    again.save()
    assert not stored(tmp_path).exists()


def test_git_never_sees_it_and_no_temporary_file_stays(tmp_path: Path) -> None:
    index = Index(tmp_path)
    index.put_document("a", OLD, {"x": 1})
    index.save()

    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == [
        ".gitignore",
        stored(tmp_path).name,
    ]
    assert (tmp_path / FOLDER / ".gitignore").read_text() == "*\n"


def test_that_it_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    index = Index(tmp_path)
    index.put_document("a", OLD, {"x": 1})

    index.save()

    assert index.get_document("a", OLD) == {"x": 1}


def test_what_json_does_not_have_is_not_written(tmp_path: Path) -> None:
    index = Index(tmp_path)
    loop: list[Any] = []
    loop.append(loop)
    index.put_document("a", OLD, loop)

    index.save()

    assert not stored(tmp_path).exists()


def test_entries_of_vanished_files_go_with_the_next_save(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    index = Index(tmp_path)
    index.put_document("there", OLD, {"x": 1})
    index.put_document("gone", OLD, {"x": 1})
    index.save()

    again = Index(tmp_path)
    again.put_document("new", OLD, {"x": 1})
    again.save()

    entries = Index(tmp_path)._table("document")
    assert sorted(entries) == ["new", "there"]


def test_objects_of_git_are_kept_up_to_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "MOST_ENTRIES", 3)
    index = Index(tmp_path)
    for number in range(5):
        index.put_document("a", f"id{number}", {"x": number})
    index.save()

    again = Index(tmp_path)

    assert [again.get_document("a", f"id{n}") is not None for n in range(5)] == [False] * 2 + [
        True
    ] * 3


def test_a_result_is_computed_once_for_the_same_facts(tmp_path: Path) -> None:
    compute = Counter([1, "two"])
    index = Index(tmp_path)

    assert index.cached("kind", "key", [1, "a"], compute) == [1, "two"]
    assert index.cached("kind", "key", [1, "a"], compute) == [1, "two"]
    index.save()
    assert Index(tmp_path).cached("kind", "key", [1, "a"], compute) == [1, "two"]
    assert compute.calls == 1
    Index(tmp_path).cached("kind", "key", [2, "a"], compute)
    Index(tmp_path).cached("kind", "other", [1, "a"], compute)
    assert compute.calls == 3


def test_an_empty_result_is_remembered_and_none_is_not(tmp_path: Path) -> None:
    nothing, empty = Counter(None), Counter([])
    index = Index(tmp_path)
    for _ in range(2):
        assert index.cached("kind", "nothing", [1], nothing) is None
        assert index.cached("kind", "empty", [1], empty) == []

    assert (nothing.calls, empty.calls) == (2, 1)


def test_without_facts_nothing_is_remembered(tmp_path: Path) -> None:
    compute = Counter(1)
    index = Index(tmp_path)

    index.cached("kind", "key", None, compute)
    index.cached("kind", "key", None, compute)

    assert compute.calls == 2


def folder_with(root: Path, **files: str) -> Path:
    folder = root / "weights"
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def test_a_folder_is_read_again_only_where_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_with(tmp_path, a="1", b="2")
    read: list[str] = []

    def watched(path: Path) -> Any:
        read.append(path.name)
        return hash_file(path)

    monkeypatch.setattr(index_module, "hash_file", watched)
    index = Index(tmp_path)
    first = index.folder_digest(folder)
    assert first == tree_digest(hash_folder(folder))
    assert read == ["a", "b"]
    index.save()

    index = Index(tmp_path)
    assert index.folder_digest(folder) == first
    assert read == ["a", "b"]
    (folder / "b").write_text("changed")
    second = index.folder_digest(folder)

    assert second == tree_digest(hash_folder(folder)) != first
    assert read == ["a", "b", "b"]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "new").write_text(""),
        lambda folder: (folder / "a").unlink(),
        lambda folder: (folder / "a").rename(folder / "c"),
        lambda folder: (folder / "a").write_text("9"),
    ],
)
def test_every_change_of_a_folder_changes_its_digest(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    folder = folder_with(tmp_path, a="1", b="2")
    index = Index(tmp_path)
    before = index.folder_digest(folder)

    change(folder)

    assert index.folder_digest(folder) == tree_digest(hash_folder(folder)) != before


def test_a_change_that_keeps_size_and_modification_time_is_noticed(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, a="1")
    stat = (folder / "a").stat()
    index = Index(tmp_path)
    before = index.folder_digest(folder)
    time.sleep(0.02)  # the change time moves by a tick of the kernel's clock

    (folder / "a").write_text("2")
    os.utime(folder / "a", ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert index.folder_digest(folder) != before


def test_a_fresh_folder_is_read_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "SETTLING_NS", 2 * 10**9)
    folder = folder_with(tmp_path, a="1")
    index = Index(tmp_path)

    assert index.folder_signature(folder) is None
    first = index.folder_digest(folder)
    (folder / "a").write_text("2")

    assert index.folder_digest(folder) == tree_digest(hash_folder(folder)) != first


def test_what_has_no_digest_is_refused_though_it_had_one_before(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, a="1")
    index = Index(tmp_path)
    index.folder_digest(folder)

    (folder / "link").symlink_to("a")

    with pytest.raises(TreeError, match="found a symlink"):
        index.folder_digest(folder)


def test_a_repository_that_moved_keeps_its_index(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    folder = folder_with(tmp_path / "old", a="1")
    index = Index(tmp_path / "old")
    index.folder_digest(folder)
    index.save()

    (tmp_path / "old").rename(tmp_path / "new")

    moved = Index(tmp_path / "new")
    facts = moved.folder_signature(tmp_path / "new" / "weights")
    assert moved._get("folder", "weights", facts) is not None
