"""Recipes that lie outside the package, in Python files of those who train."""

import sys
from importlib import import_module
from pathlib import Path

from skipsr.errors import SettingsError
from skipsr.train.recipes import Recipe
from skipsr.train.settings import TrainSettings


def load_own(told: str) -> Recipe | TrainSettings:
    """The recipe, or settings of what is fitted without stages, that `FILE.py:NAME` says.

    The file is imported by its name, with its folder on the path, as if it were run as a script: it
    can import its neighbours, and other processes what it defines.

    Raises:
        SettingsError: when there is no such file, its name cannot be imported, or it holds nothing
            of that name, with the names there are.
    """
    place, _, name = (told, "", "") if told.endswith(".py") else told.rpartition(":")
    path = Path(place).absolute()
    if path.suffix != ".py" or not path.is_file():
        raise SettingsError(
            f"{told}: there is no file {place}; give a recipe of it as FILE.py:NAME"
        )
    if "." in path.stem:
        raise SettingsError(f"{place}: a module's name has no dots; rename the file")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = import_module(path.stem)
    if Path(module.__file__ or "").resolve() != path.resolve():
        raise SettingsError(f"{place}: another module is named {path.stem}; rename the file")
    found = vars(module).get(name)
    if isinstance(found, (Recipe, TrainSettings)):
        return found
    names = [key for key, value in vars(module).items() if isinstance(value, Recipe)]
    there = f"there are {', '.join(names)}" if names else "it holds no Recipe"
    raise SettingsError(f"{told}: give a recipe of {place} as {place}:NAME; {there}")
