"""A program of several commands: parse, call, say errors in a sentence, leave with the command's exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import tyro
from rich.console import Console
from rich.markup import escape

from medseg.errors import MedsegError
from medseg.runtime.repeated import several, together

Commands = Mapping[str, Callable[..., Any]]


def run_commands(commands: Commands, argv: Sequence[str], program: str, description: str) -> NoReturn:
    """Run the command that `argv` names; each returns an exit code. Errors of the project are one sentence."""
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            dict(commands), prog=program, description=description, args=_whole(commands, argv)
        )
    except MedsegError as error:
        # Escaped and unwrapped: paths hold brackets, and are copied from the terminal.
        Console(stderr=True, soft_wrap=True).print(f"[red]Error:[/red] {escape(str(error))}", highlight=False)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that nothing fails at exit
        code = 141
    sys.exit(code)


def _whole(commands: Commands, argv: Sequence[str]) -> list[str]:
    """The arguments, with what was given in several places put together."""
    command = commands.get(argv[0]) if argv else None
    return list(argv) if command is None else together(argv, several(command))
