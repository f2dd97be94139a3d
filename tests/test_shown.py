"""What `registry show` says of an adapter that lost something."""

from __future__ import annotations

from registry import shown
from registry.spec import Catalog, Settings

ADAPTER = {
    "rank": 16,
    "exact": 1,
    "inexact": 3,
    "relative_error": 0.0331699,
    "largest_error": 0.0589,
    "energy": 0.9988998,
    "layers": {"columns": [], "rows": {"0": [0.01, 0.9999], "1": [0.04, 0.998]}},
    "tensors": {"columns": [], "rows": {}},
}


def test_an_adapter_is_shown_with_what_was_cut_off_and_where_most() -> None:
    catalog = Catalog(Settings("s"), {}, {}, {})

    data = shown.model(catalog, None, None, "m", {"statistics": {"adapter": ADAPTER}})
    lines = [" ".join(line.split()) for line in shown.text(data).splitlines()]

    assert "tensors" not in data["adapter"]
    assert "adapter rank 16, 3 of 4 tensors cut off, 99.89 % of the energy" in lines
    assert "error 0.033 of the merged delta; most in layer 1: 0.04" in lines


def test_what_lies_outside_of_the_layers_is_the_head() -> None:
    layers = {"columns": [], "rows": {"0": [0.01, 1.0], "head": [0.2, 0.9]}}
    told = {"statistics": {"adapter": ADAPTER | {"layers": layers}}}

    text = shown.text(shown.model(Catalog(Settings("s"), {}, {}, {}), None, None, "m", told))

    assert "most in the head: 0.2" in text
