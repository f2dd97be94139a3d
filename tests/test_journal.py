"""The journal: what is written into it, and what it notices of what others write into it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from registry import chain
from registry.errors import NotNow, RegistryError
from registry.journal import Journal
from schemas import canonical

KEY = "sha256:" + "a" * 64


def sync(
    root: Path, *models: str, time: str = "2026-03-01T10:00:00Z", result: str = "live"
) -> Path:
    """Enter models as one sync does; return its file."""
    before = set(root.glob("journal/*/*"))
    journal = Journal(root, lambda: "Ada <ada@example.org>", lambda: time)
    for model in models:
        journal.enter({"action": "build", "model": model, "key": KEY, "result": result})
    (file,) = set(root.glob("journal/*/*")) - before
    return file


def places(root: Path) -> list[tuple[str, str]]:
    """Return where the journal does not hold, without folders, and what."""
    return [(one.place.rpartition("/")[2], one.field) for one in chain.read(root).flaws]


def rewrite(file: Path, change: Callable[[list[str]], list[str]]) -> None:
    file.write_text("".join(change(file.read_text().splitlines(keepends=True))))


def test_every_line_is_canonical_and_names_the_line_before(tmp_path: Path) -> None:
    file = sync(tmp_path, "a", "b", "c")

    lines = file.read_bytes().splitlines()
    entries = [json.loads(line) for line in lines]
    assert lines == [rfc8785.dumps(entry) for entry in entries]
    assert [entry["previous"] for entry in entries] == [
        [],
        [entries[0]["digest"]],
        [entries[1]["digest"]],
    ]
    assert [entry["seq"] for entry in entries] == [1, 2, 3]
    assert file.parent.name == "2026-03"
    assert file.name == f"2026-03-01T100000Z-{entries[0]['digest'][7:19]}.jsonl"
    assert chain.read(tmp_path).flaws == ()


def test_a_sync_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    sync(tmp_path, "a", "b")

    second = sync(tmp_path, "c", time="2026-04-01T10:00:00Z")

    found = chain.read(tmp_path)
    assert [(one.model, one.seq) for one in found.entries] == [("a", 1), ("b", 2), ("c", 3)]
    assert found.entries[2].previous == (found.entries[1].digest,)
    assert second.parent.name == "2026-04"
    assert found.flaws == ()


def test_syncs_of_two_clones_are_joined_by_the_next(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    sync(first, "a")
    subprocess.run(["cp", "-a", str(first), str(tmp_path / "second")], check=True)
    second = tmp_path / "second"
    sync(first, "b")
    theirs = sync(second, "c", "d")
    (first / theirs.relative_to(second)).write_bytes(theirs.read_bytes())
    both = chain.read(first)

    sync(first, "e")

    joined = chain.read(first)
    assert len(both.heads) == 2
    assert both.flaws == joined.flaws == ()
    assert joined.entries[-1].previous == both.heads
    assert joined.entries[-1].seq == 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda ls: [ls[0], ls[1].replace("Ada", "Eve"), *ls[2:]], ["2 digest"]),
        (lambda ls: [ls[0], *ls[2:]], ["2 previous"]),
        (lambda ls: ls[1:], ["1 previous"]),
        (lambda ls: [ls[0], ls[2], ls[1], ls[3]], ["2 previous", "3 previous", "4 previous"]),
        (lambda ls: [ls[0], *ls], ["2 digest", "2 previous"]),
        (lambda ls: [ls[0], "\x00\xff garbage\n", *ls[1:]], ["2 line"]),
        (lambda ls: [ls[0].replace(",", ", ", 1), *ls[1:]], ["1 line"]),
        (lambda ls: [ls[0].replace('"seq":2', '"seq":7'), *ls[1:]], ["1 digest", "1 seq", "2 seq"]),
    ],
)
def test_what_was_edited_removed_or_moved_is_named_by_its_line(
    tmp_path: Path, change: Callable[[list[str]], list[str]], told: list[str]
) -> None:
    sync(tmp_path, "start")
    file = sync(tmp_path, "a", "b", "c", "d", time="2026-03-02T10:00:00Z")

    rewrite(file, change)

    found = [f"{place.rpartition(':')[2]} {field}" for place, field in places(tmp_path)]
    assert sorted(found) == told


def test_an_entry_forged_with_its_digest_breaks_the_next_line(tmp_path: Path) -> None:
    file = sync(tmp_path, "a", "b", "c")

    def forge(lines: list[str]) -> list[str]:
        data = json.loads(lines[1]) | {"who": "Eve"}
        del data["digest"]
        forged = canonical.canonical(data | {"digest": canonical.digest(data)}).decode()
        return [lines[0], forged + "\n", lines[2]]

    rewrite(file, forge)

    assert places(tmp_path) == [(f"{file.name}:3", "previous")]


def test_a_file_that_is_gone_is_missed_by_the_next(tmp_path: Path) -> None:
    sync(tmp_path, "a")
    gone = sync(tmp_path, "b", time="2026-03-02T10:00:00Z")
    last = sync(tmp_path, "c", time="2026-03-03T10:00:00Z")

    gone.unlink()

    (flaw,) = chain.read(tmp_path).flaws
    assert (flaw.place, flaw.field) == (f"journal/2026-03/{last.name}:1", "previous")
    assert flaw.found.endswith("which is gone")


def test_half_a_line_of_a_killed_sync_is_told_and_fatal_to_nothing(tmp_path: Path) -> None:
    file = sync(tmp_path, "a", "b")
    file.write_bytes(file.read_bytes()[:-40])

    sync(tmp_path, "c", time="2026-03-02T10:00:00Z")

    found = chain.read(tmp_path)
    assert found.flaws == ()
    assert found.unfinished == (f"journal/2026-03/{file.name}:2",)
    assert [one.model for one in found.entries] == ["a", "c"]


@given(content=st.binary(max_size=300))
def test_no_bytes_are_fatal(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("garbage")
    folder = root / "journal/2026-01"
    folder.mkdir(parents=True)
    (folder / "x.jsonl").write_bytes(content)

    found = chain.read(root)

    assert found.entries == ()
    assert bool(found.flaws) == (b"\n" in content)


def test_a_link_in_place_of_the_journal_is_refused_and_named(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "journal").symlink_to(elsewhere)

    with pytest.raises(RegistryError, match="expected a folder"):
        Journal(root, lambda: "x").open()

    assert chain.read(root).flaws[0].place == "journal"
    assert list(elsewhere.iterdir()) == []


def test_a_full_disk_is_one_error_and_leaves_no_half_line(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from registry.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "journal = Journal(Path(sys.argv[1]), lambda: 'x')\n"
        "journal.enter({'model': 'a'})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        "try:\n    journal.enter({'model': 'b'})\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )

    assert ran.stdout.strip() in {RegistryError.__name__, NotNow.__name__}, ran.stderr
    found = chain.read(tmp_path)
    assert [one.model for one in found.entries] == ["a"]
    assert found.flaws == found.unfinished == ()


def test_texts_that_a_terminal_would_obey_are_made_plain(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: "E\x1b[31mve\n" + os.fsdecode(b"\xff"))

    entry = journal.enter({"model": "a", "reason": "x" * 5000})

    assert entry.who == "E [31mve ?"
    assert len(entry.reason) == 2000
    assert chain.read(tmp_path).flaws == ()


def test_what_was_live_is_what_was_published_and_not_taken_back(tmp_path: Path) -> None:
    sync(tmp_path, "a", "b", time="2026-03-01T10:00:00Z")
    sync(tmp_path, "a", time="2026-03-02T10:00:00Z", result="unpublished")
    sync(tmp_path, "b", time="2026-03-03T10:00:00Z", result="rejected")
    entries = chain.read(tmp_path).entries

    assert set(chain.live(entries)) == {"b"}
    assert set(chain.live(one for one in entries if one.time < "2026-03-02")) == {"a", "b"}
