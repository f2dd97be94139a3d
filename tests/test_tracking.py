from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry import pictures, tracking, tracking_place, tracking_text
from registry.errors import NotNow
from registry.tracked import RunLog, tags, weight_metric
from registry.tracking import BuildLog, Logged, Operand, Tracker
from registry.tracking_session import Session
from tests.conftest import Repository
from tests.servers import mlflow_server

BASE = Operand("base", "smollm2", None, "sha256:" + "b" * 64)
SQL = Operand("adapter", "sql", 1, "sha256:" + "1" * 64, 1.0)
SHOUT = Operand("adapter", "shout", 2, "sha256:" + "2" * 64, -0.5)
MATHS = Operand("checkpoint", "math-ft", 1, "sha256:" + "3" * 64, 0.4, "layers [0.2, 0.6]")
STATISTICS = {
    "terms": [{"term": "adapter sql@1"}, {"term": "adapter shout@2"}],
    "cosines": [[1.0, 0.25], [0.25, 1.0]],
    "sign_conflict": 0.5,
    "tensors": {
        "columns": ["elements", "delta_norm", "nonzero", "sign_conflict", "terms", "norms"],
        "rows": {"model.layers.0.mlp.up_proj.weight": [8, 1.0, 1.0, 0.5, [0, 1], [3.0, 1.0]]},
    },
}


def build_of(number: int, model: str = "office", **changes: Any) -> BuildLog:
    build = BuildLog(
        model=model,
        key=f"sha256:{number:064x}",
        model_digest=f"sha256:{number + 0x1000:064x}",
        artifact_digest=f"sha256:{number + 0x2000:064x}",
        expression="smollm2 + 1.0 sql@1 - 0.5 shout@2 + 0.4 math-ft@1",
        commit="0123456789abcdef0123456789abcdef01234567+dirty",
        method="ties",
        base=BASE,
        operands=(SQL, SHOUT, MATHS),
        contains={},
        params={"parameters.density": "0.2"},
        metrics={"eval.office.sql": 0.75, "merge.norm": 12.5},
        files={"lineage/recipe.json": b'{"seed": 0}', "report/build.json": b"{}"},
        source="catalog/builds/office.dvc",
        description="SQL without shouting.",
        owner="platform-ml",
        labels={"team": "search"},
    )
    return dataclasses.replace(build, **changes)


@pytest.fixture(autouse=True)
def _environment_as_before() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with tables and nothing in them: making those takes seconds."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    Tracker(f"sqlite:///{file}", "unused").store_id()
    return file


@pytest.fixture
def uri(tmp_path: Path, empty_store: Path) -> str:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.0])
def test_a_store_whose_making_was_killed_is_made_by_the_next(
    tmp_path: Path, seconds: float
) -> None:
    file = tmp_path / "mlflow.db"
    work = f"from registry.tracking import Tracker; Tracker('sqlite:///{file}', 'x').store_id()"
    process = subprocess.Popen([sys.executable, "-c", work], stderr=subprocess.DEVNULL)
    while process.poll() is None and not has_begun(tmp_path):
        time.sleep(0.005)
    time.sleep(seconds)
    process.kill()
    process.wait()

    assert Tracker(f"sqlite:///{file}", "x").store_id()

    assert {path.name for path in tmp_path.glob("mlflow.db*")} == {"mlflow.db", "mlflow.db.lock"}


def test_options_in_the_address_of_a_store_are_no_part_of_its_file(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'own.db'}?timeout=20"

    assert Tracker(uri, "x").store_id()

    assert {path.name for path in tmp_path.iterdir()} == {"own.db", "own.db.lock", "mlartifacts"}


def test_the_pages_of_a_store_that_cannot_be_made_are_refused_with_its_address(
    repository: Repository,
) -> None:
    uri = f"sqlite:///{repository.root / 'README.md' / 'own.db'}"

    ran = repository.run("ui", "--no-browser", MLFLOW_TRACKING_URI=uri)

    assert ran.code == 75
    assert f"MLflow at {uri}: " in ran.err
    assert "check MLFLOW_TRACKING_URI" in ran.err


def has_begun(folder: Path) -> bool:
    """Return whether any file of a store in a folder holds something."""
    sizes = []
    for path in folder.glob("mlflow.db*"):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return any(sizes)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, folder / "mlflow.db")
    with mlflow_server(folder, f"sqlite:///{folder / 'mlflow.db'}") as pages:
        yield pages.url.partition("/#")[0]


def client_of(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def runs_of(uri: str, wanted: str = "", experiment: str = "merges") -> list[Any]:
    client = client_of(uri)
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id], wanted))


def operands_page(uri: str, name: str) -> Any:
    client = client_of(uri)
    (version,) = client.search_model_versions(f"name = '{name}'")
    return client.get_logged_model(version.source.removeprefix("models:/"))


def check_a_logged_build(uri: str) -> None:
    logged = Tracker(uri, "merges").log(build_of(1))
    again = Tracker(uri, "merges").log(build_of(1))

    client = client_of(uri)
    assert logged == again
    assert [run.info.run_id for run in runs_of(uri)] == [logged.run]
    (version,) = client.search_model_versions("name = 'office'")
    assert (str(version.version), version.run_id) == (logged.version, logged.run)

    run = client.get_run(logged.run)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"base": "smollm2", "method": "ties", "parameters.density": "0.2"}
    assert run.data.metrics == {
        "merge.weight/sql:v1": 1.0,
        "merge.weight/shout:v2": -0.5,
        "merge.weight/checkpoint.math-ft:v1": 0.4,
        "eval.office.sql": 0.75,
        "merge.norm": 12.5,
    }
    for found in (run.data.tags, version.tags):
        assert found.items() >= tags(build_of(1)).items()
    inputs = {model.model_id for model in run.inputs.model_inputs}
    names = ("base.smollm2", "adapter.sql", "adapter.shout", "checkpoint.math-ft")
    assert inputs == {operands_page(uri, name).model_id for name in names}
    (output,) = run.outputs.model_outputs
    assert version.source == f"models:/{output.model_id}"
    kept = client.download_artifacts(logged.run, "lineage/recipe.json")
    assert Path(kept).read_bytes() == b'{"seed": 0}'
    shout = operands_page(uri, "adapter.shout")
    assert [(metric.value, metric.run_id) for metric in shout.metrics] == [(-0.5, logged.run)]


def test_a_build_is_logged_once_with_inputs_output_weights_and_tags(uri: str) -> None:
    check_a_logged_build(uri)


@pytest.mark.slow
def test_a_server_gets_the_same_as_a_file(server: str, capfd: pytest.CaptureFixture[str]) -> None:
    check_a_logged_build(server)

    assert capfd.readouterr().out == "", "standard output is for results"


def artifacts_of(uri: str, run: str, folder: str) -> list[str]:
    return [file.path for file in client_of(uri).list_artifacts(run, folder)]


def test_pictures_are_artifacts_and_are_drawn_once(uri: str) -> None:
    drawn = []

    def draw() -> dict[str, bytes]:
        drawn.append("once")
        return pictures.of_report("office", {"statistics": STATISTICS})

    logged = Tracker(uri, "merges").log(build_of(1, pictures=draw))
    Tracker(uri, "merges").log(build_of(1, pictures=draw))

    assert drawn == ["once"]
    names = ("cosines.png", "cosines.svg", "figures.json", "norms.png", "norms.svg")
    conflict = ("sign-conflict.png", "sign-conflict.svg")
    listed = artifacts_of(uri, logged.run, "analysis")
    assert listed == [f"analysis/{name}" for name in (*names, *conflict)]
    kept = Path(client_of(uri).download_artifacts(logged.run, "analysis"))
    assert b"sql@1</text>" in (kept / "cosines.svg").read_bytes()
    assert json.loads((kept / "figures.json").read_bytes())["cosines"] == STATISTICS["cosines"]
    assert artifacts_of(uri, logged.run, "report") == ["report/build.json"]


@pytest.mark.parametrize("report", [{}, {"statistics": {}}, {"statistics": {"terms": 1}}])
def test_a_build_without_pictures_is_logged(uri: str, report: dict[str, Any]) -> None:
    build = build_of(1, pictures=lambda: pictures.of_report("office", report))

    logged = Tracker(uri, "merges").log(build)

    assert artifacts_of(uri, logged.run, "analysis") == []
    assert client_of(uri).get_run(logged.run).info.status == "FINISHED"


def test_the_tags_are_those_of_the_design() -> None:
    build = build_of(
        1,
        operands=(
            SQL,
            SHOUT,
            MATHS,
            Operand("merge", "coding", None, "sha256:" + "4" * 64, 0.5),
        ),
        contains={"py:v3": "coding > py@3"},
    )

    assert tags(build) == {
        "registry.kind": "merge",
        "registry.model": "office",
        "registry.key": build.key,
        "registry.model_digest": build.model_digest,
        "registry.artifact_digest": build.artifact_digest,
        "registry.commit": build.commit,
        "registry.expression": build.expression,
        "registry.source": "catalog/builds/office.dvc",
        "registry.negates": "true",
        "uses.sql:v1": "1",
        "uses.shout:v2": "-0.5",
        "negates.shout:v2": "-0.5",
        "uses.checkpoint.math-ft:v1": "0.4",
        "uses.merge.coding": "0.5",
        "contains.py:v3": "coding > py@3",
    }


def test_an_operand_without_weight_is_still_counted_on_its_page() -> None:
    operand = dataclasses.replace(SQL, weight=None)

    assert weight_metric(operand) == ("merge.uses/sql:v1", 1.0)
    assert tags(build_of(1, operands=(operand,)))["uses.sql:v1"] == "none"
    assert tags(build_of(1, operands=(operand,)))["registry.negates"] == "false"


def test_who_uses_an_adapter_can_be_searched(uri: str) -> None:
    tracker = Tracker(uri, "merges")
    tracker.log(build_of(1))
    tracker.log(build_of(2, "other", operands=(SQL,)))
    tracker.log(build_of(3, "third", operands=(SHOUT,)))

    users = runs_of(uri, "tags.`uses.sql:v1` LIKE '%'")
    negated = runs_of(uri, "tags.registry.negates = 'true'")
    versions = client_of(uri).search_model_versions("tags.`uses.shout:v2` LIKE '%'")

    assert {run.data.tags["registry.model"] for run in users} == {"office", "other"}
    assert {run.data.tags["registry.model"] for run in negated} == {"office", "third"}
    assert {version.name for version in versions} == {"office", "third"}


def test_the_newest_build_is_live_and_the_one_before_is_previous(uri: str) -> None:
    tracker = Tracker(uri, "merges")

    first, second = tracker.log(build_of(1)), tracker.log(build_of(2))

    model = client_of(uri).get_registered_model("office")
    assert {name: str(number) for name, number in model.aliases.items()} == {
        "live": second.version,
        "previous": first.version,
    }


def test_a_build_that_comes_back_is_live_again_without_a_new_run(uri: str) -> None:
    tracker = Tracker(uri, "merges")
    first, second = tracker.log(build_of(1)), tracker.log(build_of(2))

    back = tracker.log(build_of(1))

    assert back == first
    assert len(runs_of(uri)) == 2
    model = client_of(uri).get_registered_model("office")
    assert str(model.aliases["live"]) == first.version
    assert str(model.aliases["previous"]) == second.version
    assert f"[version {first.version}]" in model.description


def test_two_models_of_one_key_have_a_version_each(uri: str) -> None:
    tracker = Tracker(uri, "merges")

    one, other = tracker.log(build_of(1, "one")), tracker.log(build_of(1, "other"))

    assert one.run != other.run
    assert len(runs_of(uri)) == 2


def test_a_run_that_a_crash_left_half_made_is_taken_up(uri: str, tmp_path: Path) -> None:
    broken = Tracker(uri, "merges")
    broken.store_id()
    obstacle = tmp_path / "mlartifacts"
    obstacle.rmdir()
    obstacle.write_text("a file where a folder belongs")
    with pytest.raises(NotNow):
        broken.log(build_of(1))
    (half,) = runs_of(uri)
    assert half.info.status == "RUNNING"
    obstacle.unlink()

    logged = Tracker(uri, "merges").log(build_of(1))

    assert logged.run == half.info.run_id
    run = client_of(uri).get_run(logged.run)
    assert len(run.inputs.model_inputs) == 4
    assert len(run.outputs.model_outputs) == 1
    history = client_of(uri).get_metric_history(logged.run, "merge.weight/shout:v2")
    assert [point.value for point in history] == [-0.5]
    assert len(client_of(uri).search_logged_models([run.info.experiment_id])) == 5


def test_what_a_crash_left_without_a_version_is_not_made_twice(uri: str) -> None:
    tracker = Tracker(uri, "merges")
    logged = tracker.log(build_of(1))
    client = client_of(uri)
    client.delete_registered_model("office")
    client.delete_registered_model("adapter.sql")

    again = Tracker(uri, "merges").log(build_of(1))

    assert again.run == logged.run
    assert len(runs_of(uri)) == 1
    assert operands_page(uri, "adapter.sql").metrics


def test_a_merge_as_operand_is_the_version_of_its_digest(uri: str) -> None:
    tracker = Tracker(uri, "merges")
    coding = build_of(5, "coding", operands=(SQL,))
    tracker.log(coding)
    operand = Operand("merge", "coding", None, coding.model_digest, 0.5)
    unknown = Operand("merge", "elsewhere", None, "sha256:" + "9" * 64, 0.25)

    logged = tracker.log(build_of(6, operands=(operand, unknown)))

    run = client_of(uri).get_run(logged.run)
    assert {model.model_id for model in run.inputs.model_inputs} == {
        operands_page(uri, "base.smollm2").model_id,
        operands_page(uri, "coding").model_id,
    }
    assert run.data.metrics["merge.weight/merge.coding"] == 0.5
    assert run.data.metrics["merge.weight/merge.elsewhere"] == 0.25


def test_another_version_of_an_adapter_stands_under_the_same_name(uri: str) -> None:
    newer = dataclasses.replace(SQL, version=2, digest="sha256:" + "8" * 64)
    tracker = Tracker(uri, "merges")

    tracker.log(build_of(1))
    tracker.log(build_of(2, operands=(newer,)))

    found = client_of(uri).search_model_versions("name = 'adapter.sql'")
    assert {version.tags["registry.version"] for version in found} == {"1", "2"}
    text = client_of(uri).get_registered_model("adapter.sql").description
    assert "adapter sql@1" in text
    assert "adapter sql@2" in text


def test_a_judgement_that_comes_later_joins_the_same_run_and_model(uri: str) -> None:
    tracker = Tracker(uri, "merges")
    logged = tracker.log(build_of(1))

    tracker.log_later(logged, {"eval.office.sql": 0.5}, {"quality/a.md": b"a"}, "office")

    client = client_of(uri)
    assert client.get_run(logged.run).data.metrics["eval.office.sql"] == 0.5
    assert "quality/a.md" in [file.path for file in client.list_artifacts(logged.run, "quality")]
    values = {
        metric.value
        for metric in operands_page(uri, "office").metrics
        if metric.key == "eval.office.sql"
    }
    assert 0.5 in values


def test_an_unpublished_model_is_not_live_and_says_so(uri: str) -> None:
    tracker = Tracker(uri, "merges")
    tracker.log(build_of(1))

    tracker.unpublish("office")
    tracker.unpublish("office")
    tracker.unpublish("never-heard-of")

    model = client_of(uri).get_registered_model("office")
    assert "live" not in model.aliases
    assert model.description.startswith("**Not published.** What it was:\n\n`office = ")

    tracker.log(build_of(1))
    model = client_of(uri).get_registered_model("office")
    assert str(model.aliases["live"]) == "1"
    assert model.description.startswith("Live: [version 1]")


def search_of(**changes: Any) -> RunLog:
    points = [("search.sql", step, value) for step, value in ((1, 0.1), (2, 0.6), (3, 0.9))]
    log = RunLog(
        name="office grid",
        tags={"registry.kind": "search", "registry.model": "office"},
        params={"strategy": "grid"},
        points=(*points, ("held_out.tuned.sql", 0, 0.8)),
        files={"search/report.md": b"x\n"},
    )
    return dataclasses.replace(log, **changes)


def test_a_search_is_one_run_with_a_step_for_each_candidate(uri: str) -> None:
    run_id = Tracker(uri, "merges").log_run(search_of())

    client = client_of(uri)
    points = [(p.step, p.value) for p in client.get_metric_history(run_id, "search.sql")]
    assert sorted(points) == [(1, 0.1), (2, 0.6), (3, 0.9)]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"strategy": "grid"}
    assert [file.path for file in client.list_artifacts(run_id, "search")] == ["search/report.md"]


def test_what_is_to_be_there_once_is_not_logged_again(uri: str) -> None:
    tracker = Tracker(uri, "merges")
    log = search_of(tags={"registry.kind": "rejected", "registry.try": "a"}, once="registry.try")

    first = tracker.log_run(log)

    assert tracker.log_run(log) == first
    other = dataclasses.replace(log, tags={**log.tags, "registry.try": "b"})
    assert tracker.log_run(other) != first


def test_an_attempt_that_was_stopped_is_told_on_the_page_until_one_is_published(uri: str) -> None:
    tracker = Tracker(uri, "merges")
    tracker.log(build_of(1))
    before = client_of(uri).get_registered_model("office").description
    log = search_of(tags={"registry.kind": "rejected"})

    for reason in ("sql 0.2 <b>", "sql 0.3, wanted ≥ 0.9: failed"):
        run = tracker.log_rejected(log, "office", reason)

    model = client_of(uri).get_registered_model("office")
    assert str(model.aliases["live"]) == "1"
    first, second = model.description.split("\n\n")[0].split("  \n")
    assert first == before.split("\n\n")[0]
    assert "**The last attempt was not published:** sql 0\\.3, wanted ≥ 0\\.9: failed" in second
    assert f"/runs/{run}?" in second
    tracker.log_rejected(log, "never-heard-of", "no")

    tracker.log(build_of(2))
    assert "not published" not in client_of(uri).get_registered_model("office").description


def test_texts_that_mlflow_would_cut_silently_say_that_they_were_cut(uri: str) -> None:
    build = build_of(1, expression="x" * 9000, params={"long": "y" * 7000})

    logged = Tracker(uri, "merges").log(build)

    run = client_of(uri).get_run(logged.run)
    for text in (run.data.tags["registry.expression"], run.data.params["long"]):
        assert text.endswith("(cut; the whole is in lineage/recipe.json)")


def test_more_operands_than_one_call_takes_are_logged(uri: str) -> None:
    contains = {f"deep-{number}:v1": "coding > x" for number in range(150)}

    logged = Tracker(uri, "merges").log(build_of(1, contains=contains))

    kept = client_of(uri).get_run(logged.run).data.tags
    assert kept["contains.deep-149:v1"] == "coding > x"


def test_the_environment_is_not_pointed_at_our_store(uri: str) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = "http://elsewhere.invalid"

    Tracker(uri, "merges").log(build_of(1))

    assert os.environ["MLFLOW_TRACKING_URI"] == "http://elsewhere.invalid"
    del os.environ["MLFLOW_TRACKING_URI"]
    Tracker(uri, "merges").log(build_of(2))
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_the_id_of_a_store_stays(uri: str) -> None:
    assert Tracker(uri, "merges").store_id() == Tracker(uri, "merges").store_id()


def test_a_server_that_is_down_costs_next_to_nothing_and_no_secret() -> None:
    tracker = Tracker("http://someone:hunter2@127.0.0.1:9", "merges")
    client_of("http://127.0.0.1:9")  # the import is not what is measured
    started = time.monotonic()

    with pytest.raises(NotNow) as caught:
        tracker.log(build_of(1))
    with pytest.raises(NotNow) as second:
        tracker.unpublish("office")

    assert time.monotonic() - started < 5
    assert second.value.message == caught.value.message
    assert "hunter2" not in caught.value.message + caught.value.hint
    assert caught.value.message == "MLflow at http://127.0.0.1:9: connection refused"


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "CALL_SECONDS", 1)
    client_of("http://127.0.0.1:9")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()

        with pytest.raises(NotNow, match="no answer in time"):
            Tracker(f"http://127.0.0.1:{silent.getsockname()[1]}", "merges").store_id()

    assert time.monotonic() - started < 10


def test_waiting_is_bounded_over_all_calls_but_prompt_answers_are_not_waiting() -> None:
    session = Session("http://host", 0.5)
    for _ in range(20):
        session.ask(time.sleep, 0.05)
    session.work(time.sleep, 0.6)
    session.ask(time.sleep, 0.6)

    with pytest.raises(NotNow, match="MLflow at http://host took too long to answer"):
        session.ask(time.sleep, 0)


def test_what_mlflow_refuses_is_trouble_for_now(uri: str) -> None:
    with pytest.raises(NotNow, match="MLflow at sqlite:"):
        Tracker(uri, "").store_id()


def test_the_store_is_a_file_of_the_repository_unless_the_environment_says_otherwise(
    tmp_path: Path,
) -> None:
    assert tracking.default_uri(tmp_path) == f"sqlite:///{tmp_path}/.registry/mlflow.db"

    os.environ["MLFLOW_TRACKING_URI"] = " https://mlflow.example.org "

    assert tracking.default_uri(tmp_path) == "https://mlflow.example.org"


def test_a_store_is_remembered_by_its_address_which_is_not_written_down(tmp_path: Path) -> None:
    secret = "https://user:hunter2@mlflow.example.org"
    assert tracking.known_store(tmp_path, secret) is None

    tracking.remember_store(tmp_path, secret, "id-1")
    tracking.remember_store(tmp_path, "postgresql://x", "id-2")
    written = (tmp_path / ".registry/tracking.json").stat().st_mtime_ns
    tracking.remember_store(tmp_path, secret, "id-1")

    assert tracking.known_store(tmp_path, secret) == "id-1"
    assert tracking.known_store(tmp_path, "postgresql://x") == "id-2"
    assert (tmp_path / ".registry/tracking.json").stat().st_mtime_ns == written
    assert "hunter2" not in (tmp_path / ".registry/tracking.json").read_text()


def test_a_store_in_a_file_is_known_as_long_as_the_file_is_there_wherever_that_is(
    tmp_path: Path,
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    (before / ".registry").mkdir(parents=True)
    (before / ".registry/mlflow.db").touch()
    tracking.remember_store(before, tracking.default_uri(before), "id-1")

    assert tracking.known_store(before, tracking.default_uri(before)) == "id-1"
    before.rename(after)
    assert tracking.known_store(after, tracking.default_uri(after)) == "id-1"
    (after / ".registry/mlflow.db").unlink()
    assert tracking.known_store(after, tracking.default_uri(after)) is None


@pytest.mark.parametrize("text", ["", "[]", "{", "\0"])
def test_a_memory_that_cannot_be_read_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / ".registry").mkdir()
    (tmp_path / ".registry/tracking.json").write_text(text)

    assert tracking.known_store(tmp_path, "postgresql://x") is None


def test_the_pages_of_a_server_are_its_own(tmp_path: Path) -> None:
    pages = tracking.ui_command(tmp_path, "https://user:hunter2@mlflow.example.org/team/")

    assert pages.url == "https://mlflow.example.org/team/#/models?workflowType=machine_learning"
    assert pages.argv == ()


def test_the_pages_of_a_database_are_served_from_here(tmp_path: Path) -> None:
    pages = tracking.ui_command(tmp_path, "postgresql://db/mlflow", 5123)

    assert pages.url == "http://127.0.0.1:5123/#/models?workflowType=machine_learning"
    assert pages.argv[1:] == (
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        "postgresql://db/mlflow",
        "--default-artifact-root",
        str(tmp_path / ".registry" / "mlartifacts"),
        "--host",
        "127.0.0.1",
        "--port",
        "5123",
        "--workers",
        "1",
    )
    assert tracking_place.artifact_folder("postgresql://db/mlflow") is None


def test_the_description_of_a_build_shows_signs_weights_digests_and_commit() -> None:
    build = build_of(1, contains={"py:v3": "coding > py@3"})

    text = tracking_text.of_build(
        build, {"sql:v1": "#/models/adapter.sql/versions/1"}, "#/experiments/1/runs/r"
    )

    mean = "`+0.4` mean of layers \\[0\\.2, 0\\.6\\]"
    lines = [line.replace("&nbsp;&nbsp;&nbsp;", "") for line in text.splitlines()]
    assert lines == [
        "`office = smollm2 + 1.0 sql@1 - 0.5 shout@2 + 0.4 math-ft@1`",
        "",
        "SQL without shouting\\.",
        "",
        "owner: platform\\-ml, team: search",
        "",
        "|  | weight | ingredient | digest |",
        "|:--|:--|:--|:--|",
        f"| base |  | base smollm2 | `{BASE.digest}` |",
        f"| added | `+1` | [adapter sql&#64;1](#/models/adapter.sql/versions/1) | `{SQL.digest}` |",
        f"| **subtracted** | `-0.5` | adapter shout&#64;2 | `{SHOUT.digest}` |",
        f"| added | {mean} | checkpoint math\\-ft&#64;1 | `{MATHS.digest}` |",
        "",
        "&nbsp;",
        "",
        "| further inside | by way of |",
        "|:--|:--|",
        "| py:v3 | coding &gt; py&#64;3 |",
        "",
        "&nbsp;",
        "",
        "| provenance |  |",
        "|:--|:--|",
        "| method | `ties` |",
        "| commit | `0123456789abcdef0123456789abcdef01234567+dirty` |",
        f"| model digest | `{build.model_digest}` |",
        f"| artifact digest | `{build.artifact_digest}` |",
        f"| build key | `{build.key}` |",
        "| bytes | `catalog/builds/office.dvc` |",
        "| run | [inputs, output, metrics, recipe and report](#/experiments/1/runs/r) |",
    ]


def test_what_a_catalog_says_is_never_markup() -> None:
    nasty = "a <script> [x](http://e) `c` | d\n\n# e *f* www.g.h i@j.k ![l](m) & ~~n~~"

    assert tracking_text.escaped(nasty) == (
        "a &lt;script&gt; \\[x\\]\\(http&#58;//e\\) \\`c\\` \\| d \\# e \\*f\\* "
        "ww&#119;\\.g\\.h i&#64;j\\.k \\!\\[l\\]\\(m\\) &amp; \\~\\~n\\~\\~"
    )


def test_an_expression_cannot_leave_its_code_span() -> None:
    text = tracking_text.of_build(build_of(1, expression="a` <b>\n| c"), {})

    assert text.splitlines()[0] == "`office = a' <b> / c`"


def test_a_build_without_words_has_only_its_tables() -> None:
    build = build_of(1, description="", owner="", labels=None)

    text = tracking_text.of_build(build, {})

    assert re.match(r"`office = .*`\n\n\|", text)


def test_the_page_of_a_base_finds_its_merges_by_parameter() -> None:
    text = tracking_text.of_ingredient(BASE, "7", "m-1")

    assert "searchFilter=params.base%20%3D%20%27smollm2%27" in text


def test_a_logged_build_is_what_records_hold() -> None:
    assert json.loads(json.dumps(dataclasses.asdict(Logged("s", "r", "1")))) == {
        "store": "s",
        "run": "r",
        "version": "1",
    }
