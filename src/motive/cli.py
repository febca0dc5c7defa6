"""The command line: every command by its name, and what its outcome is to the shell.

A command is a typed function in `motive.commands`; it holds no logic of its own.
"""

import sys
from collections.abc import Callable
from typing import Annotated, Any, cast

import typer

from motive.commands import (
    check,
    compare,
    curate,
    diagnose,
    evaluate,
    explain,
    explore,
    finetune,
    generate,
    models,
    results,
    study,
    subsets,
    zoo,
)
from motive.errors import INTERRUPTED, INTERRUPTED_SAYS, UserError
from motive.printable import printable

app = typer.Typer(
    name="motive",
    help="Which of my clips teach a video model to move, and which spoil it?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
zoo_app = typer.Typer(
    help="MotionZoo: rendered clips whose true motion is known.", no_args_is_help=True
)
app.add_typer(zoo_app, name="zoo")


# No docstring: the help above is the program's.
@app.callback()
def _program(
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.PY:CLASS",
            envvar="MOTIVE_ADAPTER",
            help="Take this file's adapter for a video model of your own (docs/adapters.md).",
        ),
    ] = None,
) -> None:
    for where in adapter or []:
        from motive.backbones.private import use_adapter

        use_adapter(where)


app.command()(curate.curate)
app.command("run")(curate.replay)
for _stage in results.STAGES:
    app.command(_stage)(results.stage_command(_stage))
app.command()(results.export)
app.command()(results.info)
app.command()(check.check)
app.command()(explore.explore)
app.command()(explain.explain)
app.command()(diagnose.diagnose)
app.command()(subsets.subset)
app.command()(finetune.finetune)
app.command()(generate.generate)
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.add_typer(study.study_app, name="study")
app.command()(models.doctor)
app.command()(models.backbones)
app.command()(zoo.demo)
zoo_app.command("render")(zoo.zoo_render)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake is one sentence and exit code 2."""
    sys.exit(_outcome(lambda: app(arguments, prog_name=app.info.name, standalone_mode=False)))


def _outcome(command: Callable[[], object]) -> int:
    import errno

    # Newer versions of typer carry a click of their own: this is the one whose errors it raises.
    usage_error: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
    try:
        # A command returns None; a number is the exit code of a typer.Exit, 130 that of Ctrl-C.
        if code := command():
            raise KeyboardInterrupt if code == INTERRUPTED else typer.Exit(cast(int, code))
    except UserError as error:
        return _complain(str(error), 2)
    except usage_error as error:
        text = error.format_message()
        if text.startswith("Usage:"):  # a group of commands without a command is asked for help
            print(text, file=sys.stderr)
            return 2
        asked = error.ctx.command_path if error.ctx else app.info.name
        return _complain(f"{text.rstrip('.')} (see {asked} --help)", 2)
    except (typer.Abort, KeyboardInterrupt):
        return _complain(INTERRUPTED_SAYS, INTERRUPTED)
    except typer.Exit as error:
        return error.exit_code
    except OSError as error:
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if error.errno not in (*full, errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        place = error.filename or "the output"
        return _complain(
            f"{place} cannot be written ({error.strerror}): free space or choose another place", 2
        )
    return 0


def _complain(sentence: str, code: int) -> int:
    print(f"motive: {printable(sentence)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
