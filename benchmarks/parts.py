"""The parts of a run: which merges and commands are measured, in which order, under which key."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks import commands, merges, peers, sharing
from benchmarks.merges import CASES, REAL, Case, Inputs
from benchmarks.models import Shape, bytes_of, name_of, shape_of
from benchmarks.session import (
    PEER_PATIENCE_SECONDS,
    ROOT,
    Refused,
    Session,
    require_space,
    say,
    warm,
)

TERMS = range(1, 9)
PEER_TERMS = (1, 3, 8)
LAYERS = (4, 8, 16)
PEER_LAYERS = (4,)
SMALL = shape_of("0.1B")
DENSE = Shape(1)
"""Where a method factorises fine-tunes: at every layer it costs as much again, in time alone."""

FINE_TUNES, ADAPTERS = 3, 3
_SCALING_RUNS = 3
SCALED = tuple(case for case in CASES if case.key in ("task_arithmetic", "ties"))


def run(session: Session, names: Iterable[str]) -> None:
    """Measure the named parts; what they share is measured once."""
    merges.import_torch()  # once for nothing: the first reads it from disk
    session.measure("import-torch", merges.import_torch)
    for name in names:
        say(f"part {name}")
        PARTS[name](session)


def key_of(shape: Shape, case: str, who: str = "ours") -> str:
    """Return the key of a merge's samples."""
    return f"merge/{name_of(shape)}/{case}/{who}"


def _merges(session: Session) -> None:
    """Run ours, the floor and mergekit, case by case, on the same inputs."""
    shape = session.shape
    inputs = _inputs(session, shape)
    for case in CASES:
        warm(inputs.paths(case.terms))
        _ours(session, shape, inputs, case)
        if case.key in ("linear", "task_arithmetic"):
            _floor(session, shape, inputs, case)
        _mergekit(session, shape, inputs, case)
    adapters = CASES[-1]
    session.measure_peer(
        key_of(shape, adapters.key, "peft"),
        lambda: peers.peft(inputs, adapters, session.scratch("peft")),
    )
    session.measure(key_of(shape, "cp"), lambda: peers.cp(inputs, session.scratch("cp")))


def _real(session: Session) -> None:
    """Merge real adapters with the real base; sync a second merge with the same targets."""
    inputs = merges.real_inputs()
    if not (inputs.folders["base"] / "model.safetensors").exists():
        raise Refused("the real base is not there: run `make base`, or leave out the part real")
    warm(inputs.paths(REAL.terms))
    session.measure("real/ours", lambda: merges.build(inputs, REAL, session.scratch("ours")))
    session.measure_peer("real/peft", lambda: peers.peft(inputs, REAL, session.scratch("peft")))
    if session.has_peers:
        program = peers.mergekit(session.folder)
        session.measure_peer(
            "real/mergekit", lambda: program.merge(inputs, REAL, session.scratch("mergekit"))
        )
    sharing.measure_all(session)


def _memory(session: Session) -> None:
    """Every method once at the full size; one that factorises, on fine-tunes of few layers too."""
    inputs = _inputs(session, session.shape)
    for case in merges.every_method():
        _ours(session, session.shape, inputs, case, runs=1)
    if not session.is_quick:
        _ours(session, DENSE, _inputs(session, DENSE), merges.DENSE, runs=1)


def _scaling(session: Session) -> None:
    """From 1 to 8 terms at the smallest size, and three terms from few layers to all."""
    _scale_terms(session)
    _scale_layers(session)


def _scale_terms(session: Session) -> None:
    counts = TERMS if not session.is_quick else TERMS[:3]
    inputs = _inputs(session, SMALL, fine_tunes=max(counts))
    for count in counts:
        for case in SCALED:
            scaled = of_terms(case, count)
            _ours(session, SMALL, inputs, scaled, runs=_SCALING_RUNS)
            if count in PEER_TERMS:
                _mergekit(session, SMALL, inputs, scaled, runs=1)


def of_terms(case: Case, count: int) -> Case:
    """Return a case with another number of fine-tunes, under a key of its own if it differs."""
    if count == len(case.terms):
        return case
    terms = tuple(f"ft{number}" for number in range(1, count + 1))
    return replace(case, key=f"{case.key}-{count}", terms=terms)


def _scale_layers(session: Session) -> None:
    for layers in LAYERS:
        shape = Shape(layers)
        if shape.parameters >= session.shape.parameters:
            break
        inputs = _inputs(session, shape)
        for case in SCALED:
            _ours(session, shape, inputs, case, runs=_SCALING_RUNS)
            if layers in PEER_LAYERS:
                _mergekit(session, shape, inputs, case, runs=1)
        shutil.rmtree(_folder(session, shape))
    inputs = _inputs(session, session.shape)
    for case in SCALED:
        _ours(session, session.shape, inputs, case)
        _mergekit(session, session.shape, inputs, case)


PARTS: Mapping[str, Callable[[Session], None]] = {
    "commands": commands.measure_all,
    "real": _real,
    "merges": _merges,
    "memory": _memory,
    "scaling": _scaling,
}


def _folder(session: Session, shape: Shape) -> Path:
    return session.folder / "models" / f"{name_of(shape)}-{shape.layers}"


def _inputs(session: Session, shape: Shape, fine_tunes: int = FINE_TUNES) -> Inputs:
    """Return the models of a size, made if they are not there."""
    folder = _folder(session, shape)
    # An output, and for mergekit every adapter folded into a model of its own.
    needed = bytes_of(shape, 0) * (1 + ADAPTERS)
    if not folder.exists():
        needed += bytes_of(shape, fine_tunes)
        say(f"making models of {name_of(shape)} parameters")
    require_space(session.folder, needed)
    size = [f"--layers={shape.layers}", f"--vocabulary={shape.vocabulary}"]
    options = [*size, f"--fine-tunes={fine_tunes}", f"--adapters={ADAPTERS}"]
    command = [sys.executable, "-m", "benchmarks.models", str(folder), *options]
    subprocess.run(command, cwd=ROOT, check=True)
    return merges.made_inputs(folder)


def _ours(
    session: Session, shape: Shape, inputs: Inputs, case: Case, runs: int | None = None
) -> None:
    session.measure(
        key_of(shape, case.key),
        lambda: merges.build(inputs, case, session.scratch("ours")),
        runs=runs,
    )


def _floor(session: Session, shape: Shape, inputs: Inputs, case: Case) -> None:
    session.measure(
        key_of(shape, case.key, "floor"),
        lambda: peers.floor(inputs, case, session.scratch("floor")),
    )


def _mergekit(
    session: Session, shape: Shape, inputs: Inputs, case: Case, runs: int | None = None
) -> None:
    if session.has_peers:
        program = peers.mergekit(session.folder)
        session.measure(
            key_of(shape, case.key, "mergekit"),
            lambda: program.merge(inputs, case, session.scratch("mergekit")),
            runs=runs,
            patience=PEER_PATIENCE_SECONDS,
        )
