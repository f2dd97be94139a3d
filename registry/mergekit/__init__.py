"""A mergekit YAML file to a merge spec that gives the same weights, or to what stands in the way.

    reading     the file as mergekit 0.1.5 reads it: method, inputs, parameters by precedence
    settings    one parameter: filters and gradients to a number or a schedule of ours
    models      paths of models to operands of the catalog
    methods     mergekit's methods to ours, parameter by parameter; sparse and stack are families
    tokens      whose vocabulary the result has
    spec        the whole translation, and the spec as YAML with what was done in comments

Pure: plain data in, plain data, problems and notes out. A problem means that no spec of ours gives
these weights; a note tells what was done or what else a reader should know.
"""

from __future__ import annotations

from registry.mergekit.models import Maps, Weights, parse_map
from registry.mergekit.spec import Translation, translate

__all__ = ["Maps", "Translation", "Weights", "parse_map", "translate"]
