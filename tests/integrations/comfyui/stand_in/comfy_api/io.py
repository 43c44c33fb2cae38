"""Inputs, outputs, nodes and their schema."""

from dataclasses import dataclass
from enum import StrEnum


def _without_none(table):
    return {name: value for name, value in table.items() if value is not None}


class _Input:
    io_type = ""

    def __init__(self, id, display_name=None, optional=False, tooltip=None, lazy=None, **widget):
        self.id, self.display_name, self.optional = id, display_name, optional
        self.tooltip, self.lazy, self.widget, self.extra_dict = tooltip, lazy, widget, {}

    def as_dict(self):
        own = {"display_name": self.display_name, "tooltip": self.tooltip, "lazy": self.lazy}
        return _without_none(own | self.widget) | _without_none(self.extra_dict)


class _Output:
    io_type = ""

    def __init__(self, id=None, display_name=None, tooltip=None, is_output_list=False):
        self.id, self.display_name, self.tooltip = id, display_name, tooltip


Input, Output = _Input, _Output


def _type(name, *widget):
    """A type whose inputs take these parameters beside those that all take."""

    class Input(_Input):
        io_type = name

        def __init__(self, id, **parameters):
            common = {"display_name", "optional", "tooltip", "lazy"}
            unknown = parameters.keys() - common - set(widget)
            if unknown:
                raise TypeError(f"{name} has no {sorted(unknown)}")
            super().__init__(id, **parameters)

    class Output(_Output):
        io_type = name

    return type(name.title(), (), {"io_type": name, "Input": Input, "Output": Output})


_NUMBER = ("default", "min", "max", "step")
WIDGETS = {
    "Boolean": ("default",),
    "Int": (*_NUMBER, "control_after_generate"),
    "Float": _NUMBER,
    "String": ("default",),
    "Combo": ("options", "default"),
}
Boolean = _type("BOOLEAN", *WIDGETS["Boolean"])
Int = _type("INT", *WIDGETS["Int"])
Float = _type("FLOAT", *WIDGETS["Float"])
String = _type("STRING", *WIDGETS["String"])
Combo = _type("COMBO", *WIDGETS["Combo"])
Video, Image, Mask = _type("VIDEO"), _type("IMAGE"), _type("MASK")


def Custom(io_type):  # noqa: N802
    return _type(io_type)


class Hidden(StrEnum):
    unique_id = "UNIQUE_ID"


@dataclass
class Schema:
    node_id: str
    display_name: str
    category: str
    inputs: list
    outputs: list
    hidden: list | None = None
    description: str = ""

    def validate(self):
        for ids in ([i.id for i in self.inputs], [o.id for o in self.outputs if o.id]):
            if len(set(ids)) < len(ids):
                raise ValueError(f"ids are not unique: {ids}")


class _Holder:
    def __init__(self, unique_id):
        self.unique_id = unique_id


class ComfyNode:
    hidden = None

    @classmethod
    def GET_SCHEMA(cls):  # noqa: N802
        schema = cls.define_schema()
        schema.validate()
        return schema

    @classmethod
    def PREPARE_CLASS_CLONE(cls, hidden_inputs):  # noqa: N802
        holder = _Holder((hidden_inputs or {}).get(Hidden.unique_id))
        return type(cls.__name__, (cls,), {"hidden": holder})


class NodeOutput:
    def __init__(self, *args, ui=None, expand=None, block_execution=None):
        self.args, self.ui = args, ui

    @property
    def result(self):
        return self.args or None

    def __getitem__(self, index):
        return self.args[index]
