"""Shards that no term touches: named by the base, linked where they lie, never believed blindly."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from merger import engine
from merger.errors import InputError
from merger.writer import ArtifactWriter, KnownFile
from tests import merging, tiny
from tests.merging import TermOf
from tests.test_merger_stack import stack_request

UNTOUCHED = "model-00002-of-00002.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_base(tmp_path_factory.mktemp("untouched") / "base", seed=5)


@pytest.fixture(scope="module")
def terms(base: Path) -> list[TermOf]:
    return [
        TermOf(tiny.tiny_adapter(base.parent / name, base=base, seed=seed))
        for seed, name in enumerate(("one", "other"), start=1)
    ]


def known_of(built: engine.Built, folder: Path, file: str = UNTOUCHED) -> dict[str, KnownFile]:
    stat = (folder / file).stat()
    known = KnownFile(folder / file, built.files[file], stat.st_mtime_ns, stat.st_ino)
    return {built.shards[file]: known}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_shard_has_one_key_for_all_merges_of_the_same_targets(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    few = TermOf(tiny.tiny_adapter(tmp_path / "few", base=base, targets=("q_proj",), seed=3))

    one = merging.build(tmp_path / "one", base, terms[:1])
    two = merging.build(tmp_path / "two", base, terms, method="ties", density=0.5)
    cast = merging.build(tmp_path / "cast", base, terms[:1], dtype="float16")
    fewer = merging.build(tmp_path / "fewer", base, [few])

    assert list(one.shards) == [UNTOUCHED]
    assert one.shards == two.shards
    assert len({built.shards[UNTOUCHED] for built in (one, cast, fewer)}) == 3


def test_another_base_gives_another_key(base: Path, terms: list[TermOf], tmp_path: Path) -> None:
    sibling = tiny.tiny_base(tmp_path / "sibling", seed=6)

    one = merging.build(tmp_path / "one", base, terms[:1])
    two = merging.build(tmp_path / "two", sibling, terms[:1])

    assert one.shards.keys() == two.shards.keys()
    assert one.shards != two.shards


def test_a_stack_has_no_shard_that_the_base_alone_determines(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    data = stack_request(base, terms[:1], [(None, 0, 1), (0, 0, 1)])

    built = merging.build_request(tmp_path / "out", data, merging.inputs_of(base, terms))

    assert len(built.files) > 1
    assert built.shards == {}


def test_a_known_shard_is_linked_and_the_artifact_is_the_same(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    first = merging.build(tmp_path / "first", base, terms[:1])
    written = merging.build(tmp_path / "written", base, terms)

    linked = merging.build(
        tmp_path / "linked", base, terms, known=known_of(first, tmp_path / "first")
    )

    assert (tmp_path / "linked" / UNTOUCHED).samefile(tmp_path / "first" / UNTOUCHED)
    assert bytes_of(tmp_path / "linked") == bytes_of(tmp_path / "written")
    assert linked == written


def _touch(file: Path) -> None:
    os.utime(file, ns=(0, 0))


def _rewrite(file: Path) -> None:
    stat = file.stat()
    file.write_bytes(bytes(stat.st_size))
    time.sleep(0.01)


def _cut(file: Path) -> None:
    stat = file.stat()
    os.truncate(file, stat.st_size - 1)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _replace(file: Path) -> None:
    stat = file.stat()
    copy = file.with_name("copy")
    copy.write_bytes(bytes(stat.st_size))
    os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    copy.replace(file)


@pytest.mark.parametrize("spoil", [_touch, _rewrite, _cut, _replace, Path.unlink])
def test_a_file_that_is_not_the_known_one_is_not_used(
    base: Path, terms: list[TermOf], tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    first = merging.build(tmp_path / "first", base, terms[:1])
    known = known_of(first, tmp_path / "first")
    time.sleep(0.02)  # the clock of a file system ticks every few milliseconds
    spoil(tmp_path / "first" / UNTOUCHED)

    built = merging.build(tmp_path / "again", base, terms[:1], known=known)

    assert built == first
    assert (tmp_path / "again" / UNTOUCHED).stat().st_nlink == 1


def test_a_shard_of_another_key_is_not_used(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    first = merging.build(tmp_path / "first", base, terms[:1])
    (known,) = known_of(first, tmp_path / "first").values()

    merging.build(tmp_path / "again", base, terms, known={"sha256:" + "0" * 64: known})

    assert (tmp_path / "again" / UNTOUCHED).stat().st_nlink == 1


def test_a_build_that_fails_leaves_the_known_file_as_it_was(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    first = merging.build(tmp_path / "first", base, terms[:1])
    file = tmp_path / "first" / UNTOUCHED
    file.chmod(0o444)
    content = file.read_bytes()
    known = known_of(first, tmp_path / "first")
    spoilt = shutil.copytree(terms[1].folder, tmp_path / "spoilt")
    arrays = tiny.read_tensors(spoilt)
    name = next(iter(arrays))
    arrays[name][0] = float("nan")
    tiny.write_safetensors(spoilt / "adapter_model.safetensors", arrays)

    with pytest.raises(InputError, match="non-finite"):
        merging.build(tmp_path / "out", base, [TermOf(spoilt)], known=known)

    assert not list((tmp_path / "out").iterdir())
    assert file.read_bytes() == content
    assert (file.stat().st_nlink, file.stat().st_mode & 0o777) == (1, 0o444)


def test_no_room_is_asked_for_what_is_linked(
    base: Path, terms: list[TermOf], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = merging.build(tmp_path / "first", base, terms[:1])
    asked: list[int] = []
    monkeypatch.setattr(ArtifactWriter, "reserve", lambda _self, size: asked.append(size))

    merging.build(tmp_path / "linked", base, terms[:1], known=known_of(first, tmp_path / "first"))
    merging.build(tmp_path / "written", base, terms[:1])

    assert asked[1] - asked[0] == first.files[UNTOUCHED].size


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on another file system."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    folder = memory / f"merger-test-{os.getpid()}-{time.monotonic_ns()}"
    yield folder
    shutil.rmtree(folder)


def test_on_another_file_system_a_known_shard_is_copied(
    base: Path, terms: list[TermOf], tmp_path: Path, elsewhere: Path
) -> None:
    first = merging.build(tmp_path / "first", base, terms[:1])

    built = merging.build(elsewhere, base, terms[:1], known=known_of(first, tmp_path / "first"))

    assert built == first
    assert bytes_of(elsewhere) == bytes_of(tmp_path / "first")


def test_where_nothing_can_be_linked_the_kernel_copies(
    base: Path, terms: list[TermOf], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = merging.build(tmp_path / "first", base, terms[:1])

    def refuse(*_paths: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    merging.build(tmp_path / "copied", base, terms[:1], known=known_of(first, tmp_path / "first"))

    assert not (tmp_path / "copied" / UNTOUCHED).samefile(tmp_path / "first" / UNTOUCHED)
    assert bytes_of(tmp_path / "copied") == bytes_of(tmp_path / "first")


def test_an_order_with_other_facts_of_a_shard_is_refused() -> None:
    from merger.untouched import parse_known

    assert parse_known(None) == {}
    for wrong in ([], {"sha256:00": {"path": "/x"}}, {"sha256:00": None}, 3):
        with pytest.raises(InputError, match="expected path, sha256"):
            parse_known(wrong)
