"""A method that an installed package brings: real metadata on the path, real processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Repository

ENTRY: dict[str, Any] = {
    "description": "Half of the weighted sum.",
    "x-formula": "base + share · Σ wᵢτᵢ",
    "x-source": "this test",
    "x-weights": True,
    "x-symmetric": True,
    "x-terms": 1,
    "x-unit": "block",
    "properties": {
        "share": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "default": 0.5,
            "description": "Share of the sum.",
        }
    },
}
CODE = """
from pathlib import Path
Path(__file__).with_name("imported").touch()
def merge(values, weights, parameters):
    total = values[0].clone()
    for value in values[1:]:
        total += value
    SHAPES
    return total * parameters["share"]
"""
MERGE = "catalog/merges/both-skills.yaml"


def install(site: Path, *, version: str = "1.0", entry: Any = ENTRY, shapes: str = "") -> None:
    """Install the package `halving` with the method `halve`, as pip would leave it."""
    package = site / "halving"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(CODE.replace("SHAPES", shapes), "utf-8")
    (package / "halve.method.json").write_text(json.dumps(entry), "utf-8")
    for old in site.glob("halving-*.dist-info"):
        old.rename(site / f"halving-{version}.dist-info")
    info = site / f"halving-{version}.dist-info"
    info.mkdir(exist_ok=True)
    head = f"Metadata-Version: 2.1\nName: halving\nVersion: {version}\n"
    (info / "METADATA").write_text(head, "utf-8")
    points = "[merge_registry.methods]\nhalve = halving:merge\n"
    (info / "entry_points.txt").write_text(points, "utf-8")


class Halving:
    """The example catalog, one merge of which uses the package's method."""

    def __init__(self, repository: Repository, site: Path) -> None:
        self.repository = repository
        self.site = site
        install(site)
        repository.edit(MERGE, "task_arithmetic", "halve")

    def run(self, *arguments: str) -> Any:
        root = Path(__file__).parents[1]
        return self.repository.run_anew(*arguments, PYTHONPATH=f"{self.site}:{root}")

    @property
    def is_imported(self) -> bool:
        return (self.site / "halving/imported").exists()

    def record(self, model: str) -> dict[str, Any]:
        path = self.repository.root / f"catalog/builds/{model}.json"
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return found


@pytest.fixture
def halving(repository: Repository, tmp_path: Path) -> Halving:
    return Halving(repository, tmp_path / "site")


@pytest.mark.slow
def test_a_packages_method_is_planned_without_importing_it_and_built_with_its_numbers(
    halving: Halving,
) -> None:
    path = halving.repository.root / "catalog/merges/half.yaml"
    text = (halving.repository.root / MERGE).read_text("utf-8")
    half = text.replace("name: both-skills", "name: half")
    path.write_text(
        half.replace("method: halve", "method: task_arithmetic\n  parameters: {lambda: 0.5}")
    )

    assert halving.run("validate").code == 0
    planned = halving.run("plan", "both-skills")
    assert "both-skills  build  never-built" in planned.out
    assert not halving.is_imported

    ran = halving.run("sync", "both-skills", "half")
    assert ran.code == 0, ran.err
    built = halving.record("both-skills")
    assert built["request"]["recipe"]["package"] == {"name": "halving", "version": "1.0"}
    assert built["request"]["recipe"]["parameters"] == {"share": 0.5}
    # Half of a sum is the sum of halves, to the bit.
    assert built["model_digest"] == halving.record("half")["model_digest"]

    install(halving.site, version="1.1")
    planned = halving.run("plan", "both-skills")
    assert "recipe-changed: recipe.package.version 1.0 -> 1.1" in planned.out


@pytest.mark.slow
def test_a_method_that_takes_tensors_sees_their_shapes(halving: Halving) -> None:
    check = "assert total.dim() == 2 and total.shape[0] in (8, 16, 32), total.shape"
    install(halving.site, entry=ENTRY | {"x-unit": "tensor"}, shapes=check)

    ran = halving.run("sync", "both-skills")

    assert ran.code == 0, ran.err


@pytest.mark.parametrize("unit", ["block", "tensor"])
def test_a_tensor_without_elements_is_not_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    from schemas import plugins
    from tests import merging, tiny

    install(tmp_path / "site", entry=ENTRY | {"x-unit": unit}, shapes="assert total.numel()")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "halving", raising=False)
    plugins.find.cache_clear()

    def model(name: str, value: float) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        tiny.write_json(folder / "config.json", {"model_type": "llama"})
        arrays = {"a.none": np.zeros((0, 4), np.float32), "b.one": np.float32([value])}
        tiny.write_safetensors(folder / "model.safetensors", arrays)
        return folder

    base, terms = model("base", 1.0), [merging.TermOf(model("tuned", 3.0), 1.0, "checkpoint")]
    data = merging.request_of(base, terms)
    package = {"name": "halving", "version": "1.0"}
    data["recipe"] |= {"method": "halve", "package": package, "parameters": {"share": 0.5}}
    try:
        merging.build_request(tmp_path / "out", data, merging.inputs_of(base, terms))
    finally:
        plugins.find.cache_clear()
        sys.modules.pop("halving", None)

    built = tiny.read_tensors(tmp_path / "out")
    assert built["a.none"].shape == (0, 4)
    assert built["b.one"].tolist() == [2.0]


@pytest.mark.slow
def test_a_result_of_another_shape_stops_the_build_by_name(halving: Halving) -> None:
    install(halving.site, shapes="return total[1:]")

    ran = halving.run("sync", "both-skills")

    assert ran.code == 1
    assert "the method halve returned torch.float32 of shape" in ran.err + ran.out


def test_a_package_that_is_gone_or_broken_is_named(halving: Halving) -> None:
    assert halving.run("validate").code == 0

    (halving.site / "halving/halve.method.json").unlink()
    ran = halving.run("validate")
    message = "recipe.method: package halving: expected the file halve.method.json beside"
    assert ran.code == 1
    assert message in ran.out + ran.err

    install(halving.site, entry=ENTRY | {"x-unit": "row"})
    ran = halving.run("validate")
    assert "halve.method.json: x-unit: expected block or tensor, found 'row'" in ran.out + ran.err

    (halving.site / "halving-1.0.dist-info/entry_points.txt").unlink()
    ran = halving.run("validate")
    assert ran.code == 1
    assert 'found "halve"' in ran.out + ran.err


def test_a_packages_parameter_is_held_to_its_range_in_schedules_too(halving: Halving) -> None:
    schedule = "method: halve\n  parameters: {share: {layers: [0.5, 1.5]}}"
    halving.repository.edit(MERGE, "method: halve", schedule)

    ran = halving.run("validate")

    assert ran.code == 1
    field = "recipe.parameters.share.layers[1]"
    assert f"{field}: expected a number in (0, 1], found 1.5" in ran.out + ran.err


def test_the_worker_refuses_another_version_than_the_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from merger import request
    from merger.errors import InputError
    from schemas import plugins
    from tests import merging, tiny

    install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    plugins.find.cache_clear()
    base = tiny.tiny_base(tmp_path / "base")
    adapter = tiny.tiny_adapter(tmp_path / "adapter", base=base, seed=1)
    data = merging.request_of(base, [merging.TermOf(adapter)])
    data["recipe"] |= {"method": "halve", "parameters": {"share": 0.5}}
    data["recipe"]["package"] = {"name": "halving", "version": "0.9"}

    with pytest.raises(InputError, match=r"found \{'name': 'halving', 'version': '1.0'\}") as error:
        request.parse(data)

    assert error.value.field == "recipe.package"
    plugins.find.cache_clear()
