"""The command line of a function and its help page, from the function or from its source, which imports nothing."""

import ast
import functools
import importlib.util
import inspect
import operator
import shutil
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fire import docstrings

TYPES = {"str": str, "int": int, "float": float, "bool": bool, "None": None}
WIDEST = 120
"""Characters in a line of a help page; a narrower terminal has fewer."""


@dataclass(frozen=True)
class Command:
    """A function of a script: its parameters, its docstring, and the docstring of the script, which has examples."""

    parameters: Mapping[str, inspect.Parameter]
    doc: str
    introduction: str

    @property
    def kinds(self) -> dict[str, tuple[type, bool]]:
        """Map each option of a simple type to that type and whether it may be None."""
        kinds = {}
        for name, parameter in self.parameters.items():
            hint = parameter.annotation
            union = typing.get_origin(hint) in (typing.Union, types.UnionType)
            choices = [choice for choice in (typing.get_args(hint) if union else [hint]) if choice is not type(None)]
            if len(choices) == 1 and choices[0] in TYPES.values():
                kinds[name] = (choices[0], union)
        return kinds

    @property
    def words(self) -> str | None:
        """Name of the ``*words`` parameter, which takes words that belong to no option; None without it."""
        return next((p.name for p in self.parameters.values() if p.kind is p.VAR_POSITIONAL), None)

    @property
    def rest(self) -> str | None:
        """Name of the ``**options`` parameter, which takes options of any name; None without it."""
        return next((p.name for p in self.parameters.values() if p.kind is p.VAR_KEYWORD), None)


def command_of(function: Callable[..., None]) -> Command:
    """Describe a function that is imported."""
    introduction = inspect.getdoc(sys.modules[function.__module__]) or ""
    parameters = dict(inspect.signature(function, eval_str=True).parameters)
    return Command(parameters, inspect.getdoc(function) or "", introduction)


def read_command(module: str, name: str) -> Command | None:
    """Describe a function of a module that is not imported; None if the module has no such function.

    Example:
        >>> read_command("scripts.package", "package").kinds["weights_url"]
        (<class 'str'>, True)

    Raises:
        ValueError: if a default is not a literal, which only an import could compute.
        KeyError: if an annotation is not one of ``TYPES``, or several of them with ``|``.
    """
    tree = _parse(module)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return Command(_parameters(node.args), ast.get_docstring(node) or "", ast.get_docstring(tree) or "")
    return None


def summary(module: str) -> str:
    """Return the first sentence of a module that is not imported.

    Example:
        >>> summary("scripts.prepare")
        'Make the manifest of a data set.'
    """
    return (ast.get_docstring(_parse(module)) or "").partition("\n")[0]


def help_page(command: Command) -> str:
    """Write what a function does, examples, and a line for each option: its type, its default and what it is.

    Example:
        >>> print(help_page(read_command("scripts.package", "package")))  # doctest: +ELLIPSIS
        Write a zip whose configs build the network of its weights without any option.
        <BLANKLINE>
        fundus package --checkpoint outputs/train/model.pt --out dist
        <BLANKLINE>
          --checkpoint str, needed  weights of a training, such as...
          --out str = dist          folder for the zip.
          --weights_url str         address of the folder where ...
    """
    about = docstrings.parse(command.doc)
    described = {one.name: one.description or "" for one in about.args or ()}
    heads = {parameter: _head(parameter, command) for parameter in command.parameters.values()}
    indent = max(map(len, heads.values()), default=0) + 4
    rows = [_wrapped(f"  {head:<{indent - 2}}{described.get(p.name, '')}", indent) for p, head in heads.items()]
    examples = command.introduction.partition("\n\n")[2]
    parts = [about.summary, about.description, examples, "\n".join(rows)]
    return "\n\n".join(part.strip("\n") for part in parts if part)


def _head(parameter: inspect.Parameter, command: Command) -> str:
    kind = command.kinds[parameter.name][0].__name__ if parameter.name in command.kinds else ""
    if parameter.kind is parameter.VAR_POSITIONAL:
        return f"{parameter.name.upper()} ..."
    if parameter.kind is parameter.VAR_KEYWORD:
        return "--NAME VALUE ..."
    if parameter.default is parameter.empty:
        return f"--{parameter.name} {kind}, needed"
    return f"--{parameter.name} {kind}" + (f" = {parameter.default}" if parameter.default is not None else "")


def _wrapped(row: str, indent: int) -> str:
    width = min(shutil.get_terminal_size().columns, WIDEST)
    return textwrap.fill(
        row, max(width, indent + 20), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )


def _parse(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"there is no {module}"
    assert spec.origin is not None, f"{module} is no file"
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _parameters(arguments: ast.arguments) -> dict[str, inspect.Parameter]:
    needed = [None] * (len(arguments.args) - len(arguments.defaults))
    rows = [
        *((one, inspect.Parameter.POSITIONAL_OR_KEYWORD, default)
          for one, default in zip(arguments.args, [*needed, *arguments.defaults], strict=True)),
        *((one, inspect.Parameter.VAR_POSITIONAL, None) for one in [arguments.vararg] if one),
        *((one, inspect.Parameter.KEYWORD_ONLY, default)
          for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)),
        *((one, inspect.Parameter.VAR_KEYWORD, None) for one in [arguments.kwarg] if one),
    ]  # fmt: skip
    return {argument.arg: _parameter(argument, kind, default) for argument, kind, default in rows}


def _parameter(argument: ast.arg, kind: Any, default: ast.expr | None) -> inspect.Parameter:  # noqa: ANN401
    hint = ast.unparse(argument.annotation) if argument.annotation else ""
    return inspect.Parameter(
        argument.arg, kind, default=inspect.Parameter.empty if default is None else ast.literal_eval(default),
        annotation=functools.reduce(operator.or_, (TYPES[name] for name in hint.split(" | "))),
    )  # fmt: skip
