"""Weights judged by headers and configurations alone, with the whole finding."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry import index as index_module
from registry import weights
from registry.finding import Finding
from registry.index import Index
from registry.weights import (
    check_adapter,
    check_base,
    check_checkpoint,
    check_digest,
    check_vocabulary,
)
from schemas import model
from schemas import vocabulary as vocabulary_module
from schemas.header import TensorInfo
from schemas.model import Located, ModelHeader, read_model
from schemas.vocabulary import read_tokens

Q = "model.layers.0.self_attn.q_proj.weight"
EMBED = "model.embed_tokens.weight"
NORM = "model.norm.weight"
SHAPES = {EMBED: [6, 4], Q: [4, 4], NORM: [4]}
A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")
BYTES = {"F32": 4, "BF16": 2, "I64": 8}


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "SETTLING_NS", 0)


def write_safetensors(path: Path, shapes: dict[str, list[int]], dtype: str = "BF16") -> None:
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        start, size = end, BYTES[dtype]
        for length in shape:
            size *= length
        end = start + size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))


def vocabulary(*tokens: str, added: tuple[str, ...] = ()) -> dict[str, Any]:
    vocab = {token: number for number, token in enumerate(tokens)}
    more = [{"id": len(tokens) + n, "content": token} for n, token in enumerate(added)]
    return {"model": {"type": "BPE", "vocab": vocab}, "added_tokens": more}


def a_model(folder: Path, shapes: dict[str, list[int]] = SHAPES, dtype: str = "BF16") -> Path:
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", shapes, dtype)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    tokenizer = vocabulary("a", "b", "c", added=("<end>",))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def matrix(size: int) -> ModelHeader:
    """Return a base of one square matrix."""
    return ModelHeader({Q: Located("model.safetensors", TensorInfo("F32", (size, size), 0, 0))}, {})


def an_adapter(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    write_safetensors(folder / "adapter_model.safetensors", {A: [2, 4], B: [4, 2]}, "F32")
    plain = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "x"}
    (folder / "adapter_config.json").write_text(json.dumps(plain | config))
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return a_model(tmp_path / "base")


@pytest.fixture
def header(base: Path) -> ModelHeader:
    return read_model(base)


def test_good_weights_have_no_findings(tmp_path: Path, base: Path, header: ModelHeader) -> None:
    adapter = an_adapter(tmp_path / "adapter")
    checkpoint = a_model(tmp_path / "checkpoint", dtype="F32")

    assert check_base(base) == []
    assert check_adapter(adapter, header, base) == []
    assert check_checkpoint(checkpoint, header) == []


def test_without_the_bytes_of_the_base_weights_are_judged_alone(tmp_path: Path) -> None:
    adapter = an_adapter(tmp_path / "adapter")
    checkpoint = a_model(tmp_path / "checkpoint", {"anything": [1]})

    assert check_adapter(adapter, None) == []
    assert check_checkpoint(checkpoint, None) == []


def test_a_stated_digest_is_compared(tmp_path: Path, base: Path) -> None:
    index = Index(tmp_path)
    found = index.folder_digest(base)
    other = "sha256:" + "0" * 64

    assert check_digest(base, found, index) is None
    assert check_digest(base, other, index) == Finding(
        "",
        "",
        f"expected {other}, found {found}",
        "restore the bytes; changed weights are a new version",
    )


def test_what_has_no_digest_is_a_finding(tmp_path: Path, base: Path) -> None:
    (base / "link").symlink_to("config.json")

    found = check_digest(base, "sha256:", Index(tmp_path))

    assert found is not None
    assert (found.file, found.message) == ("link", "expected a file, found a symlink")
    assert found.subject == "link"
    assert check_digest(tmp_path / "nowhere", "sha256:", Index(tmp_path)) == Finding(
        "nowhere", "", "cannot be read: No such file or directory"
    )


def change_json(name: str, **fields: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / name
        data = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(data | fields))

    return change


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (
            lambda folder: (folder / "model.safetensors").unlink(),
            Finding(
                "model.safetensors",
                "",
                "expected this file or model.safetensors.index.json, found neither",
            ),
        ),
        (
            lambda folder: (folder / "config.json").unlink(),
            Finding("config.json", "", "expected this file, found none"),
        ),
        (
            lambda folder: (folder / "pytorch_model.bin").write_bytes(b""),
            Finding(
                "pytorch_model.bin", "", "refused: a pickle file can run code; use safetensors"
            ),
        ),
        (
            change_json("config.json", auto_map={"AutoModel": "x.Y"}),
            Finding("config.json", "auto_map", "refused: it would run code from the model"),
        ),
        (
            change_json("tokenizer_config.json", auto_map={"AutoTokenizer": ["x.Y", None]}),
            Finding(
                "tokenizer_config.json", "auto_map", "refused: it would run code from the model"
            ),
        ),
        (
            lambda folder: write_safetensors(folder / "model.safetensors", {Q: [4]}, "I64"),
            Finding("model.safetensors", f"tensor {Q}", "expected F32, F16 or BF16, found I64"),
        ),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x04."),
            Finding(
                "model.safetensors",
                "",
                "expected a header of at most 8 MiB, found 3015808 bytes",
                "write the file again with the safetensors library",
            ),
        ),
    ],
)
def test_what_is_no_base_is_told(
    base: Path, change: Callable[[Path], object], finding: Finding
) -> None:
    change(base)

    assert check_base(base) == [finding]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert check_base(tmp_path / "nowhere")[0].file == "config.json"


def test_a_tensor_of_a_bad_shape_is_named_with_its_file(base: Path) -> None:
    write_safetensors(base / "model.safetensors", {"x": [1] * 9}, "F32")

    (finding,) = check_base(base)

    assert finding.subject == "model.safetensors: tensor x"
    assert finding.message == "expected at most 8 dimensions below 2**31"


def test_a_checkpoint_has_the_tensors_and_shapes_of_its_base(
    tmp_path: Path, base: Path, header: ModelHeader
) -> None:
    more = {f"extra.{number}.weight": [1] for number in range(5)}
    checkpoint = a_model(tmp_path / "checkpoint", {EMBED: [7, 4], Q: [4, 4], **more})

    assert check_checkpoint(checkpoint, header) == [
        Finding(
            "model.safetensors",
            "",
            f"expected every tensor of the base, 1 missing: {NORM}",
            "a checkpoint holds the whole model",
        ),
        Finding(
            "model.safetensors",
            "",
            "expected only tensors of the base, found 5 more: "
            "extra.0.weight, extra.1.weight, extra.2.weight, …",
        ),
        Finding(
            "model.safetensors",
            f"tensor {EMBED}",
            "expected the base's shape [6, 4], found [7, 4]",
        ),
    ]


def test_a_sharded_checkpoint_is_told_at_its_index(tmp_path: Path, header: ModelHeader) -> None:
    checkpoint = a_model(tmp_path / "checkpoint")
    (checkpoint / "model.safetensors").unlink()
    write_safetensors(checkpoint / "s1.safetensors", {EMBED: [6, 4]})
    write_safetensors(checkpoint / "s2.safetensors", {Q: [4, 5]})
    weight_map = {EMBED: "s1.safetensors", Q: "s2.safetensors"}
    change_json("model.safetensors.index.json", weight_map=weight_map)(checkpoint)

    found = check_checkpoint(checkpoint, header)

    assert [one.file for one in found] == ["model.safetensors.index.json", "s2.safetensors"]


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        (vocabulary("a", "b", "c", added=("<end>", "<pad>")), 'only in {name}: "<pad>" (4)'),
        (vocabulary("a", "b", "c"), 'only in the base: "<end>" (3)'),
        (
            vocabulary("c", "b", "a", added=("<end>",)),
            'token "c" is 0 here and 2 in the base; token "a" is 2 here and 0 in the base',
        ),
        (
            vocabulary("w", "x", "y", added=("z\x1b",)),
            'only in {name}: "w" (0), "x" (1), "y" (2) and 1 more; '
            'only in the base: "a" (0), "b" (1), "c" (2) and 1 more',
        ),
        (
            vocabulary("<end>", "a", "b", added=("c",)),
            'token "<end>" is 0 here and 3 in the base; token "a" is 1 here and 0 in the base; '
            'token "b" is 2 here and 1 in the base; 1 more have other ids',
        ),
        (
            vocabulary("a", "b", "c", added=("<end>", "\x1b[2J" + "x" * 50)),
            'only in {name}: "\\u001b[2J' + "x" * 35 + '…" (4)',
        ),
    ],
)
def test_a_vocabulary_that_differs_is_told_with_its_first_tokens(
    tmp_path: Path, base: Path, header: ModelHeader, tokenizer: dict[str, Any], words: str
) -> None:
    adapter = an_adapter(tmp_path / "adapter")
    checkpoint = a_model(tmp_path / "checkpoint")
    for folder in (adapter, checkpoint):
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))

    (of_checkpoint,) = check_vocabulary(checkpoint, base, "checkpoint a@1")
    (of_adapter,) = check_adapter(adapter, header, base)

    message = "expected the vocabulary of the base: " + words
    assert of_checkpoint == Finding(
        "tokenizer.json",
        "",
        message.format(name="checkpoint a@1"),
        "merge it with `tokenizer: union`, or train with the base's tokenizer",
    )
    assert of_adapter == Finding(
        "tokenizer.json",
        "",
        message.format(name="this folder"),
        "train with the base's tokenizer, or remove this file",
    )


def padded(folder: Path, rows: int) -> Path:
    made = a_model(folder, SHAPES | {EMBED: [rows, 4]})
    change_json("config.json", vocab_size=rows)(made)
    return made


def test_padding_of_another_height_is_no_finding(tmp_path: Path) -> None:
    base = padded(tmp_path / "base", 6)

    for rows in (4, 5, 64):
        checkpoint = padded(tmp_path / str(rows), rows)
        assert check_vocabulary(checkpoint, base, "a@1") == []


def test_rows_that_no_tokenizer_explains_are_told(tmp_path: Path) -> None:
    base = padded(tmp_path / "base", 6)
    few, bare = padded(tmp_path / "few", 3), padded(tmp_path / "bare", 8)
    (bare / "tokenizer.json").unlink()

    (of_few,) = check_vocabulary(few, base, "a@1")
    (of_bare,) = check_vocabulary(bare, base, "a@1")

    assert (of_few.subject, of_few.message) == (
        f"model.safetensors: tensor {EMBED}",
        "expected the base's 6 rows, found 3, too few for 4 tokens",
    )
    assert of_bare.message == (
        "expected the base's 6 rows, found 8, and no tokenizer that tells padding from tokens"
    )
    assert of_bare.hint == "put its tokenizer.json beside it"
    assert check_checkpoint(bare, read_model(base)) == []


def test_a_unigram_vocabulary_is_read_in_the_order_of_ids(base: Path) -> None:
    data = {"model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["a", -1.5]]}}
    (base / "tokenizer.json").write_text(json.dumps(data))

    assert read_tokens(base) == {"<unk>": 0, "a": 1}


def test_a_folder_without_tokenizer_has_no_vocabulary(tmp_path: Path, base: Path) -> None:
    assert read_tokens(tmp_path) is None
    assert read_tokens(base) == {"a": 0, "b": 1, "c": 2, "<end>": 3}


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"model": {"vocab": 3}}', '{"model": []}'])
def test_a_tokenizer_that_is_none_is_told(tmp_path: Path, base: Path, text: str) -> None:
    checkpoint = a_model(tmp_path / "checkpoint")
    (checkpoint / "tokenizer.json").write_text(text)

    (finding,) = check_vocabulary(checkpoint, base, "a@1")

    assert finding.file == "tokenizer.json"
    assert finding.message.startswith("expected ")


def test_the_same_vocabulary_in_other_bytes_is_the_same(tmp_path: Path, base: Path) -> None:
    checkpoint = a_model(tmp_path / "checkpoint")
    data = json.loads((base / "tokenizer.json").read_text())
    (checkpoint / "tokenizer.json").write_text(json.dumps(data, indent=2))

    assert check_vocabulary(checkpoint, base, "a@1") == []


def test_a_corner_of_re_or_json_is_a_finding(tmp_path: Path) -> None:
    adapter = an_adapter(tmp_path / "adapter", rank_pattern={"x{99999999999}": 1})

    (finding,) = check_adapter(adapter, None)

    assert finding.message.startswith(("cannot be understood: ", "expected "))


def test_a_tokenizer_beyond_all_measure_is_not_read(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary_module, "_MOST_JSON_BYTES", 10)
    checkpoint = a_model(tmp_path / "checkpoint")
    (checkpoint / "tokenizer.json").write_text("something that is not the base's")

    assert check_vocabulary(checkpoint, base, "a@1")[0].message == "expected at most 256 MiB"


@pytest.mark.parametrize(
    ("config", "finding"),
    [
        (
            {"use_dora": True},
            Finding(
                "adapter_config.json",
                "use_dora",
                f"expected magnitudes beside {A}, found none",
            ),
        ),
        (
            {"auto_mapping": {"parent_library": "os"}},
            Finding(
                "adapter_config.json", "auto_mapping", "refused: it would run code from the model"
            ),
        ),
        (
            {"r": 4},
            Finding("adapter_model.safetensors", f"tensor {A}", "expected rank 4, found 2 and 2"),
        ),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_told(
    tmp_path: Path, header: ModelHeader, config: dict[str, Any], finding: Finding
) -> None:
    adapter = an_adapter(tmp_path / "adapter", **config)

    assert check_adapter(adapter, header) == [finding]


def test_an_adapter_of_another_base_is_told(tmp_path: Path) -> None:
    adapter = an_adapter(tmp_path / "adapter")

    (finding,) = check_adapter(adapter, matrix(8))

    assert finding == Finding(
        "adapter_model.safetensors",
        f"tensor {A}",
        f"expected a delta of shape [8, 8] for {Q}, found [4, 4]",
    )


def test_an_adapter_without_pairs_is_told_at_its_weights(tmp_path: Path) -> None:
    adapter = an_adapter(tmp_path / "adapter")
    write_safetensors(adapter / "adapter_model.safetensors", {})

    (finding,) = check_adapter(adapter, matrix(8))

    assert finding.file == "adapter_model.safetensors"
    assert "at least one pair" in finding.message


@pytest.mark.parametrize(
    ("change", "file"),
    [
        (lambda folder: (folder / "adapter_model.bin").write_bytes(b""), "adapter_model.bin"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "adapter_config.json"),
        (
            lambda folder: (folder / "adapter_model.safetensors").unlink(),
            "adapter_model.safetensors",
        ),
        (
            lambda folder: write_safetensors(folder / "new_embeddings.safetensors", {"x": [1]}),
            "new_embeddings.safetensors",
        ),
        (change_json("config.json", trust_remote_code=True), "config.json"),
    ],
)
def test_an_adapter_folder_with_less_or_more_is_told(
    tmp_path: Path, header: ModelHeader, change: Callable[[Path], object], file: str
) -> None:
    adapter = an_adapter(tmp_path / "adapter")
    change(adapter)

    assert [finding.file for finding in check_adapter(adapter, header)] == [file]
    assert [finding.file for finding in check_adapter(adapter, None)] == [file]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        st.sampled_from(["peft_type", "r", "lora_alpha", "bias", "rank_pattern", "alpha_pattern"])
        | st.sampled_from(["modules_to_save", "target_parameters", "trainable_token_indices"])
        | st.sampled_from(["init_lora_weights", "use_dora", "fan_in_fan_out", "use_rslora", "x"]),
        st.sampled_from([None, True, 0, -1, 2, 1e308, "", "none", "LORA", "[", [], [[]], {}])
        | st.dictionaries(
            st.sampled_from(["q_proj", "(", "x{99999999999}", ""]), st.integers(0, 3)
        ),
    ),
    st.binary(max_size=30),
)
def test_any_adapter_gives_findings_or_none_but_never_raises(
    tmp_path: Path, config: dict[str, Any], tail: bytes
) -> None:
    adapter = tmp_path / "adapter"
    if not adapter.exists():
        an_adapter(adapter)
    plain = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    text = json.dumps(plain | config).encode() + (tail if len(tail) > 20 else b"")
    (adapter / "adapter_config.json").write_bytes(text)

    found = check_adapter(adapter, matrix(4))

    assert all(finding.message for finding in found)


def test_findings_are_remembered_while_no_file_changes(tmp_path: Path, base: Path) -> None:
    calls: list[int] = []

    def check() -> list[Finding]:
        calls.append(1)
        return [Finding("a", "b", "c", "d")]

    index = Index(tmp_path)
    for context in ("one", "one", "two", "one"):
        found = weights.remembered(index, base, context, check)
        assert found == [Finding("a", "b", "c", "d")]
    assert len(calls) == 2
    (base / "config.json").write_text("{}")
    weights.remembered(index, base, "one", check)
    assert len(calls) == 3


def test_what_cannot_be_listed_is_a_finding_too(tmp_path: Path, base: Path) -> None:
    index = Index(tmp_path)
    (base / "link").symlink_to("/etc")

    assert weights.remembered(index, base, "x", list)[0].message == (
        "expected a file, found a symlink"
    )
    assert weights.remembered(index, tmp_path / "nowhere", "x", list)[0].message == (
        "cannot be read: No such file or directory"
    )


def test_an_unreadable_file_is_a_finding(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(model, "read_model", refuse)

    assert check_base(base) == [Finding("base", "", "cannot be read: Permission denied")]


def test_importing_the_module_imports_no_library_of_tensors() -> None:
    heavy = {"torch", "numpy", "safetensors", "yaml", "jsonschema", "transformers"}
    code = f"import sys, registry.weights; sys.exit(bool({heavy!r} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
