"""Functions as commands: the signature defines the command line, and errors take one line."""

import re
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import fire
from bundle.refusals import refusal
from scripts.commands import Command, command_of, help_page, read_command, summary

HELP = {"-h", "--help"}
SHORT = re.compile(r"-[a-zA-Z]")
"""Beginning of an option of one dash, of which there is none but -h."""


def main(function: Callable[..., None]) -> None:
    """Call a function with the options of the command line; on failure, exit with code 2 and one line.

    Options are ``--name value``. Unknown and missing options are refused before anything runs, and so are words that
    belong to no option, unless the function takes these as ``*words: str`` and those as ``**options: str``. A value
    must parse as the type of its parameter, if that is ``str``, ``int``, ``float`` or ``bool``. ``--help`` prints the
    options instead.
    """
    command = command_of(function)
    if _is_answered(command):
        return
    try:
        if command.words or command.rest:
            fire.decorators.SetParseFn(str)(function)  # fire would turn a file named 7 into a number
        readers = {name: _reader(name, *kind) for name, kind in command.kinds.items()}
        fire.Fire(fire.decorators.SetParseFns(**readers)(function))
    except (ValueError, OSError) as error:
        refuse(refusal(error) or str(error))  # of a loader process, the text is its traceback


def main_of(modules: Mapping[str, str]) -> None:
    """Run the module named by the first word of the command line, as ``python -m`` does.

    The module calls :func:`main` on its function of that name. The function's help, and mistakes in its options, are
    read from its source: the imports of a module take seconds.
    """
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in HELP:
        print(_overview(modules))
    elif name not in modules:
        refuse(f"expected one of {', '.join(modules)} first, got {name!r}; --help says what each does")
    else:
        del sys.argv[1]
        command = read_command(modules[name], name)
        if command is None or not _is_answered(command):
            runpy.run_module(modules[name], run_name="__main__", alter_sys=True)


def _overview(modules: Mapping[str, str]) -> str:
    width = max(map(len, modules)) + 2
    rows = [f"  {name:<{width}}{summary(module)}" for name, module in modules.items()]
    return "\n".join(["The first word is one of these; --help after it lists its options.\n", *rows])


def refuse(message: str) -> NoReturn:
    """End the process with one line and code 2."""
    print(f"error: {' '.join(message.splitlines())}", file=sys.stderr)
    sys.exit(2)


def _is_answered(command: Command) -> bool:
    """Print the help page if it is asked for, and refuse mistaken options; return whether that was all."""
    arguments = sys.argv[1:]
    if wants_help := not HELP.isdisjoint(arguments):
        print(help_page(command))
    else:
        try:
            check_options(command, arguments)
        except ValueError as error:
            refuse(str(error))
    return wants_help


def check_options(command: Command, arguments: Sequence[str]) -> None:
    """Refuse words that are no option of a command, options without a value, and needed ones that are not there.

    Raises:
        ValueError: with what was expected.
    """
    parameters = {name: p for name, p in command.parameters.items() if name not in (command.words, command.rest)}
    known = ", ".join(f"--{name}" for name in parameters) + (", and those of the configs" if command.rest else "")
    given = set()
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, equals, _ = argument.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not argument.startswith("--") and not SHORT.match(argument) and command.words:
            continue
        if not argument.startswith("--"):
            several = "; several values are one list in quotes: \"['a.jpg', 'b.jpg']\"" if command.rest else ""
            raise ValueError(f"expected options ({known}), got {argument!r}{several}")
        if name not in parameters and not command.rest:
            raise ValueError(f"unknown option --{name}, expected one of {known}")
        if not equals and waiting and not waiting[0].startswith("--"):
            waiting.pop(0)
        elif not equals and name in parameters and command.kinds.get(name, (None,))[0] is not bool:
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
