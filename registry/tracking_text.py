"""Descriptions in Markdown for MLflow's pages: what an auditor reads first.

Pure text: everything that comes from a catalog is escaped. Knows no MLflow call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote

from registry.page import code_text, escaped
from registry.tracked import BuildLog, Operand, shortened, weight_text

# MLflow opens in a mode that hides the registry; every link must carry the other one.
VIEW = "workflowType=machine_learning"

_LIVE = "Live:"
_STOPPED = "**The last attempt was not published:**"
_NOT_PUBLISHED = "**Not published.** What it was:"


def of_build(build: BuildLog, places: Mapping[str, str], run: str = "") -> str:
    """Return the description of a build's version.

    `places` maps operands' keys to the links to their pages; `run` is the link to the run.
    """
    return "\n".join(
        (
            f"`{build.model} = {code_text(shortened(build.expression))}`",
            "",
            *_about(build),
            *_operand_table(build, places),
            "",
            "&nbsp;",
            "",
            *_contained(build.contains),
            *_facts(build, run),
        )
    )


def of_model(build: BuildLog, places: Mapping[str, str], version: str, run: str = "") -> str:
    """Return the description of a merge's registered model: what its live version is made of."""
    live = f"{_LIVE} [version {version}]({version_link(build.model, version)})"
    return f"{live}\n\n{of_build(build, places, run)}"


def unpublished(text: str) -> str:
    """Return the description of a model that was taken back; what it was stays readable."""
    if text.startswith(_NOT_PUBLISHED):
        return text
    first, _, rest = text.partition("\n\n")
    return f"{_NOT_PUBLISHED}\n\n{rest if first.startswith(_LIVE) else text}"


def version_link(name: str, version: str) -> str:
    """Return the link from a page to that of a version."""
    return f"#/models/{quote(name)}/versions/{version}?{VIEW}"


def run_link(experiment: str, run: str) -> str:
    """Return the link from a page to that of a run."""
    return f"#/experiments/{experiment}/runs/{run}?{VIEW}"


def of_rejected(expression: str, reason: str) -> str:
    """Return the description of the run of an attempt that a gate stopped."""
    return f"**Not published:** {escaped(reason)}\n\n`{code_text(shortened(expression))}`"


def rejected(text: str, reason: str, run: str) -> str:
    """Return the description of a model whose last attempt was stopped; the next build clears it.

    `reason` is one line, `run` the link to what was tried.
    """
    first, separator, rest = text.partition("\n\n")
    first = first.partition("  \n")[0]
    line = f"{_STOPPED} {escaped(shortened(reason))} ([what was tried]({run}))"
    return f"{first}  \n{line}{separator}{rest}"


def of_ingredient(operand: Operand, experiment: str, model: str) -> str:
    """Return the description of an ingredient: its digest, and who uses it."""
    search = quote(f"tags.`uses.{operand.key}` LIKE '%'", safe="")
    if operand.kind == "base":
        search = quote(f"params.base = '{operand.name}'", safe="")
    runs = f"#/experiments/{experiment}/runs?{VIEW}&searchFilter={search}"
    page = f"#/experiments/{experiment}/models/{model}?{VIEW}"
    return "\n".join(
        (
            f"`{code_text(operand.title)}` `{operand.digest}`",
            "",
            f"- [Every merge that uses it directly, with its weight]({page})",
            f"- [The runs of those merges]({runs})",
        )
    )


def _about(build: BuildLog) -> Iterable[str]:
    if build.description:
        yield escaped(shortened(build.description))
        yield ""
    labels = [f"{key}: {value}" for key, value in sorted((build.labels or {}).items())]
    facts = ([f"owner: {build.owner}"] if build.owner else []) + labels
    if facts:
        yield escaped(", ".join(facts))
        yield ""


def _operand_table(build: BuildLog, places: Mapping[str, str]) -> Iterable[str]:
    yield _row("", "weight", "ingredient", "digest")
    yield "|:--|:--|:--|:--|"
    yield _row("base", "", _linked(build.base, places), f"`{build.base.digest}`")
    for operand in build.operands:
        sign = "**subtracted**" if operand.is_subtracted else "added"
        weight = f"`{_signed(operand)}`"
        if operand.schedule:
            weight += f" mean of {escaped(shortened(operand.schedule))}"
        yield _row(sign, weight, _linked(operand, places), f"`{operand.digest}`")


def _row(*cells: str) -> str:
    # MLflow's tables have no room between columns of their own; a space could be broken at.
    return "| " + "&nbsp;&nbsp;&nbsp; | ".join(cells) + " |"


def _signed(operand: Operand) -> str:
    text = weight_text(operand)
    return f"+{text}" if operand.weight is not None and operand.weight > 0 else text


def _linked(operand: Operand, places: Mapping[str, str]) -> str:
    title = escaped(operand.title)
    place = places.get(operand.key)
    return f"[{title}]({place})" if place else title


def _contained(contains: Mapping[str, str]) -> Iterable[str]:
    if contains:
        yield _row("further inside", "by way of")
        yield "|:--|:--|"
        for key, path in sorted(contains.items()):
            yield _row(escaped(key), escaped(shortened(path)))
        yield from ("", "&nbsp;", "")


def _facts(build: BuildLog, run: str) -> Iterable[str]:
    yield _row("provenance", "")
    yield "|:--|:--|"
    for name, value in (
        ("method", build.method),
        ("commit", build.commit),
        ("model digest", build.model_digest),
        ("artifact digest", build.artifact_digest),
        ("build key", build.key),
        ("bytes", build.source),
    ):
        yield _row(name, f"`{code_text(value)}`")
    if run:
        yield _row("run", f"[inputs, output, metrics, recipe and report]({run})")
