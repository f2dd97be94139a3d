"""The adapter's names against the base's: one rule for the whole adapter, or none.

A model in memory and its file on disk may differ in leading parts of their names: `h.0…` and
`transformer.h.0…`, `model.layers…` and `model.language_model.layers…`. Names that fit as they are
stay. Else one leading run of parts is dropped, added or reordered, the same for all names that do
not fit; what follows, from the layer's number on, must agree to the letter. If no such rule or more
than one serves, the adapter is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from schemas.lora_base import Base
from schemas.lora_config import AdapterError

_SAME_PARTS = 2  # of the end of a name at least: the module's own name and its parameter's
_TRIED = 8  # names that suggest rules; all names judge them


@dataclass(frozen=True, slots=True)
class Wanted:
    """A parameter that an adapter changes: the names it may have, and the tensor to blame.

    One that is `optional` may be absent from the base. `is_side` tells one that has the shape of a
    tied matrix.
    """

    names: tuple[str, ...]
    tensor: str
    optional: bool = False
    is_side: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """Names that begin with `old` begin with `new` in the base; both empty: names stay."""

    old: str = ""
    new: str = ""

    def __call__(self, name: str) -> str:
        """Return the name by this rule, empty if it does not apply."""
        return self.new + name.removeprefix(self.old) if name.startswith(self.old) else ""


def resolve(wanted: Sequence[Wanted], base: Base) -> Mapping[str, str]:
    """Return the base's name of every wanted name that the base has.

    Raises AdapterError if a parameter is not found, or not by one rule alone.
    """
    found = _by_rule(wanted, base, Rule())
    missing = [want for want in wanted if not want.optional and not _any(want, found)]
    if not missing:
        return found
    attempts = (_by_rule(wanted, base, rule) for rule in _rules(missing, base))
    fitting = [one for one in attempts if all(_any(want, one) for want in missing)]
    solutions = [one for number, one in enumerate(fitting) if one not in fitting[:number]]
    if len(solutions) == 1:
        return solutions[0] | found
    names = " or ".join(missing[0].names)
    if not solutions:
        raise AdapterError(_why_absent(missing[0], base), tensor=missing[0].tensor)
    meant = sorted(next(s[name] for name in missing[0].names if name in s) for s in solutions)
    why = f"{names} may be {' or '.join(meant)} in the base; name the adapter's tensors as it does"
    raise AdapterError(why, tensor=missing[0].tensor)


def _why_absent(want: Wanted, base: Base) -> str:
    if want.is_side:
        return one_side(" and ".join(sorted(base.tied)))
    usual = [name for name in want.names if not name.endswith(".in_proj_weight")]
    why = f"the base has no tensor {' or '.join(usual)}"
    if base.quantised:
        why += f": it is quantised ({base.quantised}); name the base in full precision"
    return why


def one_side(name: str) -> str:
    """Return why an adapter of one side of a tied matrix is refused."""
    return (
        f"{name} is input embedding and output head at once, but only one of them was trained; "
        "train with ensure_weight_tying, or untie the base first"
    )


def _by_rule(wanted: Sequence[Wanted], base: Base, rule: Rule) -> dict[str, str]:
    names = (name for want in wanted for name in want.names)
    pairs = ((name, base.find(renamed)) for name in names if (renamed := rule(name)))
    return {name: known for name, known in pairs if known}


def _any(want: Wanted, found: Mapping[str, str]) -> bool:
    return any(name in found for name in want.names)


def _rules(missing: Sequence[Wanted], base: Base) -> list[Rule]:
    some = [name for want in missing[:_TRIED] for name in want.names]
    rules = {rule for name in some for known in base.shapes for rule in _rule(name, known)}
    return sorted(rules, key=lambda rule: (rule.old, rule.new))


def _rule(name: str, known: str) -> Iterator[Rule]:
    """Yield the rule that turns one name into the other, if there is one."""
    if name.rpartition(".")[2] != known.rpartition(".")[2]:
        return
    mine, theirs = name.split("."), known.split(".")
    same = 0
    while same < min(len(mine), len(theirs)) and mine[-1 - same] == theirs[-1 - same]:
        same += 1
    old, new = mine[: len(mine) - same], theirs[: len(theirs) - same]
    is_plain = set(old) <= set(new) or set(new) <= set(old)
    if same >= _SAME_PARTS and is_plain and not any(part.isdigit() for part in (*old, *new)):
        yield Rule("".join(f"{part}." for part in old), "".join(f"{part}." for part in new))
