"""What both programs agree on: schemas, canonical JSON, digests, headers, LoRA, schedules."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import schemas
from schemas import canonical, digest, header, lora, model
from schemas.digest import FileHash, TreeError
from schemas.header import HeaderError, TensorInfo, read_header
from schemas.lora import AdapterError, LoraTarget, lora_targets
from schemas.lora_target import Product
from schemas.model import ModelError
from schemas.schedule import count_layers, is_embedding, layer_of, value_at

# --- the JSON Schemas ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", schemas.KINDS)
def test_every_schema_is_a_valid_one_of_draft_2020_12(kind: str) -> None:
    data = schemas.load(kind)

    Draft202012Validator.check_schema(data)
    assert data["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert data["$id"].endswith(f"/{kind}.schema.json")


def _fragments(data: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(data, dict):
        yield path, data
        for key, value in data.items():
            yield from _fragments(value, f"{path}/{key}")
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _fragments(value, f"{path}/{index}")


CONDITIONS = ("/if", "/then", "/else", "/allOf", "/oneOf", "/anyOf", "/not", "/propertyNames")


@pytest.mark.parametrize("kind", schemas.KINDS)
def test_every_property_is_described(kind: str) -> None:
    missing = [
        f"{path}/{name}"
        for path, fragment in _fragments(schemas.load(kind))
        if isinstance(fragment.get("properties"), dict) and not any(c in path for c in CONDITIONS)
        for name, field in fragment["properties"].items()
        if not field.get("description")
    ]

    assert missing == []
    assert schemas.load(kind)["description"]


@pytest.mark.parametrize("kind", schemas.KINDS)
def test_every_pattern_is_anchored_and_said_in_words(kind: str) -> None:
    for path, fragment in _fragments(schemas.load(kind)):
        if isinstance(fragment.get("pattern"), str):
            assert fragment["pattern"].startswith("^"), path
            assert fragment["pattern"].endswith("$"), path
            assert fragment["x-expected"], path


@pytest.mark.parametrize("kind", schemas.KINDS)
def test_every_mapping_refuses_unknown_keys_unless_it_is_free_form(kind: str) -> None:
    free = ("/properties/origin", "/properties/parameters")
    for path, fragment in _fragments(schemas.load(kind)):
        if fragment.get("type") == "object" and not any(c in path for c in CONDITIONS):
            assert "additionalProperties" in fragment or path.endswith(free), path


@pytest.mark.parametrize("kind", schemas.KINDS)
def test_defaults_and_examples_satisfy_their_own_fragment(kind: str) -> None:
    whole = schemas.load(kind)
    for path, fragment in _fragments(whole):
        values = [
            *fragment.get("examples", []),
            *([fragment["default"]] if "default" in fragment else []),
        ]
        for value in values if isinstance(fragment.get("examples", []), list) else []:
            validator = Draft202012Validator({**fragment, "$defs": whole.get("$defs", {})})
            assert list(validator.iter_errors(value)) == [], path


def test_every_method_states_its_facts_and_stands_in_the_list_of_names() -> None:
    recipe = schemas.load("merge")["properties"]["recipe"]

    assert recipe["properties"]["method"]["enum"] == list(schemas.methods())
    for name, facts in schemas.methods().items():
        assert {"x-weights", "x-symmetric", "x-seed", "x-terms"} <= facts.keys(), name
        assert all("default" in field for field in facts["properties"].values()), name
    conditions = [part["if"]["properties"]["method"]["const"] for part in recipe["allOf"]]
    assert conditions == list(schemas.methods())


def test_a_scheduled_parameter_with_limits_states_them_for_schedules_too() -> None:
    for path, fragment in _fragments(schemas.load("merge")):
        if fragment.get("type") == ["number", "object"]:
            assert fragment["else"] == fragment.get("x-range", {}), path


def test_the_versions_are_whole_numbers_from_1() -> None:
    assert schemas.numerics() >= 1
    assert schemas.evaluator() >= 1


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ("yaml", "jsonschema", "numpy", "torch", "click", "safetensors")
    imports = "schemas.canonical, schemas.digest, schemas.lora, schemas.model, schemas.schedule"
    code = f"import sys, {imports}; sys.exit(bool({heavy!r} and set({heavy!r}) & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- canonical JSON --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "text"),
    [  # RFC 8785, appendix B
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("c340000000000000", "-9007199254740992"),
        ("4430000000000000", "295147905179352830000"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("44b52d02c7e14af7", "1.0000000000000001e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef4f", "999999999999999900000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555554", "333333333.33333325"),
        ("41b3de4355555555", "333333333.3333333"),
        ("41b3de4355555556", "333333333.3333334"),
        ("41b3de4355555557", "333333333.33333343"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ],
)
def test_numbers_are_written_as_rfc_8785_writes_them(bits: str, text: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))

    assert canonical.canonical(number).decode() == text


def test_the_example_of_rfc_8785_has_these_bytes() -> None:
    data = json.loads(
        r"""{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
        "literals": [null, true, false]}"""
    )

    assert canonical.canonical(data).decode() == (
        r'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        r'"string":"€$\u000f\nA' + r"'B\"\\\\\"/" + '"}'
    )


def test_keys_are_sorted_by_utf_16_code_units() -> None:
    data = json.loads(
        r"""{"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\ud83d\ude00": 5, "\u0080": 6, "\u00f6": 7}"""
    )

    assert list(json.loads(canonical.canonical(data)).values()) == [2, 4, 6, 7, 1, 5, 3]


def test_one_and_one_point_nothing_are_the_same_bytes() -> None:
    assert canonical.canonical({"a": 1}) == canonical.canonical({"a": 1.0}) == b'{"a":1}'


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**53, -(2**53), {1: 2}])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        canonical.canonical(value)


def test_the_digest_is_the_sha256_of_the_bytes() -> None:
    expected = hashlib.sha256(b'{"a":[1,"\xc3\xa4"]}').hexdigest()

    assert canonical.digest({"a": [1, "ä"]}) == f"sha256:{expected}"


# --- tree digests ----------------------------------------------------------------------------


def test_a_tree_digest_can_be_computed_by_hand(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"xy")
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / ".hidden").write_bytes(b"h")
    (tmp_path / "empty").mkdir()
    empty, xy, h = (hashlib.sha256(content).hexdigest() for content in (b"", b"xy", b"h"))
    by_hand = (
        f'{{".hidden":{{"sha256":"{h}","size":1}},"a.txt":{{"sha256":"{empty}","size":0}},'
        f'"b/x":{{"sha256":"{xy}","size":2}}}}'
    )

    found = digest.tree_digest(digest.hash_folder(tmp_path))

    assert found == "sha256:" + hashlib.sha256(by_hand.encode()).hexdigest()


def test_a_large_file_is_hashed_in_blocks(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "x").write_bytes(content)

    assert digest.hash_file(tmp_path / "x") == FileHash(
        hashlib.sha256(content).hexdigest(), 2_560_000
    )


def test_a_symlink_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "link").symlink_to("/etc/passwd")

    with pytest.raises(TreeError) as caught:
        digest.hash_folder(tmp_path)

    assert str(caught.value) == "sub/link: expected a file, found a symlink"


def test_a_symlink_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)

    with pytest.raises(TreeError, match="loop: expected a file, found a symlink"):
        digest.list_files(tmp_path)


def test_a_git_lfs_pointer_has_no_digest(tmp_path: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
    (tmp_path / "model.safetensors").write_text(text)

    with pytest.raises(TreeError, match="found a Git LFS pointer"):
        digest.list_files(tmp_path)


def test_a_device_or_pipe_has_no_digest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(TreeError, match="pipe: expected a regular file"):
        digest.list_files(tmp_path)


@pytest.mark.parametrize(
    ("path", "is_model"),
    [
        ("config.json", True),
        ("tokenizer.json", True),
        ("tokenizer.model", True),
        ("chat_template.jinja", True),
        ("LICENSE.txt", True),
        ("vocab.txt", True),
        ("model-00001-of-00002.safetensors", True),
        ("model.safetensors.index.json", True),
        ("recipe.json", False),
        ("README.md", False),
        ("modeling_evil.py", False),
        ("sub/config.json", False),
        ("sub/model.safetensors", False),
        ("pytorch_model.bin", False),
    ],
)
def test_a_model_digest_counts_weights_and_what_the_base_gives(path: str, is_model: bool) -> None:
    file = FileHash("0" * 64, 1)

    assert digest.is_model_file(path) is is_model
    assert (digest.model_digest({path: file}) != digest.tree_digest({})) is is_model


# --- headers ---------------------------------------------------------------------------------


def write(path: Path, entries: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    size = len(text) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + text + data)
    return path


def entry(start: int, end: int, shape: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_a_good_header_is_read_in_the_order_of_bytes(tmp_path: Path) -> None:
    entries = {
        "__metadata__": {"format": "pt"},
        "b": entry(8, 12, [2], "BF16"),
        "a": entry(0, 8, [2, 1]),
    }
    path = write(tmp_path / "m.safetensors", entries, bytes(12))
    start = path.stat().st_size - 12

    found = read_header(path)

    assert found == {
        "a": TensorInfo("F32", (2, 1), start, start + 8),
        "b": TensorInfo("BF16", (2,), start + 8, start + 12),
    }
    assert list(found) == ["a", "b"]
    assert found["a"].elements == 2


def test_scalars_and_empty_tensors_are_read(tmp_path: Path) -> None:
    entries = {"s": entry(0, 4, []), "e": entry(4, 4, [0, 3])}

    found = read_header(write(tmp_path / "m.safetensors", entries, bytes(4)))

    assert [found["s"].elements, found["e"].elements] == [1, 0]


def big(count: int) -> bytes:
    return json.dumps({f"t{n}": entry(0, 0, [0]) for n in range(count)}).encode()


HOSTILE: dict[str, tuple[Any, bytes, str]] = {
    "hole": ({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, bytes(12), "tensor b: expected tensors without holes"),
    "hole at the start": ({"a": entry(4, 8, [1])}, bytes(8), "tensor a: expected tensors without holes"),
    "overlap": ({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12), "holes or overlaps"),
    "same bytes twice": ({"a": entry(0, 4, [1]), "b": entry(0, 4, [1])}, bytes(4), "holes or overlaps"),
    "trailing bytes": ({"a": entry(0, 4, [1])}, bytes(5), "bytes in all, found"),
    "missing bytes": ({"a": entry(0, 4, [1])}, bytes(3), "bytes in all, found"),
    "only bytes": ({}, bytes(3), "bytes in all, found"),
    "duplicate": (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4), "found a duplicate"),
    "duplicate inside": (b'{"a":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}}', bytes(4), "found a duplicate"),
    "rank 9": ({"a": entry(0, 4, [1] * 9)}, bytes(4), "expected at most 8 dimensions"),
    "dimension": ({"a": entry(0, 0, [0, 2**31])}, b"", "below 2**31"),
    "negative dimension": ({"a": entry(0, 4, [-1])}, bytes(4), "dimensions"),
    "decimal dimension": ({"a": entry(0, 4, [1.0])}, bytes(4), "dimensions"),
    "boolean dimension": ({"a": entry(0, 4, [True])}, bytes(4), "dimensions"),
    "F64": ({"a": entry(0, 8, [1], "F64")}, bytes(8), "found F64"),
    "F8": ({"a": entry(0, 1, [1], "F8_E4M3")}, bytes(1), "found F8_E4M3"),
    "dtype that is no text": ({"a": entry(0, 4, [1]) | {"dtype": ["F32"]}}, bytes(4), "found ['F32']"),
    "name with a slash": ({"../../x": entry(0, 4, [1])}, bytes(4), "expected a name of letters"),
    "name with a line break": ({"a\n": entry(0, 4, [1])}, bytes(4), "expected a name of letters"),
    "name that is empty": ({"": entry(0, 4, [1])}, bytes(4), "expected a name of letters"),
    "name that is long": ({"a" * 257: entry(0, 4, [1])}, bytes(4), "expected a name of letters"),
    "size of the shape": ({"a": entry(0, 4, [2])}, bytes(4), "that span the shape"),
    "end before start": ({"a": entry(4, 0, [1])}, bytes(4), "that span the shape"),
    "three offsets": ({"a": entry(0, 4, [1]) | {"data_offsets": [0, 4, 8]}}, bytes(4), "two data_offsets"),
    "negative offset": ({"a": entry(-4, 0, [1])}, bytes(4), "two data_offsets"),
    "huge offset": ({"a": entry(2**70, 2**70 + 4, [1])}, bytes(4), "holes or overlaps"),
    "unknown key": ({"a": entry(0, 4, [1]) | {"code": "x"}}, bytes(4), "expected dtype, shape and data_offsets"),
    "missing key": ({"a": {"dtype": "F32"}}, b"", "expected dtype, shape and data_offsets"),
    "entry that is no object": ({"a": 1}, b"", "expected dtype, shape and data_offsets"),
    "list": ([], b"", "expected a JSON object"),
    "no JSON": (b"{", b"", "expected a JSON header"),
    "no UTF-8": (b'{"\xff": 1}', b"", "expected a JSON header"),
    "deep JSON": (b"[" * 100_000 + b"]" * 100_000, b"", "expected a JSON"),
    "long number": (b'{"a": ' + b"9" * 5000 + b"}", b"", "expected a JSON header"),
    "too many tensors": (big(100_001), b"", "expected at most 100000 tensors, found 100001"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_refused(tmp_path: Path, name: str) -> None:
    entries, data, message = HOSTILE[name]
    path = write(tmp_path / "m.safetensors", entries, data)

    with pytest.raises(HeaderError) as caught:
        read_header(path)

    assert message in str(caught.value)
    assert str(caught.value).startswith("m.safetensors: ")


@pytest.mark.parametrize("length", [100, 8 * 2**20 + 1, 2**63, 2**64 - 1])
def test_a_header_longer_than_file_or_limit_is_not_read(tmp_path: Path, length: int) -> None:
    path = write(tmp_path / "m.safetensors", b"{}", length=length)

    with pytest.raises(HeaderError, match="expected a header of at most 8 MiB"):
        read_header(path)


@pytest.mark.parametrize("content", [b"", b"\x02", b"\0" * 7])
def test_a_file_without_a_length_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)

    with pytest.raises(HeaderError):
        read_header(path)


def test_padding_up_to_the_limit_is_read_and_beyond_is_not(tmp_path: Path) -> None:
    assert read_header(write(tmp_path / "a", b"{}".ljust(header.MAX_HEADER_BYTES))) == {}
    with pytest.raises(HeaderError):
        read_header(write(tmp_path / "b", b"{}".ljust(header.MAX_HEADER_BYTES + 1)))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)

    with contextlib.suppress(HeaderError):
        assert isinstance(read_header(path), dict)


# --- models ----------------------------------------------------------------------------------


def a_model(folder: Path, names: str = "ab") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"tie_word_embeddings": true}')
    entries = {name: entry(4 * n, 4 * n + 4, [1]) for n, name in enumerate(names)}
    write(folder / "model.safetensors", entries, bytes(4 * len(names)))
    return folder


def sharded(folder: Path, weight_map: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    for shard, names in (("s1.safetensors", "ab"), ("s2.safetensors", "c")):
        entries = {name: entry(4 * n, 4 * n + 4, [1]) for n, name in enumerate(names)}
        write(folder / shard, entries, bytes(4 * len(names)))
    (folder / digest.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_a_single_file_and_shards_are_read_alike(tmp_path: Path) -> None:
    one = model.read_model(a_model(tmp_path / "one", "abc"))
    two = model.read_model(
        sharded(
            tmp_path / "two", {"a": "s1.safetensors", "b": "s1.safetensors", "c": "s2.safetensors"}
        )
    )

    assert one.shapes == two.shapes == {"a": (1,), "b": (1,), "c": (1,)}
    assert [located.file for located in two.tensors.values()] == ["s1.safetensors"] * 2 + [
        "s2.safetensors"
    ]
    assert (one.tied, two.tied) == (True, False)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (
            {"a": "s1.safetensors", "c": "s2.safetensors"},
            f"s1.safetensors: tensor b is not in {digest.INDEX}",
        ),
        (
            {"a": "s1.safetensors", "b": "s1.safetensors", "d": "s1.safetensors"},
            "tensor d is missing from s1",
        ),
        ({"a": "s3.safetensors"}, "s3.safetensors: cannot be read: No such file"),
        ({"a": "../s1.safetensors"}, "expected the name of a safetensors file"),
        ({"a": "s1.bin"}, "expected the name of a safetensors file"),
        ({"a": 1}, "expected the name of a safetensors file"),
        ([], "weight_map: expected a map of tensor to file"),
        ({}, "expected at least one tensor"),
    ],
)
def test_an_index_that_contradicts_its_shards_is_refused(
    tmp_path: Path, weight_map: Any, message: str
) -> None:
    with pytest.raises(ModelError) as caught:
        model.read_model(sharded(tmp_path / "m", weight_map))

    assert message in str(caught.value)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    folder = sharded(
        tmp_path / "m", {"a": "s1.safetensors", "b": "s1.safetensors", "c": "s2.safetensors"}
    )
    write(folder / "s2.safetensors", {"a": entry(0, 4, [1])}, bytes(4))

    with pytest.raises(ModelError, match=r"tensor a stands in s1\.safetensors too"):
        model.read_model(folder)


@pytest.mark.parametrize("name", ["x.bin", "deep/er/x.PT", "x.pkl", "training_args.bin", "x.ckpt"])
def test_a_pickle_is_refused_wherever_it_lies(tmp_path: Path, name: str) -> None:
    folder = a_model(tmp_path / "m")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"\x80\x04.")

    with pytest.raises(ModelError, match="a pickle file can run code"):
        model.read_model(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"auto_map": {"AutoModel": "evil.Model"}}', "config.json: auto_map: refused"),
        ('{"trust_remote_code": true}', "config.json: trust_remote_code: refused"),
        ('{"auto_mapping": {"parent_library": "os"}}', "config.json: auto_mapping: refused"),
        ("[]", "config.json: expected a JSON object"),
        ("{", "config.json: expected a JSON object"),
        ("[" * 100_000, "config.json: expected a JSON object"),
    ],
)
def test_a_config_that_would_run_code_or_is_none_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    folder = a_model(tmp_path / "m")
    (folder / "config.json").write_text(text)

    with pytest.raises(ModelError, match=message):
        model.read_model(folder)


def test_a_folder_without_config_or_weights_is_no_model(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()

    with pytest.raises(ModelError, match=r"expected this file or model\.safetensors\.index\.json"):
        model.read_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json: expected this file, found none"):
        model.read_model(folder)


# --- LoRA ------------------------------------------------------------------------------------

MODULE = "model.layers.0.self_attn.q_proj"
PLAIN = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}


def factors(
    module: str = MODULE, rank: int = 2, rows: int = 3, columns: int = 5
) -> dict[str, TensorInfo]:
    return {
        f"base_model.model.{module}.lora_A.weight": TensorInfo("F32", (rank, columns), 0, 0),
        f"base_model.model.{module}.lora_B.weight": TensorInfo("F32", (rows, rank), 0, 0),
    }


def base_of(**shapes: tuple[int, ...]) -> dict[str, TensorInfo]:
    return {name: TensorInfo("F32", shape, 0, 0) for name, shape in shapes.items()}


BASE = base_of(**{f"{MODULE}.weight": (3, 5), "model.layers.1.self_attn.q_proj.weight": (3, 5)})


def test_a_plain_adapter_has_its_target_and_scale() -> None:
    assert lora_targets(PLAIN, factors(), BASE, {}) == (
        LoraTarget(
            f"{MODULE}.weight",
            Product(
                f"base_model.model.{MODULE}.lora_A.weight",
                f"base_model.model.{MODULE}.lora_B.weight",
                2.0,
                2,
            ),
        ),
    )


def test_targets_are_sorted_by_base_tensor() -> None:
    other = MODULE.replace("layers.0", "layers.1")

    found = lora_targets(PLAIN, {**factors(other), **factors()}, BASE, {})

    assert [target.name for target in found] == sorted(BASE)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"use_rslora": True}, 4 / math.sqrt(2)),
        ({"lora_alpha": 1}, 0.5),
        ({"lora_alpha": 0}, 0.0),
        ({"alpha_pattern": {"q_proj": 8}}, 4.0),
        ({"alpha_pattern": {"layers.0.self_attn.q_proj": 8, "q_proj": 16}}, 4.0),
        ({"alpha_pattern": {"proj": 8}}, 2.0),
        ({"alpha_pattern": {r"model\.layers\.\d+\.self_attn\.q_proj": 6}}, 3.0),
        ({"alpha_pattern": {"v_proj": 8}}, 2.0),
        ({"r": 9, "rank_pattern": {"q_proj": 2}, "lora_alpha": 6}, 3.0),
        ({"rank_pattern": None, "alpha_pattern": None}, 2.0),
    ],
)
def test_the_scale_follows_config_and_patterns(config: dict[str, Any], scale: float) -> None:
    (target,) = lora_targets(PLAIN | config, factors(), BASE, {})

    assert target.product
    assert target.product.scale == scale
    assert target.product.rank == 2


def test_fan_in_fan_out_transposes() -> None:
    base = base_of(**{f"{MODULE}.weight": (5, 3)})

    (target,) = lora_targets(PLAIN | {"fan_in_fan_out": True}, factors(), base, {})

    assert target.product
    assert target.product.transposed


@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_an_unknown_key_that_says_nothing_is_accepted(value: Any) -> None:
    assert lora_targets(PLAIN | {"use_dora": value, "brand_new": value}, factors(), BASE, {})


@pytest.mark.parametrize("value", [True, False, None, "gaussian", "eva", "orthogonal"])
def test_a_plain_initialisation_is_accepted(value: Any) -> None:
    lora.check_config(PLAIN | {"init_lora_weights": value})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"auto_mapping": {"parent_library": "os"}}, "auto_mapping: refused: it would run code"),
        ({"auto_map": {"a": "b"}}, "auto_map: refused"),
        ({"trust_remote_code": True}, "trust_remote_code: refused"),
        ({"peft_type": "IA3"}, "peft_type: expected LORA, found IA3"),
        ({"peft_type": None}, "peft_type: expected LORA, found None"),
        ({"bias": "some"}, "bias: expected none, all or lora_only, found some"),
        ({"init_lora_weights": "pissa"}, 'init_lora_weights: "pissa" trains against altered base'),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
        ({"init_lora_weights": "corda"}, "init_lora_weights"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights"),
        ({"r": 0}, "r: expected a whole number from 1, found 0"),
        ({"r": True}, "r: expected a whole number"),
        ({"r": 2.0}, "r: expected a whole number"),
        ({"r": "2"}, "r: expected a whole number"),
        ({"lora_alpha": None}, "lora_alpha: expected a number"),
        ({"lora_alpha": math.nan}, "lora_alpha: expected a number"),
        ({"lora_alpha": math.inf}, "lora_alpha: expected a number"),
        ({"rank_pattern": {"q": 0}}, "rank_pattern: expected a map"),
        ({"rank_pattern": [1]}, "rank_pattern: expected a map"),
        ({"alpha_pattern": {"q": "x"}}, "alpha_pattern: expected a map"),
        *(
            ({"alpha_pattern": {key: 1}}, "alpha_pattern: expected a module's name or a simple")
            # The last two would take exponential time, or overflow, on a name that nearly matches.
            for key in ("(", "([a-z_.0-9]+)+X", "x{99999999999}")
        ),
        ({"use_dora": True}, "use_dora: expected magnitudes beside"),
        (
            {"modules_to_save": ["q_proj"]},
            "modules_to_save: expected saved tensors of q_proj, found none",
        ),
        ({"layer_replication": [[0, 2]]}, "layer_replication: this feature is not understood"),
        ({"megatron_config": {"a": 1}}, "megatron_config: this feature is not understood"),
        (
            {"trainable_token_indices": [1]},
            "trainable_token_indices: expected retrained rows, found",
        ),
        ({"brand_new": 1}, "brand_new: this feature is not understood (value 1)"),
    ],
)
def test_a_config_that_is_no_plain_lora_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(AdapterError) as caught:
        lora_targets(PLAIN | config, factors(), BASE, {})

    assert str(caught.value).startswith(message)
    assert caught.value.field in config


def renamed(old: str, new: str) -> dict[str, TensorInfo]:
    return {name.replace(old, new): info for name, info in factors().items()}


A, B = factors()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "expected at least one pair of lora_A and lora_B, found none"),
        ({A: factors()[A]}, f"{B}: expected this tensor beside {A}, found none"),
        ({B: factors()[B]}, f"{A}: expected this tensor beside {B}, found none"),
        (
            renamed("base_model.model.", ""),
            "model.layers.0.self_attn.q_proj.lora_A.weight: expected only lora_A",
        ),
        (renamed("lora_A.", "lora_A.default."), "base_model.model.model.layers.0"),
        (renamed("lora_A", "lora_embedding_A"), "base_model.model.model.layers.0"),
        (
            factors() | {"base_model.model.lm_head.weight": factors()[A]},
            "base_model.model.lm_head.weight: the base has no tensor lm_head.weight",
        ),
        (
            factors() | {f"base_model.model.{MODULE}.lora_magnitude_vector": factors()[A]},
            "base_model.model.model",
        ),
        (
            {A: TensorInfo("I8", (2, 5), 0, 0), B: factors()[B]},
            f"{A}: expected F32, F16 or BF16, found I8",
        ),
        (
            {A: TensorInfo("F32", (2, 5, 1, 1), 0, 0), B: factors()[B]},
            f"{A}: expected two dimensions, found 4",
        ),
        (
            factors("model.layers.7.self_attn.q_proj"),
            "base_model.model.model.layers.7.self_attn.q_proj.lora_A",
        ),
        (factors(rank=4), f"{A}: expected rank 2, found 4 and 4"),
        ({A: factors(rank=2)[A], B: factors(rank=3)[B]}, f"{A}: expected rank 2, found 2 and 3"),
        (
            factors(rows=4),
            f"{A}: expected a delta of shape [3, 5] for {MODULE}.weight, found [4, 5]",
        ),
        (factors(rows=5, columns=3), f"{A}: expected a delta of shape [3, 5]"),
    ],
)
def test_tensors_that_are_no_plain_lora_are_refused(
    tensors: dict[str, TensorInfo], message: str
) -> None:
    with pytest.raises(AdapterError) as caught:
        lora_targets(PLAIN, tensors, BASE, {})

    assert str(caught.value).startswith(message)


# --- schedules -------------------------------------------------------------------------------

GRADIENT = {"layers": [0.2, 0.6, 0.9], "embeddings": 0.4, "head": 0.8, "rules": [
    {"match": "*.mlp.*", "value": 0.1}, {"match": "model.layers.0.mlp.*", "value": 7},
    {"match": "*embed*", "value": -1},
]}  # fmt: skip


def layer(number: int, part: str = "self_attn.q_proj") -> str:
    return f"model.layers.{number}.{part}.weight"


def test_a_number_is_the_same_everywhere() -> None:
    assert value_at(1, layer(3), 5) == 1.0
    assert type(value_at(1, layer(3), 5)) is float


def test_the_list_is_stretched_over_the_layers() -> None:
    found = [value_at(GRADIENT, layer(number), 5) for number in range(5)]

    assert found == [0.2, 0.2 + 0.5 * (0.6 - 0.2), 0.6, 0.6 + 0.5 * (0.9 - 0.6), 0.9]


def test_the_ends_are_exact() -> None:
    points = {"layers": [0.1, 0.3, 0.9]}

    assert [value_at(points, layer(number), 30) for number in (0, 29)] == [0.1, 0.9]


@pytest.mark.parametrize("layers", [1, 0])
def test_one_layer_takes_the_first_value(layers: int) -> None:
    assert value_at({"layers": [0.5, 0.9]}, layer(0), layers) == 0.5


def test_one_value_holds_for_all_layers() -> None:
    assert [value_at({"layers": [0.5]}, layer(number), 3) for number in range(3)] == [0.5] * 3


def test_more_values_than_layers_are_interpolated_too() -> None:
    points = {"layers": [0.0, 1.0, 2.0, 3.0, 4.0]}

    assert [value_at(points, layer(number), 3) for number in range(3)] == [0.0, 2.0, 4.0]


def test_the_first_matching_rule_wins_over_all_the_rest() -> None:
    assert value_at(GRADIENT, layer(0, "mlp.up_proj"), 5) == 0.1
    assert value_at(GRADIENT, "model.embed_tokens.weight", 5) == -1.0
    assert value_at(GRADIENT, layer(0, "MLP.up_proj"), 5) == 0.2


def test_outside_the_layers_embeddings_and_head_hold() -> None:
    schedule = {"layers": [0.25, 0.75, 2.0], "embeddings": 0.4, "head": 0.8}

    assert value_at(schedule, "model.embed_tokens.weight", 5) == 0.4
    assert value_at(schedule, "model.norm.weight", 5) == 0.8
    assert value_at(schedule, "lm_head.weight", 5) == 0.8


def test_embeddings_and_head_default_to_the_mean_of_the_list() -> None:
    schedule = {"layers": [0.25, 0.75, 2.0]}

    assert value_at(schedule, "model.embed_tokens.weight", 5) == 1.0
    assert value_at(schedule, "lm_head.weight", 5) == 1.0


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("model.layers.12.mlp.weight", 12),
        ("layers.3.weight", 3),
        ("transformer.h.7.attn.weight", 7),
        ("bert.encoder.layer.0.weight", 0),
        ("vision.blocks.10.weight", 10),
        ("model.layers.x.weight", None),
        ("model.layers.12", None),
        ("model.norm.weight", None),
        ("my_layers.1.weight", None),
    ],
)
def test_the_layer_stands_in_the_name(name: str, number: int | None) -> None:
    assert layer_of(name) == number


def test_layers_are_counted_from_the_highest() -> None:
    assert count_layers([layer(0), layer(29), "lm_head.weight"]) == 30
    assert count_layers(["lm_head.weight"]) == 0


@pytest.mark.parametrize(
    ("name", "is_input"),
    [
        ("model.embed_tokens.weight", True),
        ("transformer.wte.weight", True),
        ("transformer.wpe.weight", True),
        ("bert.embeddings.word_embeddings.weight", True),
        ("shared.weight", True),
        ("lm_head.weight", False),
        ("embed_out.weight", False),
        ("model.norm.weight", False),
        ("model.layers.0.embed.weight", False),
    ],
)
def test_embeddings_are_told_from_the_head_by_name(name: str, is_input: bool) -> None:
    assert is_embedding(name) is is_input


@pytest.mark.parametrize("name", schemas.dialects())
def test_a_dialect_is_a_valid_set_of_parameters_of_its_method(name: str) -> None:
    dialect = schemas.dialects()[name]
    fragment = {
        **schemas.methods()[dialect["method"]],
        "$defs": schemas.load("merge")["$defs"],
    }

    Draft202012Validator(fragment).validate(dialect["parameters"])
    assert list(dialect) == [
        "method",
        "parameters",
        "tool",
        "version",
        "tolerance",
        "description",
        "cannot",
    ]
    assert dialect["cannot"]


def test_the_merge_schema_knows_every_dialect() -> None:
    recipe = schemas.load("merge")["properties"]["recipe"]["properties"]

    assert recipe["dialect"]["enum"] == list(schemas.dialects())
