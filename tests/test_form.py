"""A built folder against its base: what a worker wrote is not believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry import form
from registry.errors import VerificationFailed
from tests import tiny

MODEL = {"recipe": {}, "output": {"form": "model", "dtype": "base", "max_shard_size": 1}}
ADAPTER = {"output": {"form": "adapter", "dtype": "float32", "rank": 4}}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.tiny_base(tmp_path / "base")


def test_a_model_has_the_tensors_of_its_base(base: Path, tmp_path: Path) -> None:
    good = tiny.tiny_checkpoint(tmp_path / "good", base=base, seed=1)
    bad = tiny.tiny_base(tmp_path / "bad", hidden=32)

    form.check(MODEL, good, base)

    with pytest.raises(VerificationFailed, match=r"tensor model\.embed_tokens\.weight: expected"):
        form.check(MODEL, bad, base)


def test_an_adapter_has_scale_one_and_at_most_the_rank_asked_for(
    base: Path, tmp_path: Path
) -> None:
    good = tiny.tiny_adapter(tmp_path / "good", base=base, seed=1, rank=4, alpha=4)
    scaled = tiny.tiny_adapter(tmp_path / "scaled", base=base, seed=1, rank=4, alpha=8)
    large = tiny.tiny_adapter(tmp_path / "large", base=base, seed=1, rank=5, alpha=5)

    form.check(ADAPTER, good, base)

    for folder, found in ((scaled, "rank 4 and scale 2"), (large, "rank 5 and scale 1")):
        with pytest.raises(VerificationFailed, match=f"found {found}"):
            form.check(ADAPTER, folder, base)


def test_what_cannot_be_opened_is_told_as_what_it_should_be(base: Path, tmp_path: Path) -> None:
    folder = tiny.tiny_adapter(tmp_path / "adapter", base=base, seed=1, alpha=4)
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 3}), "utf-8")

    with pytest.raises(VerificationFailed, match=r"the built adapter cannot be opened: .*rank 3"):
        form.check(ADAPTER, folder, base)
    with pytest.raises(VerificationFailed, match=r"the built model cannot be opened: config\.json"):
        form.check(MODEL, folder, base)
