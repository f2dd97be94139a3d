"""What is drawn of an analysis and of a build, and that the pictures are pictures."""

from __future__ import annotations

import struct
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from registry import charts, plots
from registry.charts import Bars, Heatmap

SVG = "{http://www.w3.org/2000/svg}"


def answer(terms: int = 2, layers: int = 3, *, merge: bool = True) -> dict[str, Any]:
    def figures(shift: float) -> dict[str, Any]:
        agreement = [
            [1.0 if a == b else 0.5 + shift / 100 for b in range(terms)] for a in range(terms)
        ]
        shares = [0.1 * term for term in range(terms)]
        return {
            "terms": [{"norm": 1.0 + shift + term, "tensors": 4} for term in range(terms)],
            "cosines": [[1.0 if a == b else 0.25 for b in range(terms)] for a in range(terms)],
            "sign_agreement": agreement,
            "result": {"survival": shares, "signs_kept": [None, *shares[1:]]} if merge else None,
        }

    parts = [{"part": f"layer {layer}", **figures(layer)} for layer in range(layers)]
    parts[0]["terms"][0]["tensors"] = 0
    names = [f"adapter skill-{term}@1" for term in range(terms)]
    return {
        "model": "office" if merge else None,
        "base": "llama",
        "figures": {"terms": names, "total": figures(0), "parts": parts},
    }


def test_an_analysis_is_four_charts_with_its_numbers() -> None:
    found = charts.of_analysis(answer())

    assert list(found) == ["norms", "cosines", "sign-agreement", "survival"]
    norms, cosines, agreement, survival = found.values()
    assert isinstance(norms, Bars)
    assert norms.series == {"skill-0@1": (None, 2.0, 3.0), "skill-1@1": (2.0, 3.0, 4.0)}
    assert norms.groups == ("layer 0", "layer 1", "layer 2")
    assert isinstance(cosines, Heatmap)
    assert cosines.values == ((1.0, 0.25), (0.25, 1.0))
    assert isinstance(agreement, Heatmap)
    assert agreement.columns == ("skill-0@1 · skill-1@1",)
    assert agreement.values == ((0.5,), (0.51,), (0.52,))
    assert (agreement.middle, agreement.reach) == (0.5, 0.05)
    assert isinstance(survival, Bars)
    assert survival.groups == ("skill-0@1", "skill-1@1")
    assert list(survival.series.values()) == [(0.0, 0.1), (None, 0.1)]


def test_operands_without_a_recipe_have_no_survival_and_one_has_no_pairs() -> None:
    assert "survival" not in charts.of_analysis(answer(merge=False))
    assert list(charts.of_analysis(answer(terms=1, merge=False))) == ["norms"]


def test_terms_that_touch_nothing_are_not_drawn() -> None:
    statistics = {
        "terms": [{"term": "adapter a@1"}, {"term": "adapter b@1"}],
        "cosines": [[0.0, 0.0], [0.0, 0.0]],
        "sign_conflict": 0.0,
        "tensors": {"columns": [], "rows": {}},
    }

    assert charts.of_analysis(answer(layers=1) | {"figures": {"terms": ["a"], "parts": []}}) == {}
    assert charts.of_build("office", statistics)[0] == {}
    assert plots.draw({}) == {}


def test_names_lose_their_kind_only_where_they_stay_different() -> None:
    labels = ["adapter a@1", "checkpoint a@1", "adapter b@1", "merge c"]

    assert charts.short_names(labels) == ("adapter a@1", "checkpoint a@1", "b@1", "c")


def test_the_report_of_a_build_is_drawn_by_part() -> None:
    statistics = {
        "terms": [{"term": "adapter a@1"}, {"term": "adapter b@1"}],
        "cosines": [[1.0, 0.5], [0.5, 1.0]],
        "sign_conflict": 0.4,
        "tensors": {
            "columns": ["elements", "delta_norm", "nonzero", "sign_conflict", "terms", "norms"],
            "rows": {
                "model.layers.10.a.weight": [10, 1.0, 1.0, 0.5, [0, 1], [3.0, 1.0]],
                "model.layers.10.b.weight": [30, 1.0, 1.0, 0.1, [0], [4.0]],
                "model.layers.9.a.weight": [10, 1.0, 1.0, 0.25, [1], [2.0]],
                "model.embed_tokens.weight": [10, 1.0, 1.0, 0.0, [1], [7.0]],
            },
        },
    }

    found, data = charts.of_build("office", statistics)

    assert data["parts"] == [
        {"part": "embeddings", "elements": 10, "norms": [None, 7.0], "sign_conflict": 0.0},
        {"part": "layer 9", "elements": 10, "norms": [None, 2.0], "sign_conflict": 0.25},
        {"part": "layer 10", "elements": 40, "norms": [5.0, 1.0], "sign_conflict": 0.2},
    ]
    assert list(found) == ["norms", "cosines", "sign-conflict"]
    conflict = found["sign-conflict"]
    assert isinstance(conflict, Bars)
    assert list(conflict.series.values()) == [(0.0, 0.25, 0.2)]


def png_size(data: bytes) -> tuple[int, int]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@pytest.mark.parametrize("terms", [1, 2, 10])
def test_pictures_have_a_readable_size_and_the_names_as_text(terms: int) -> None:
    files = plots.draw(charts.of_analysis(answer(terms, layers=12)))

    assert {name.rpartition(".")[0] for name in files} == set(
        charts.of_analysis(answer(terms, layers=12))
    )
    for name, data in files.items():
        if name.endswith(".png"):
            width, height = png_size(data)
            assert 300 <= width <= 4400
            assert 250 <= height <= 4400
    root = ET.fromstring(files["norms.svg"])
    texts = ["".join(text.itertext()).strip() for text in root.iter(f"{SVG}text")]
    assert "layer 11" in texts
    assert "norm of the change, ‖τ‖" in texts
    if terms > 1:
        assert {f"skill-{term}@1" for term in range(terms)} <= set(texts)


def test_the_same_chart_gives_the_same_bytes_without_a_date() -> None:
    first, second = (plots.draw(charts.of_analysis(answer())) for _ in range(2))

    assert first == second
    for name, data in first.items():
        if name.endswith(".svg"):
            assert b"<dc:date>" not in data
