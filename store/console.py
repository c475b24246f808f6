"""What all commands do alike: help in parts, print, show progress, hint at wrong options, errors as JSON, Ctrl-C.

Belongs to the command line (`cli.py`), which alone imports it: the root may hold no second module, and this lies where
options are made.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from platform import python_version
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

from reelbank.manifests.events import Event, Pace
from reelbank.manifests.terminal import printable
from reelbank.store.completion import offered
from reelbank.store.config_files import note_file
from reelbank.store.examples import EXAMPLES, Example

OK, SOME_FAILED, WRONG_USE, STOPPED = 0, 1, 2, 130
"""Exit statuses; the last is what shells give for Ctrl-C."""

BAR_WIDTH = 20
MAX_NAME_WIDTH = 28
"""Columns for the names of options in the help; a longer one has the line to itself."""
PLAIN_LINE_SECONDS = 2.0
"""Least time between two progress lines where stderr is no terminal: a short job leaves none in a log."""
PLAIN_SILENCE_SECONDS = 60.0
"""Longest time without one, so that a log shows that a long job lives."""

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "--batch": ("--batch-size", "--batchsize", "--bs", "-b"),
    "--clips": ("--count", "--num", "--num-clips", "-n"),
    "--device": ("--cpu", "--cuda", "--gpu", "--gpus", "--mps"),
    "--early-stop": ("--early-stopping",),
    "--epochs": ("--epoch", "--max-epochs", "--num-epochs", "-e"),
    "--folds": ("--cv", "--fold", "--kfold"),
    "--head": ("--arch", "--classifier"),
    "--kmeans": ("--clusters", "--k", "--n-clusters"),
    "--knn": ("--k", "--neighbors", "--neighbours"),
    "--label": ("--labels",),
    "--loss": ("--criterion",),
    "--lr": ("--eta", "--learning-rate", "--learningrate"),
    "--manifest": ("--annotations", "--csv", "--input", "--videos", "-i", "-m"),
    "--model": ("--backbone", "--encoder", "--extractor", "--network"),
    "--optimizer": ("--opt", "--optim", "--optimiser"),
    "--out": ("--dest", "--output", "--output-dir", "--outdir", "-o"),
    "--precision": ("--amp", "--dtype", "--fp16", "--half"),
    "--resume": ("--continue", "--restart"),
    "--run": ("--checkpoint", "--ckpt", "--output", "--output-dir", "--outdir", "--run-dir", "-o"),
    "--sampling": ("--fps", "--frames", "--num-frames"),
    "--schedule": ("--lr-schedule", "--lr-scheduler", "--scheduler"),
    "--seed": ("--random-seed", "--random-state"),
    "--store": ("--data", "--features", "--input", "-i", "-s"),
    "--tap": ("--layer", "--layers", "--taps"),
    "--target": ("--y",),
    "--weight-decay": ("--l2", "--wd"),
    "--weights": ("--pretrained",),
    "--workers": ("--jobs", "--n-jobs", "--num-workers", "--processes", "-j"),
}
"""{an option: what other programs call it}: spelt too far apart to be guessed."""


def say(text: Any, file: IO[Any] | None = None, nl: bool = True, err: bool = False, color: bool | None = None) -> None:
    """Prints text, the only way to: much of it came from files, whose hand shall not steer the terminal."""
    stream: Any = file or (sys.stderr if err else sys.stdout)
    click.echo(printable(str(text), stream.encoding), file, nl, err, color)


def emit(data: Mapping[str, Any], as_json: bool, text: Callable[[], str]) -> None:
    """Prints a result: JSON for machines, else what `text` gives.

    A reader that hung up (`| head -1`) has what it wanted: the work is done and its exit status stands.
    """
    try:
        say(json.dumps(data, indent=1, default=str) if as_json else text())
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


click.exceptions.echo = say  # type: ignore[attr-defined, assignment]  # what click itself says of what it was given


def written(folder: Path) -> str:
    """`In FOLDER: a.csv, figures/ (3 files)`: what a call that makes a folder has left there, as a last line."""
    names = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        count = sum(one.is_file() for one in path.rglob("*")) if path.is_dir() else 0
        names.append(f"{path.name}/ ({count} file{'s' * (count != 1)})" if path.is_dir() else path.name)
    return f"In {folder}: {', '.join(names)}"


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, an error too.")


class GroupedOption(click.Option):
    """An option that says under which heading of the help it stands."""

    def __init__(self, *args: Any, group: str = "", **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.group = group

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What there is of it, else as click's."""
        return offered(ctx, self, incomplete) or super().shell_complete(ctx, incomplete)


class NamedArgument(click.Argument):
    """An argument that the Tab key completes as it does an option: that of `offers`."""

    def __init__(self, *args: Any, offers: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.offers = offers

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What there is of it, else as click's."""
        return offered(ctx, self, incomplete) or super().shell_complete(ctx, incomplete)


def headed(options: Sequence[click.Option]) -> dict[str, list[click.Option]]:
    """{heading: options} in the order in which headings first come; options without one last, under `Options`, or
    `Other options` where there are headings."""
    found: dict[str, list[click.Option]] = {}
    for option in options:
        found.setdefault(getattr(option, "group", ""), []).append(option)
    rest = found.pop("", [])
    return found | ({"Other options" if found else "Options": rest} if rest else {})


def versions() -> str:
    """`reelbank 0.1.0, torch 2.13.0, Python 3.11.9`, of what is installed; nothing of it is loaded."""
    from importlib import metadata  # which takes longer than all else that the help loads

    return ", ".join([*(f"{name} {metadata.version(name)}" for name in ("reelbank", "torch")),
                      f"Python {python_version()}"])  # fmt: skip


def _show_versions(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        say(versions())
        ctx.exit()


VERSION = click.Option(
    ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_show_versions,
    help="Show the versions of reelbank, torch and Python, and exit.",
)  # fmt: skip


def _coloured(text: str, **style: Any) -> str:
    """`text` in colour; click takes it away again where the help goes to no terminal."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else click.style(text, **style)


class Stopped(click.ClickException):
    """Ctrl-C or SIGTERM: one line says what is kept."""

    exit_code = STOPPED


class Command(click.Command):
    """A command whose help has headings and examples, whose errors are JSON after --json, which hints at other
    programs' names of its options, and which ends with one line on Ctrl-C."""

    examples: Sequence[Example] = ()
    """Shown where EXAMPLES has none of it: a command that is made of a table's row sets its own."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """As click's, and --version, whichever command it is."""
        *own, last = super().get_params(ctx)
        return [*own, VERSION, last]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click's, under the headings of `GroupedOption`."""
        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option) and not one.hidden]
        records = {option: option.get_help_record(ctx) or ("", "") for option in options}
        # One column for all headings.
        width = max((len(name) for name, _ in records.values() if len(name) <= MAX_NAME_WIDTH), default=0)
        for heading, group in headed(options).items():
            with formatter.section(_coloured(heading, bold=True)):
                rows = [records[option] for option in group]
                formatter.write_dl([(_coloured(f"{name:<{width}}", fg="cyan"), text) for name, text in rows], width)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click's, and the examples; their lines are not broken, so that they can be copied."""
        super().format_epilog(ctx, formatter)
        if lines := EXAMPLES.get(_words(ctx), self.examples):
            with formatter.section(_coloured("Examples", bold=True)):
                for about, line in lines:
                    formatter.write(f"  {_coloured(f'# {about}', dim=True)}\n" if about else "")
                    formatter.write(f"  {line}\n")

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, complete_var: str | None = None,
        standalone_mode: bool = True, **extra: Any,
    ) -> Any:  # fmt: skip
        """As click's: parses, calls, and leaves with the exit status."""
        given = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            status = super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.ctx.get_help(), err=True)
            sys.exit(error.exit_code)
        except (click.ClickException, click.Abort) as error:
            known = error if isinstance(error, click.ClickException) else Stopped("stopped")
            sentence = _no_such_option(known) if isinstance(known, click.NoSuchOption) else known.format_message()
            sentence += "".join(f"\n  {note}" for note in dict.fromkeys(getattr(known, "__notes__", ())))
            told = (
                click.UsageError(sentence, known.ctx)
                if isinstance(known, click.UsageError)
                else click.ClickException(sentence)
            )
            told.show()
            _tell(sentence, given)
            sys.exit(known.exit_code)
        except Exception as error:
            _tell(f"{type(error).__name__}: {error}", given)
            raise
        sys.exit(status if isinstance(status, int) else OK)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's; an error says where a value of --config comes from."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            note_file(ctx, error)
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """As click's; an error says where a value of --config comes from."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # outside of what the command itself guards
            raise Stopped("stopped") from None
        except click.ClickException as error:
            note_file(ctx, error)
            raise


class Group(Command, click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As a command's, and the list of commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


def _words(ctx: click.Context) -> str:
    """What is typed after `reelbank` to come to the command of `ctx`, whichever program was called."""
    names = []
    at: click.Context | None = ctx
    while at is not None and at.command.name != "main":
        names.append(str(at.command.name))
        at = at.parent
    return " ".join(reversed(names))


def _tell(sentence: str, given: Sequence[str]) -> None:
    """An error as JSON where the line asks for JSON, even where it could not be parsed."""
    if "--json" in given:
        emit({"error": sentence}, True, str)


def _no_such_option(error: click.NoSuchOption) -> str:
    """The sentence, with the options that may have been meant."""
    command = error.ctx.command if error.ctx else None
    flags = [flag for param in command.params for flag in param.opts] if command else []
    asked = error.option_name
    named = [flag for flag in flags if asked in SYNONYMS.get(flag, ())]
    close = named or difflib.get_close_matches(asked, [flag for flag in flags if flag.startswith("--")], 2, 0.7)
    return f"No such option {asked!r}." + (f" Did you mean {' or '.join(map(repr, close))}?" if close else "")


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[Event], None]]:
    """A rich progress line on stderr; plain lines where stderr has no bar. Gives what is called with each Event."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    console = Console(stderr=True)
    # What is left of the line is for `info`, which is cut: at 80 columns it pushed the time left off the line.
    columns = (TextColumn(description), BarColumn(BAR_WIDTH), MofNCompleteColumn(), TimeRemainingColumn())
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    info = TextColumn("{task.fields[info]}", markup=False, table_column=rest)
    has_bar = console.is_terminal and not console.is_dumb_terminal
    with Progress(*columns, info, console=console, disable=not has_bar, transient=True, expand=True) as bar:
        task = bar.add_task(description, info="")
        state: dict[str, float] = {"tenth": 0, "told": time.monotonic()}
        pace = Pace()

        def show(event: Event) -> None:
            done, total, info = event.done, event.total, _info(event)
            if note := printable(event.note, console.encoding):
                console.print(note, style="yellow", markup=False, highlight=False, soft_wrap=True)
            bar.update(task, completed=done, total=total or None, info=info)
            tenth, now = int(10 * done / total) if total else 0, time.monotonic()
            waited, left = now - state["told"], pace.left(done, total, now)
            due = waited >= PLAIN_LINE_SECONDS and tenth != state["tenth"]
            if not has_bar and (due or waited >= PLAIN_SILENCE_SECONDS):
                state.update(tenth=tenth, told=now)
                say(f"{description}: {done:g} of {total:g}  {info}".rstrip() + (left and f"  {left}"), err=True)

        yield show


def _info(event: Event) -> str:
    """What stands behind the bar."""
    if event.stage == "evaluate":  # the verdict stands at the end, on stdout
        return ""
    return printable(event.message) or "  ".join(f"{name} {value:.3g}" for name, value in event.values.items())
