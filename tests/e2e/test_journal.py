"""The journal in a repository: who did what, what Git and MLflow still know if it is cut."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

from registry import chain
from registry.journal import Journal
from tests.conftest import REGISTRY, Repository
from tests.e2e.conftest import client_of, digests
from tests.e2e.test_audit import audit, found

MERGE = "catalog/merges/both-skills.yaml"


def journal_of(repository: Repository) -> Path:
    (file,) = repository.root.glob("journal/*/*.jsonl")
    return file


def test_a_sync_enters_who_did_what_at_which_commit(synced: Repository, tmp_path: Path) -> None:
    entries = chain.read(synced.root).entries

    assert {one.model: one.model_digest for one in entries} == digests(synced)
    assert {(one.who, one.action, one.result, one.reason) for one in entries} == {
        ("Test <test@localhost>", "build", "live", "never-built")
    }
    assert {one.commit for one in entries} == {synced.git("rev-parse", "HEAD~1").strip()}
    ran = synced.run("export", "average", str(tmp_path / "out"), "--with-reports")
    assert ran.code == 0, ran.err
    statement = (tmp_path / "out/provenance.json").read_bytes()
    (built,) = (one for one in entries if one.model == "average")
    assert built.provenance == "sha256:" + hashlib.sha256(statement).hexdigest()
    assert built.provenance in synced.run("show", "average").out
    for subject in json.loads(statement)["subject"]:
        content = (tmp_path / "out" / subject["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == subject["digest"]["sha256"]


def test_pruned_reverted_and_adopted_is_all_told(synced: Repository) -> None:
    synced.git("rm", "-q", "catalog/merges/trimmed.yaml")
    synced.commit("no longer wanted")
    ran = synced.run("sync", "--prune", "--commit", REGISTRY_ACTOR="merge-bot")
    assert ran.code == 0, ran.err
    subjects = synced.git("log", "--format=%s", "-2").splitlines()
    after_prune = audit(synced)
    synced.git("revert", "--no-edit", "HEAD")  # the records come back, the journal stays

    told = audit(synced)
    fixed = audit(synced, "--fix")
    history = synced.run("history", "trimmed")

    assert subjects == ["Registry: trimmed synced", "Registry: journal"]
    assert after_prune["differences"] == []
    assert found(told) == {
        ("trimmed", "journal", "live"),
        ("trimmed", "MLflow model", "alias live"),
    }
    assert fixed["differences"] == []
    assert audit(synced)["differences"] == []
    rows = [line.split() for line in history.out.splitlines()]
    assert [row[2:4] for row in rows[:-1]] == [
        ["build", "live"],
        ["prune", "unpublished"],
        ["audit", "live"],
        ["audit", "repaired"],
    ]
    assert rows[1][6] == "merge-bot"
    assert history.out.splitlines()[-1] == "4 entries"


def test_what_was_live_on_a_date_is_answered(repository: Repository) -> None:
    for day, result in (("01", "live"), ("03", "rejected"), ("05", "unpublished")):
        time = f"2026-03-{day}T10:00:00Z"
        entry = {"action": "build", "model": "a", "key": "k", "result": result}
        Journal(repository.root, lambda: "Ada", lambda time=time: time).enter(entry)

    def live_on(date: str) -> list[str]:
        ran = repository.run("history", "--on", date)
        assert ran.code == 0, ran.err
        return ran.out.splitlines()

    assert live_on("2026-03-01")[0].split()[:4] == ["a", "live", "since", "2026-03-01T10:00:00Z"]
    assert live_on("2026-03-01T12:00+03:00")[-1] == "0 models live at 2026-03-01T09:00:00Z"
    assert live_on("2026-03-04")[-1] == "1 model live at 2026-03-04T23:59:59Z"
    assert live_on("2026-03-05")[-1] == "0 models live at 2026-03-05T23:59:59Z"
    assert repository.run("history", "--on", "yesterday").code == 64
    assert repository.run("history", "b").code == 64


def test_a_journal_cut_at_its_end_is_missed_by_git_and_by_the_record(synced: Repository) -> None:
    file = journal_of(synced)
    lines = file.read_bytes().splitlines(keepends=True)
    path = " ".join(str(file.relative_to(synced.root)).split()[:2])
    model = json.loads(lines[-1])["model"]
    file.write_bytes(b"".join(lines[:-1]))

    cut = found(audit(synced))
    file.unlink()
    gone = found(audit(synced))

    assert cut == {("-", path, "file"), (model, "journal", "live")}
    assert {("-", path, "file")} | {(name, "journal", "live") for name in digests(synced)} <= gone


def test_a_journal_written_anew_with_git_s_history_is_missed_by_mlflow(synced: Repository) -> None:
    before = chain.read(synced.root).entries
    journal_of(synced).unlink()
    forged = Journal(synced.root, lambda: "Somebody else", lambda: before[0].time)
    for one in before:
        texts = ("commit", "action", "model", "key", "model_digest", "result", "provenance")
        forged.enter({name: getattr(one, name) for name in texts})
    synced.git("add", "-A")
    synced.git("commit", "-q", "--amend", "-m", "built")

    told = audit(synced)

    assert {one["field"] for one in told["differences"]} == {"registry.journal"}
    assert {one["found"] for one in told["differences"]} == {one.digest for one in before[:-1]}


def test_what_another_branch_has_entered_is_not_missed(synced: Repository) -> None:
    synced.git("switch", "-qc", "side")
    file = journal_of(synced)
    synced.git("switch", "-q", "main")
    synced.git("rm", "-q", str(file.relative_to(synced.root)))
    synced.git("commit", "-q", "--amend", "-m", "built elsewhere")

    told = audit(synced)

    assert {(one["where"], one["field"]) for one in told["differences"]} == {("journal", "live")}


def test_a_journal_that_cannot_be_written_stops_a_sync_before_it_builds(
    synced: Repository,
) -> None:
    before = digests(synced)
    synced.edit(MERGE, "weight: 0.8", "weight: 0.6")
    synced.git("rm", "-qr", "journal")
    (synced.root / "journal").write_text("not a folder")

    ran = synced.run("sync")

    assert ran.code == 1
    assert "journal: expected a folder, found something else" in ran.err
    assert "both-skills  build" not in ran.err
    assert digests(synced) == before


def test_two_syncs_at_once_leave_one_whole_journal(synced: Repository) -> None:
    synced.edit(MERGE, "weight: 0.8", "weight: 0.6")
    synced.edit("catalog/merges/average.yaml", "method: linear", "method: linear  # the same")
    running = [
        subprocess.Popen(
            [*REGISTRY, "sync"], cwd=synced.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]

    for one in running:
        one.communicate(timeout=120)

    assert [one.returncode for one in running] == [0, 0]
    known = chain.read(synced.root)
    assert known.flaws == ()
    assert [one.model for one in known.entries][4:] == ["both-skills"]
    assert audit(synced)["differences"] == []


def test_mlflow_out_of_reach_is_told_with_the_way_out(synced: Repository) -> None:
    ran = synced.run("audit", "--fix", MLFLOW_TRACKING_URI="http://127.0.0.1:9")

    assert ran.code == 75
    assert ran.out == ""
    assert "MLflow at http://127.0.0.1:9: connection refused" in ran.err
    assert "hint: check MLFLOW_TRACKING_URI" in ran.err


def test_the_searches_of_the_docs_answer_in_mlflow(synced: Repository) -> None:
    page = (Path(__file__).parents[2] / "docs/audit.md").read_text("utf-8")
    client = client_of(synced)
    experiments = [one.experiment_id for one in client.search_experiments()]

    def runs(search: str) -> set[str]:
        assert f"\n    {search}\n" in page
        return {run.data.tags["registry.model"] for run in client.search_runs(experiments, search)}

    kinds = {
        path.stem: json.loads(path.read_text())["request"]["recipe"]["terms"]
        for path in (synced.root / "catalog/builds").glob("*.json")
    }

    def using(name: str, version: int, *, negative: bool = False) -> set[str]:
        return {
            model
            for model, terms in kinds.items()
            for term in terms
            if (term["input"]["name"], term["input"]["version"]) == (name, version)
            and (not negative or term["weight"] < 0)
        }

    assert runs("tags.`uses.brief:v1` LIKE '%'") == using("brief", 1) != set()
    assert runs("tags.`negates.brief:v1` LIKE '%'") == using("brief", 1, negative=True) != set()
    assert runs("tags.`registry.negates` = 'true'") == {"formal-not-brief"}
    assert runs("tags.`contains.brief:v1` LIKE '%'") == set()
    found_by_version = client.search_model_versions("tags.`uses.brief:v1` LIKE '%'")
    assert {one.name for one in found_by_version} == using("brief", 1)
