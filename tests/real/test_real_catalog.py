"""The repository's own catalog, for real: the subtraction is built, judged, exported and asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Repository

HERE = Path(__file__).resolve().parents[2]
BASE = HERE / "catalog/bases/smollm2-135m-instruct/weights/model.safetensors"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.real,
    pytest.mark.skipif(not BASE.exists(), reason="needs the real base model: make base"),
]


@pytest.fixture
def own(tmp_path: Path) -> Repository:
    """Return a repository with a copy of our own catalog, without what was built of it."""
    from registry import founding

    root = tmp_path / "own"
    founding.found(root)
    ignored = shutil.ignore_patterns("builds")
    shutil.copytree(HERE / "catalog", root / "catalog", ignore=ignored, dirs_exist_ok=True)
    repository = Repository(root)
    repository.commit("start")
    return repository


def test_the_subtraction_keeps_the_skill_and_loses_the_shouting(own: Repository) -> None:
    assert own.run("validate").code == 0

    ran = own.run("sync", "polite-notes")

    assert ran.code == 0, ran.out + ran.err
    record = json.loads((own.root / "catalog/builds/polite-notes.json").read_text())
    loud = record["evaluation"]["baselines"]["adapter notes-loud@1"]
    metrics = record["evaluation"]["metrics"]
    assert loud["shout"] > 0.8
    assert metrics["shout"] <= 0.1
    assert metrics["notes"] >= 0.9 * loud["notes"] > 0
    assert record["peak_bytes"] <= 1_000_000_000

    (answers,) = (own.root / ".registry/mlartifacts").rglob("report/evaluation.json")
    assert len(json.loads(answers.read_text())["prompts"]["notes"]) == 8

    assert own.run("export", "polite-notes", "out").code == 0
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(own.root / "out")
    model = AutoModelForCausalLM.from_pretrained(own.root / "out")
    question = [
        {"role": "user", "content": "Note this meeting. On Tuesday I see David in the park."}
    ]
    tokens = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    made = model.generate(**tokens, max_new_tokens=20, do_sample=False)
    answer = tokenizer.decode(made[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer.strip() == "Meeting with David on Tuesday in the park."

    shown = own.run("quality", "polite-notes", "--format", "json")
    told = {one["task"]: one for one in json.loads(shown.out)["tasks"]}
    assert told["notes"]["retention"] >= 0.9
    assert told["shout"]["base"] == 0
    assert told["notes"]["base"] == 0

    found = own.run("tune", "polite-notes", "--evaluations", "2", "--format", "json")
    assert found.code == 0, found.err
    tuned = json.loads(found.out)
    assert [row["values"] for row in tuned["candidates"]] == [
        {"weight of shout": -1.0},
        {"weight of shout": -0.75},
    ]
    (alone,) = tuned["references"][1:]
    assert alone["search"]["metrics"]["shout"] > 0.5
    # The declared weight is one of those that were tried, and the same numbers came out.
    assert tuned["candidates"][1]["search"]["metrics"] == tuned["declared"]["search"]["metrics"]

    # A weaker subtraction is stopped by its gate; what was published stays live.
    own.edit("catalog/merges/polite-notes.yaml", "weight: -0.75", "weight: 0.0")
    stopped = own.run("sync", "polite-notes")
    assert stopped.code == 1
    assert "gate failed: " in stopped.out
    assert "stays live" in stopped.err
    after = json.loads((own.root / "catalog/builds/polite-notes.json").read_text())
    assert after["model_digest"] == record["model_digest"]
    assert not all(verdict["passed"] for verdict in after["rejected"]["verdicts"])
    again = own.run("plan", "polite-notes")
    assert "gate-failed-before" in again.out
    assert "shout 0.875, wanted ≤ 0.1: failed" in own.run("explain", "polite-notes").out
