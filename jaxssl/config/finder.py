"""The parts of a config found by name: one module is imported, the one that is named.

A part (an encoder, head, mask, memory, target, family, modality, table maker, evaluator or data
source) is a module that defines what makes it one: `build`, `views`, `make`, `PROTOCOL` or `open`;
a loss is a function. A short name is a module of the package of
its kind, or of a room in it; a dotted one, such as "my_package.my_module", is any module that
Python can import, so that nobody edits this package to extend it.
"""

import ast
import importlib
import importlib.util
import pathlib
import pkgutil
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from jaxssl.config.errors import ConfigError, near


def find(package: ModuleType, name: Any, *, defines: str, field: str, what: str) -> ModuleType:
    """The module that `name` names; no other module of the package is imported.

    Args:
      package: where short names are looked for.
      name: of a module of the package, or a dotted name of any module.
      defines: the name that makes a module such a part, e.g. "build".
      field: where in the config the name stands; error messages begin with it.
      what: how messages call a part, e.g. "an encoder".

    Raises:
      ConfigError: there is no such part, or it needs a package that is not installed.

    >>> import jaxssl.encoders
    >>> find(jaxssl.encoders, "vit", defines="build", field="encoder.name", what="an encoder")
    <module 'jaxssl.encoders.vit' from ...>
    """
    place = place_of(package, name, defines)
    module = _imported(place, name, field) if place else None
    if module is None or not hasattr(module, defines):
        raise _unknown(package, name, defines, field, what)
    return module


def function(package: ModuleType, name: Any, *, field: str, what: str) -> Callable[..., Any]:
    """The function that `name` names: one that a package lists in `__all__`, or a dotted name.

    Args:
      package: where short names are looked for.
      name: of a function of the package, or "my_package.my_module.my_function".
      field: where in the config the name stands; error messages begin with it.
      what: how messages call such a function, e.g. "a loss".

    Raises:
      ConfigError: there is no such function, or it needs a package that is not installed.

    >>> import jaxssl.losses
    >>> function(jaxssl.losses, "byol", field="losses.byol.fn", what="a loss")
    <function byol at ...>
    """
    place, dot, last = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    if dot and all(part.isidentifier() for part in name.split(".")):
        made = getattr(_imported(place, name, field), last, None)
        if not callable(made):
            expected = f"{what}: a function {last!r} of a module {place!r} that can be imported"
            raise ConfigError(f"{field}: found {name!r}, expected {expected}")
        return made
    made = getattr(package, name) if name in package.__all__ else None
    if not callable(made):
        known = [n for n in package.__all__ if callable(getattr(package, n))]
        raise ConfigError(f"{field}: found {name!r}, expected {what}{near(str(name), known)}")
    return made


def _imported(place: str, name: str, field: str) -> ModuleType | None:
    """The module, or None where there is none of that name.

    Raises:
      ConfigError: it needs a package that is not installed.
    """
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if place == missing or place.startswith(f"{missing}."):
            return None
        raise ConfigError(
            f"{field}: {name!r} needs the package {missing!r}, which is not installed"
        ) from error


def names(package: ModuleType, defines: str) -> list[str]:
    """The short names of all parts of a package, told from their text: none is imported.

    >>> import jaxssl.encoders
    >>> {"convnet", "vit"} <= set(names(jaxssl.encoders, "build"))
    True
    """
    found = _names(package.__path__, defines)
    for room in _rooms(package, defines):
        found += _names([str(pathlib.Path(folder) / room) for folder in package.__path__], defines)
    return sorted(found)


def _names(folders: Sequence[str], defines: str) -> list[str]:
    places = [pathlib.Path(folder) for folder in folders]
    modules = [info.name for info in pkgutil.iter_modules(folders)]
    return [name for name in modules if _defines(places, name, defines)]


def _rooms(package: ModuleType, defines: str) -> list[str]:
    """The packages inside that hold parts and are none themselves."""
    places = [pathlib.Path(folder) for folder in package.__path__]
    inner = [info.name for info in pkgutil.iter_modules(package.__path__) if info.ispkg]
    return [name for name in inner if not _defines(places, name, defines)]


def place_of(package: ModuleType, name: Any, defines: str) -> str | None:
    """The full name of the module that `name` names, or None where it cannot be one.

    >>> import jaxssl.evals
    >>> place_of(jaxssl.evals, "knn", "PROTOCOL")
    'jaxssl.evals.probes.knn'
    """
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        return None
    if "." in name:
        return name
    if name.startswith("_"):
        return None
    above = package.__name__
    places = [f"{above}.{name}", *(f"{above}.{r}.{name}" for r in _rooms(package, defines))]
    return next((place for place in places if importlib.util.find_spec(place) is not None), None)


def _unknown(package: ModuleType, name: Any, defines: str, field: str, what: str) -> ConfigError:
    if isinstance(name, str) and "." in name and place_of(package, name, defines):
        expected = f"a module that can be imported and defines {defines!r}"
        return ConfigError(f"{field}: found {name!r}, expected {what}: {expected}")
    hint = near(name, names(package, defines))
    return ConfigError(f"{field}: found {name!r}, expected {what}{hint}")


def _defines(folders: Sequence[pathlib.Path], name: str, wanted: str) -> bool:
    files = [folder / name for folder in folders]
    files = [file / "__init__.py" if file.is_dir() else file.with_suffix(".py") for file in files]
    for file in files:
        if file.is_file():
            return any(wanted in _bound(node) for node in ast.parse(file.read_text()).body)
    return False


def _bound(statement: ast.stmt) -> list[str]:
    """The names that a statement at the top of a module gives a meaning."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.ImportFrom):
        return [alias.asname or alias.name for alias in statement.names]
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return [statement.target.id]
    return []
