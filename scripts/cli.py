"""Functions as commands: the signature defines the command line, and errors take one line."""

import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import fire

HELP = {"-h", "--help"}


def main(function: Callable[..., None]) -> None:
    """Call a function with the options of the command line; on failure, exit with code 2 and one line.

    Options are ``--name value``. Unknown and missing options are refused before anything runs, and so are words that
    belong to no option, unless the function takes them as ``*words: str``. A value must parse as the type of its
    parameter, if that is ``str``, ``int``, ``float`` or ``bool``.
    """
    kinds = _kinds(function)
    try:
        _check_options(function, kinds, sys.argv[1:])
        if _words_of(function):
            fire.decorators.SetParseFn(str)(function)  # fire would turn a file named 7 into a number
        fire.Fire(fire.decorators.SetParseFns(**{name: _reader(name, *kind) for name, kind in kinds.items()})(function))
    except (ValueError, OSError) as error:
        _refuse(str(error))


def main_of(functions: Mapping[str, Callable[..., None]]) -> None:
    """Call the function named by the first word of the command line, as :func:`main` does."""
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name in HELP:
        print(f"one of: {', '.join(functions)}; --help after it says more")
    elif name not in functions:
        _refuse(f"expected one of {', '.join(functions)} first, got {name!r}")
    else:
        main(functions[name])


def _refuse(message: str) -> NoReturn:
    print(f"error: {' '.join(message.splitlines())}", file=sys.stderr)
    sys.exit(2)


def _kinds(function: Callable[..., None]) -> dict[str, tuple[type, bool]]:
    """Map each option of a simple type to that type and whether it may be None."""
    kinds = {}
    for name, hint in typing.get_type_hints(function).items():
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        choices = [choice for choice in (typing.get_args(hint) if union else [hint]) if choice is not type(None)]
        if len(choices) == 1 and choices[0] in (str, int, float, bool):
            kinds[name] = (choices[0], union)
    return kinds


def _words_of(function: Callable[..., None]) -> str | None:
    """Return the name of the ``*words`` parameter, which takes words that belong to no option; None without it."""
    parameters = inspect.signature(function).parameters.values()
    return next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)


def _check_options(
    function: Callable[..., None], kinds: dict[str, tuple[type, bool]], arguments: Sequence[str]
) -> None:
    words = _words_of(function)
    parameters = {name: p for name, p in inspect.signature(function).parameters.items() if name != words}
    known = ", ".join(f"--{name}" for name in parameters)
    given = set()
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument in HELP:
            return
        name, equals, _ = argument.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not argument.startswith("--") and words:
            continue
        if not argument.startswith("--"):
            raise ValueError(f"expected options ({known}), got {argument!r}")
        if name not in parameters:
            raise ValueError(f"unknown option --{name}, expected one of {known}")
        if not equals and waiting and not waiting[0].startswith("--"):
            waiting.pop(0)
        elif not equals and kinds.get(name, (None,))[0] is not bool:
            raise ValueError(f"expected a value after --{name}")
        given.add(name)
    missing = [name for name, p in parameters.items() if p.default is p.empty and name not in given]
    if missing:
        raise ValueError(f"expected --{missing[0]}, got {' '.join(arguments) or 'no options'}; there are {known}")


def _reader(name: str, kind: type, may_be_none: bool) -> Callable[[str], Any]:
    def read(text: str) -> Any:  # noqa: ANN401  (one of four types)
        if may_be_none and text.lower() == "none":
            return None
        try:
            return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (ValueError, KeyError):
            raise ValueError(f"expected --{name} as {kind.__name__}, got {text!r}") from None

    return read
