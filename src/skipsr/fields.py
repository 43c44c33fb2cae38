"""What settings say of themselves: flags, forms, nodes and tables of options are made of it.

Imports no torch.
"""

import ast
import dataclasses
import inspect
import sys
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a settings class.

    Attributes:
        annotation: its type, such as `float | None` or a `Literal`.
        default: `dataclasses.MISSING` for one that has to be given.
        text: what stands below it, in one line, settings in backticks; empty where nothing does.
    """

    name: str
    annotation: Any
    default: Any
    text: str

    @property
    def choices(self) -> tuple[object, ...]:
        """The values that it can have, where they are listed; empty for others."""
        return choices(self.annotation)


KINDS: Mapping[type, str] = {
    bool: "yes or no",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
}
"""What a value of each type is called."""


def choices(annotation: object) -> tuple[object, ...]:
    """The values of a `Literal`; empty for other types."""
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def given(settings: object, names: Iterable[str]) -> list[str]:
    """Those of the settings named that are not as usual."""
    usual = type(settings)()
    return [name for name in names if getattr(settings, name) != getattr(usual, name)]


def fields_of(kind: type) -> tuple[Field, ...]:
    """The fields of a dataclass, in order, those of its bases first."""
    hints, texts = get_type_hints(kind, include_extras=True), _texts(kind)
    return tuple(
        Field(
            name=part.name,
            annotation=hints[part.name],
            default=part.default,
            text=texts.get(part.name, ""),
        )
        for part in dataclasses.fields(kind)
    )


def _texts(kind: type) -> dict[str, str]:
    """What stands below the fields of a dataclass and its bases, by name."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        for above, below in pairwise(_parsed(base).body):
            match above, below:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    found[name] = " ".join(text.split())
                case _:
                    pass
    return found


def _parsed(kind: type) -> ast.ClassDef:
    found = _classes(kind.__module__).get(kind.__qualname__)
    if found is None:  # it is made inside another or in a function
        (found,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(found, ast.ClassDef)
    return found


@cache
def _classes(module: str) -> Mapping[str, ast.ClassDef]:
    """Those of a module, parsed once: `inspect` parses all of it for each."""
    parsed = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in parsed.body if isinstance(node, ast.ClassDef)}
