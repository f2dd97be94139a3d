"""The bytes that a build starts from: found, fetched, verified by sha256, as folders by digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from registry import keys, record
from registry.errors import BuildFailed, VerificationFailed
from registry.spec import Ingredient
from registry.world import World


def gather(world: World, request: Mapping[str, Any], scratch: Path) -> dict[str, str]:
    """Return the folder of every input of a build request by digest.

    Ingredients lie in the catalog; merges are brought out of the store into `scratch`.
    """
    sources = [request["base"], *(term["input"] for term in request["recipe"]["terms"])]
    return folders_of(world, sources, scratch)


def folders_of(world: World, sources: Sequence[Mapping[str, Any]], scratch: Path) -> dict[str, str]:
    """Return the folder of every pinned input by digest."""
    folders: dict[str, str] = {}
    for number, source in enumerate(sources):
        if source["kind"] == "merge":
            folder = scratch / f"input-{number}"
            _bring_out(world, source, folder)
        else:
            ingredient = world.catalog.ingredients[
                (source["kind"], source["name"], source.get("version"))
            ]
            folder = at_hand(world, ingredient)
        folders[source["digest"]] = str(folder)
    return folders


def at_hand(world: World, ingredient: Ingredient) -> Path:
    """Return the verified folder of an ingredient, fetched through its pointer if need be."""
    folder = world.root / ingredient.folder
    pointer = folder.parent / "weights.dvc"
    if not folder.is_dir():
        if not pointer.is_file():
            msg = f"{ingredient.label}: its bytes are not at hand ({ingredient.folder})"
            hint = ingredient.recover or "put them there, or add a pointer with `registry add`"
            raise BuildFailed(msg, hint)
        world.observer.stage(ingredient.label, "fetch")
        world.store.pull_weights(pointer)
    found = world.index.folder_digest(folder)
    if found != ingredient.digest:
        msg = f"{ingredient.label}: expected {ingredient.digest}, found {found} in {folder.name}/"
        hint = ingredient.recover or "restore the bytes, or declare them as a new version"
        raise VerificationFailed(msg, hint)
    return folder


def _bring_out(world: World, source: Mapping[str, Any], folder: Path) -> None:
    recorded = record.read(record.folder(world.root) / f"{source['name']}.json")
    assert recorded.built is not None, "the plan pins published merges only"
    artifact = keys.read(world.store.cache, recorded.built.key)
    if artifact is None or artifact.model_digest != source["digest"]:
        msg = f"merge {source['name']}: its bytes are not in the store"
        raise BuildFailed(msg, f"run `registry sync {source['name']}`")
    world.store.materialize(artifact, folder, link=True)
