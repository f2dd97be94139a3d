"""The model card in full, and what must not be in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from merger import card, request
from schemas.canonical import digest
from tests.test_merger_request import operand, plain

GOLDEN = Path(__file__).parent / "golden/merger/card.md"


def data() -> dict[str, Any]:
    found = plain()
    found["recipe"]["terms"] = [
        {"input": operand("adapter", "shout", "1"), "weight": -0.5, "parameters": {}},
        {"input": operand("adapter", "sql", "2"), "weight": 1.0, "parameters": {"density": 0.3}},
        {
            "input": operand("merge", "mix", "3"),
            "weight": {"layers": [0.2, 0.9], "rules": [{"match": "a|`b`*", "value": 1e-7}]},
            "parameters": {},
        },
    ]
    return found


def test_the_card_is_this() -> None:
    assert card.model_card(request.parse(data())).decode() == GOLDEN.read_text("utf-8")


def test_the_front_matter_is_yaml_whatever_the_names() -> None:
    odd = plain()
    for name in ("no", "1e3", "null", "0x1f"):
        odd["base"]["name"] = name

        text = card.model_card(request.parse(odd)).decode()

        front = yaml.safe_load(text.split("---\n")[1])
        assert front["base_model"] == name
        assert front["tags"] == ["merge", "ties"]
        assert front["library_name"] == "transformers"


def test_the_expression_has_signs_and_weights_additions_first() -> None:
    text = card.model_card(request.parse(data())).decode()

    assert "\n# ties(tiny; [0.2…0.9]·mix, 1·sql@1, −0.5·shout@1)\n" in text


def test_recipe_json_hashes_to_the_build_key() -> None:
    import hashlib

    parsed = request.parse(data())

    text = card.recipe_json(parsed)

    assert "sha256:" + hashlib.sha256(text).hexdigest() == digest(parsed.data)
