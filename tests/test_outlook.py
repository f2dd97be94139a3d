"""What is remembered of a catalog never changes what is said of it, whatever happened to its files.

Every step changes something at random; then the answer with all that is remembered is compared with
the answer of a program that remembers nothing.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.catalogs import make_catalog
from registry import index as index_module
from registry import keys, observation, report, sealed, settled, tracking_place
from registry.cli.session import open_session
from registry.errors import InvalidCatalog
from registry.plan import Options
from tests.conftest import Repository

SETTLING_NS = 30_000_000  # some ticks of the kernel's clock, so that a test need not wait for 2 s


@pytest.fixture(autouse=True)
def _quickly_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "SETTLING_NS", SETTLING_NS)


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory, _own_world: None) -> Path:
    root = tmp_path_factory.mktemp("settled") / "catalog"
    make_catalog(root, 40)
    return root


@pytest.fixture
def made(_made: Path, tmp_path: Path) -> Repository:
    shutil.copytree(_made, tmp_path / "catalog")
    return Repository(tmp_path / "catalog")


def answer(root: Path) -> str:
    """Return everything that plan and status say."""
    try:
        session = open_session(root)
        made, live = session.status()
        pruned = session.plan(Options(prune=True), with_push=True)
    except InvalidCatalog as error:
        return report.problems_text(error.problems) + error.message
    rows = report.status_rows(made, live)
    return "\n".join(
        [
            report.plan_text(made, with_idle=True),
            report.plan_text(pruned),
            json.dumps(made.as_data()),
            json.dumps(rows),
            json.dumps(sorted(session.with_upstream(["sales-000029"]))),
        ]
    )


def cold_answer(root: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealed, "read", lambda *_: None)
        patch.setattr(sealed, "write", lambda *_: None)
        return answer(root)


def settle() -> None:
    time.sleep(2 * SETTLING_NS / 10**9)


def remembered(root: Path) -> set[str]:
    return set(settled.read(root, sealed.code_version()).rows)


def edit(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text("utf-8").replace(old, new), "utf-8")


class Chance:
    """Changes of a catalog, drawn from a seeded generator."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.random = random.Random(seed)
        self.changes: list[Callable[[], None]] = [
            self.other_weight,
            self.other_method,
            self.same_size_twice,
            self.other_text,
            self.touch,
            self.remove_spec,
            self.add_spec,
            self.rename_spec,
            self.break_spec,
            self.suspend,
            self.make_of_another,
            self.remove_record,
            self.break_record,
            self.swap_records,
            self.remove_entry,
            self.break_entry,
            self.remove_object,
            self.cut_object,
            self.revoke,
            self.other_adapter,
            self.describe_adapter,
            self.find_altered,
            self.other_tracking,
            self.restore,
            self.damage_memory,
            self.stray_file,
            self.track_link,
        ]

    def step(self) -> str:
        change = self.random.choice(self.changes)
        change()
        return change.__name__

    def spec(self) -> Path:
        return self.random.choice(sorted((self.root / "catalog/merges").glob("*.yaml")))

    def record(self) -> Path:
        return self.random.choice(sorted((self.root / "catalog/builds").glob("*.json")))

    def adapter(self) -> Path:
        return self.random.choice(sorted(self.root.glob("catalog/adapters/skill-*/1/adapter.yaml")))

    def cached(self, place: str) -> Path:
        files = sorted((keys.cache_folder(self.root) / place).glob("*/*"))
        return self.random.choice(files)

    def other_weight(self) -> None:
        edit(self.spec(), "weight: 0.3", f"weight: 0.3{self.random.randrange(1, 9)}")

    def other_method(self) -> None:
        edit(self.spec(), "method: task_arithmetic", "method: ties")

    def same_size_twice(self) -> None:
        file = self.spec()
        edit(file, "weight: 0.5", "weight: 0.6")
        answer(self.root)
        edit(file, "weight: 0.6", "weight: 0.7")

    def other_text(self) -> None:
        edit(self.spec(), "description: ", "description:  ")

    def touch(self) -> None:
        os.utime(self.random.choice([self.spec, self.record])())

    def remove_spec(self) -> None:
        self.spec().unlink()

    def add_spec(self) -> None:
        source, number = self.spec(), self.random.randrange(100)
        target = source.with_name(f"new-{number}.yaml")
        target.write_text(source.read_text().replace(f"name: {source.stem}", f"name: new-{number}"))

    def rename_spec(self) -> None:
        source = self.spec()
        source.rename(source.with_name(f"moved-{self.random.randrange(100)}.yaml"))

    def break_spec(self) -> None:
        edit(self.spec(), "weight: 0.3", "weight: none")

    def suspend(self) -> None:
        file = self.spec()
        file.write_text(file.read_text() + "suspend: {reason: later}\n")

    def make_of_another(self) -> None:
        edit(self.spec(), "  terms:\n", f"  terms:\n    - {{merge: {self.spec().stem}}}\n")

    def remove_record(self) -> None:
        self.record().unlink()

    def break_record(self) -> None:
        self.record().write_text("{}")

    def swap_records(self) -> None:
        self.record().write_bytes(self.record().read_bytes())

    def remove_entry(self) -> None:
        self.cached("registry/keys").unlink()

    def break_entry(self) -> None:
        self.cached("registry/keys").write_text("{}")

    def remove_object(self) -> None:
        self.cached("files/md5").unlink()

    def cut_object(self) -> None:
        path = self.cached("files/md5")
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1])

    def revoke(self) -> None:
        file = self.adapter()
        file.write_text(file.read_text() + "revoked: {reason: leaked}\n")

    def other_adapter(self) -> None:
        edit(self.adapter(), "sha256:0", "sha256:1")
        edit(self.adapter(), "sha256:a", "sha256:b")

    def describe_adapter(self) -> None:
        file = self.adapter()
        file.write_text(file.read_text() + "description: words\n")

    def find_altered(self) -> None:
        path = self.record()
        digest = json.loads(path.read_text()).get("artifact", {}).get("digest", "none")
        known = observation.read_altered(self.root)
        observation.write_altered(self.root, {path.stem: digest} if not known else {})

    def other_tracking(self) -> None:
        uri = tracking_place.default_uri(self.root)
        name = self.random.choice(["benchmark-store", "benchmark-store", "another"])
        tracking_place.remember_store(self.root, uri, name)

    def restore(self) -> None:
        Repository(self.root).git("reset", "-q", "--hard")
        Repository(self.root).git("clean", "-qfd", "catalog")

    def damage_memory(self) -> None:
        for name in ("settled", "index-spec", "index-document"):
            path = self.root / ".registry" / name
            content = path.read_bytes() if path.exists() else b""
            damaged = [b"", content[:-1], content.replace(b"sha256", b"sha255"), b"x" + content]
            path.write_bytes(self.random.choice(damaged))

    def stray_file(self) -> None:
        folder = self.random.choice(["catalog/merges", "catalog/builds", "catalog"])
        name = self.random.choice(["stray.txt", "more.yml", ".dot", "README.md", "x/merge.yaml"])
        path = self.root / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")

    def track_link(self) -> None:
        link = self.root / "catalog" / "link"
        link.symlink_to("registry.yaml")
        Repository(self.root).git("add", "catalog/link")
        link.unlink()


@pytest.mark.parametrize("seed", range(3))
def test_what_is_remembered_never_changes_what_is_said(made: Repository, seed: int) -> None:
    chance = Chance(made.root, seed)
    answer(made.root)
    done = []
    for number in range(40):
        done.append(chance.step())
        if chance.random.random() < 0.5:
            settle()
        assert answer(made.root) == cold_answer(made.root), done
        if number % 3 == 2:  # or nearly every step would meet a catalog that is broken already
            chance.restore()
            done.append("restore")


def test_a_second_plan_reads_no_spec_and_no_record(
    made: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle()
    expected = answer(made.root)
    assert len(remembered(made.root)) == 40
    opened: list[str] = []
    real = Path.read_bytes

    def watched(path: Path) -> bytes:
        opened.append(path.as_posix())
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", watched)

    assert answer(made.root) == expected
    inside = [path for path in opened if "/catalog/catalog/" in path or "/cache/" in path]
    assert inside == []


def test_only_what_depends_on_an_edit_is_planned_anew(made: Repository) -> None:
    settle()
    answer(made.root)
    edit(made.root / "catalog/merges/search-000005.yaml", "owner: search", "owner: other")
    edit(made.root / "catalog/adapters/skill-03/1/adapter.yaml", "kind:", "# a comment\nkind:")

    session = open_session(made.root)

    # The one that was edited, and the one that is made of it.
    assert set(session.outlook.changed) == {"search-000005", "sales-000009"}
    assert session.plan().is_empty


def test_a_file_that_changed_a_moment_ago_is_not_relied_on(
    made: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "SETTLING_NS", 3600 * 10**9)

    answer(made.root)

    assert remembered(made.root) == set()


def test_what_somebody_else_remembers_is_not_believed(made: Repository, tmp_path: Path) -> None:
    settle()
    answer(made.root)
    content = (made.root / ".registry/settled").read_bytes()
    (made.root / ".git/registry-index-key").write_bytes(b"another key of thirty-two bytes.")

    assert remembered(made.root) == set()
    answer(made.root)
    assert len(remembered(made.root)) == 40
    assert (made.root / ".registry/settled").read_bytes() != content


def test_a_command_that_needs_everything_reads_it(made: Repository) -> None:
    settle()
    answer(made.root)
    session = open_session(made.root)

    assert not session.outlook.changed
    assert list(session.declared) == list(session.upstream)
    assert len(session.loaded.catalog.merges) == 40
