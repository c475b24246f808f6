"""The commands: parse, make one public call, print. Results go to stdout, progress to stderr."""

from __future__ import annotations

import sys

if sys.excepthook is sys.__excepthook__:

    def _uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        """Ctrl-C outside of a command, as among the imports below, is one line too."""
        if issubclass(kind, KeyboardInterrupt):
            sys.stderr.write("Error: stopped\n")
            sys.exit(130)
        sys.__excepthook__(kind, error, trace)

    sys.excepthook = _uncaught

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

if sys.platform == "win32":  # the package refuses with a sentence; a command says it without a traceback
    try:
        import_module("reelbank.manifests")
    except ImportError as refusal:
        sys.stderr.write(f"Error: {refusal}\n")
        sys.exit(2)

import click

from reelbank.extract.config import DEFAULT_SAMPLING, FeaturizeConfig
from reelbank.extract.errors import ExtractionError
from reelbank.heads.config import TrainConfig
from reelbank.heads.explain_config import ExplainConfig
from reelbank.heads.predict_config import PredictConfig
from reelbank.heads.probes.config import ProbeConfig
from reelbank.heads.probes.search_config import FindConfig
from reelbank.heads.recipes.config import RecipeConfig
from reelbank.heads.request import CONFIGS, request
from reelbank.heads.sweeps.config import SweepConfig
from reelbank.manifests.datasets import READERS, ReaderRow
from reelbank.manifests.files import not_written
from reelbank.manifests.rendered import RENDERED, RenderedRow
from reelbank.manifests.terminal import drive_hint
from reelbank.store.completion import SHELLS, scripts
from reelbank.store.config_files import changed_since, config_option, given_names, origins, origins_text, recorded_names
from reelbank.store.console import (
    OK,
    SOME_FAILED,
    WRONG_USE,
    Command,
    Group,
    GroupedOption,
    NamedArgument,
    Stopped,
    emit,
    json_option,
    progress_bar,
    say,
    written,
)
from reelbank.store.exchange.options import ExportConfig, ImportConfig
from reelbank.store.options import MAX_CPUS, MAX_SEED, options_of
from reelbank.store.reader_options import READER_OPTIONS

GOES_ON = "stopped; what was finished is kept, the same command goes on"

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
PATH = click.Path(path_type=Path)


click.ClickException.exit_code = WRONG_USE


@contextmanager
def plain_errors(stopped: str = "stopped") -> Iterator[None]:
    """What the library raises for wrong input or on a full disk becomes one sentence and the exit status 2.

    `stopped` is said after Ctrl-C and SIGTERM: what is kept and how to go on differs by command. `{run}` in it becomes
    the options that go on, as far as the library knew them.
    """
    if takes_sigterm := signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and current_thread() is main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what is half made is removed
    try:
        yield
    except KeyboardInterrupt as stop:
        ways: list[str] = getattr(stop, "__notes__", [])
        is_begun = ways or "{run}" not in stopped
        raise Stopped(
            stopped.replace("{run}", "".join(ways[-1:])) if is_begun else "stopped; nothing was written"
        ) from None
    except Exception as error:
        if (sentence := _sentence(error)) is None:
            raise
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
        raise click.ClickException(f"{sentence}{drive_hint(sentence)}{notes}") from error
    finally:
        if takes_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _sentence(error: Exception) -> str | None:
    """What a person is told of an error; None for one that is a fault of the program."""
    if full := not_written(error):
        return str(full)
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    expected = isinstance(error, ValueError | OSError | MemoryError | ExtractionError)
    return str(error) or _NAMELESS.get(type(error), type(error).__name__) if expected else None


_NAMELESS: Mapping[type, str] = {MemoryError: "not enough memory"}


@click.group(cls=Group, context_settings=CONTEXT)
def main() -> None:
    """Decode once, train forever: features of video clips in Zarr stores, light heads and probes on them."""


# -- stage 1 ---------------------------------------------------------------------------------------------


@main.command(context_settings=CONTEXT, short_help="Extract features of a manifest's clips.")
@options_of(FeaturizeConfig)
@config_option
@json_option
@click.pass_context
def featurize(ctx: click.Context, /, as_json: bool, **options: Any) -> None:
    """Extract features of the clips of a manifest into stores. Run it again to go on or to add clips."""
    with plain_errors(stopped=GOES_ON):
        _featurize(ctx, FeaturizeConfig(**options), as_json)


def _featurize(ctx: click.Context, config: Any, as_json: bool) -> None:
    from reelbank.extract import featurize as run

    with progress_bar("featurize") as show:
        report = run(config, show)
    emit(report.to_json() | origins(ctx), as_json, lambda: f"{report.text()}{origins_text(ctx)}")
    ctx.exit(SOME_FAILED if report.has_failures else OK)


# -- stage 2 ---------------------------------------------------------------------------------------------


@main.command("train-head", context_settings=CONTEXT, short_help="Train a light head on stores.")
@options_of(*CONFIGS)
@config_option
@json_option
@click.pass_context
def train_head(ctx: click.Context, /, as_json: bool, **options: Any) -> None:
    """Train a light head on one or more stores; writes a run directory. Opens no video.

    With --sweep or --repeats it trains many and says which is best: one run directory each, below one for all.
    With --recipe it trains the rows of a named experiment and writes its report beside the published results.
    """
    with plain_errors(stopped="stopped; go on with the same command and {run}"):
        config = request(options, given_names(ctx), recorded_names(ctx))
        notes = _about_recipe(ctx, config) if isinstance(config, RecipeConfig) else []
        run = _runner(config)
        with progress_bar("train-head") as show:
            result = run(config, lambda e: show(replace(e, note=notes.pop()) if notes else e))
        changed = changed_since(ctx, json.loads((result.directory / "config.json").read_bytes()))
        text = lambda: f"{result.text()}{origins_text(ctx)}{changed}\n{written(result.directory)}"  # noqa: E731
        emit({**result.results, **origins(ctx)}, as_json, text)
        ctx.exit(SOME_FAILED if result.has_failures else OK)


def _runner(config: TrainConfig | SweepConfig | RecipeConfig) -> Callable[..., Any]:
    from reelbank.heads import run_recipe, sweep, train_head

    calls: dict[type, Callable[..., Any]] = {TrainConfig: train_head, SweepConfig: sweep, RecipeConfig: run_recipe}
    return calls[type(config)]


def _about_recipe(ctx: click.Context, config: RecipeConfig) -> list[str]:
    """What is said when a recipe begins. An option that it decides is refused even where its value is the default."""
    from reelbank.heads.recipes import announcement, refuse_decided

    refuse_decided(config.recipe, given_names(ctx))
    stores, repeats = len(config.train.data.store), config.members.repeats
    return [announcement(config.recipe, repeats=repeats, is_quick=config.quick, num_stores=stores)]


@main.command(context_settings=CONTEXT, short_help="t-SNE, k-means, kNN, linear probe.")
@options_of(ProbeConfig)
@config_option
@json_option
@click.pass_context
def probe(ctx: click.Context, /, as_json: bool, **options: Any) -> None:
    """Look at a store: t-SNE, k-means, nearest neighbours, linear probe; writes pictures and a page."""
    with plain_errors():
        from reelbank.heads import probe as run

        with progress_bar("probe") as show:
            result = run(ProbeConfig(**options), show)
        text = lambda: f"{result.text()}{origins_text(ctx)}\n{written(result.out)}"  # noqa: E731
        emit(result.results | origins(ctx), as_json, text)


@main.command(context_settings=CONTEXT, short_help="Clips of a store that are most like a clip or a file.")
@options_of(FindConfig)
@json_option
def find(as_json: bool, **options: Any) -> None:
    """Find the clips of a store that are most like one of them, or like a file; writes a page with their pictures."""
    with plain_errors(), progress_bar("find") as show:
        from reelbank.extract import extract_as
        from reelbank.heads import find as run

        result = run(config := FindConfig(**options), show, extract=partial(extract_as, weights=config.weights))
    emit(result.results, as_json, result.text)


@main.command(context_settings=CONTEXT, short_help="Apply the head of a run to videos, or to a store.")
@click.argument("videos", nargs=-1, type=PATH, metavar="[VIDEO | FOLDER | TABLE]...")
@options_of(PredictConfig)
@click.option("--out", type=PATH, hidden=True)  # what --csv was called
@json_option
@click.pass_context
def predict(ctx: click.Context, /, videos: tuple[Path, ...], out: Path | None, as_json: bool, **options: Any) -> None:
    """Apply the head of a finished run to videos and pictures, to all in a FOLDER, or to the clips of a TABLE.

    Their features are made as those of the run's stores were. With --store those of a store are taken.
    """
    with plain_errors():
        from reelbank.heads import predict, predict_videos

        asked = {"video": (*videos, *options["video"]), "csv": options["csv"] or out}
        config = PredictConfig(**options | asked)
        call: Any = partial(predict, config.run, config.store)
        if config.video:
            from reelbank.extract import extract_as

            extract = partial(extract_as, weights=config.weights)
            call = partial(predict_videos, config.run, config.video, extract=extract, keep=config.keep)
        with progress_bar("predict") as show:
            found = call(split=config.split, accept_changed_code=config.accept_changed_code, progress=show)
        written = {"csv": str(path)} if (path := config.csv_path) else {}
        if path:
            found.write_csv(path)
        emit(found.to_json() | written, as_json, lambda: found.text() + (f"\nPredictions: {path}" if path else ""))
        ctx.exit(SOME_FAILED if found.failures else OK)


@main.command(short_help="Where heads look in the frames of clips.")
@options_of(ExplainConfig)
@json_option
def explain(as_json: bool, **options: Any) -> None:
    """Draw where the heads of runs look in the frames of clips, beside what they say of them. Opens no video."""
    with plain_errors(), progress_bar("explain") as show:
        from reelbank.heads import explain as run

        result = run(ExplainConfig(**options), show)
    emit(result.to_json(), as_json, result.text)


# -- manifests -------------------------------------------------------------------------------------------


class ReaderGroup(Group):
    """`reelbank manifest`: besides its own commands one per reader that an installed package adds."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *READERS.names()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (command := super().get_command(ctx, cmd_name)) or (cmd_name not in READERS.names() and ":" not in cmd_name):
            return command
        try:
            return _reader_command(cmd_name, READERS.row(cmd_name))
        except ValueError as error:
            problem = str(error)  # of one package: the others are listed and work

        def refuse() -> None:
            raise click.ClickException(problem)

        settings = {"ignore_unknown_options": True, "allow_extra_args": True}
        return Command(cmd_name, callback=refuse, short_help="cannot be used", context_settings=settings)


@main.group(cls=ReaderGroup, context_settings=CONTEXT, short_help="Make a manifest of a data set.")
def manifest() -> None:
    """Make a manifest from a data set in its official layout, from folders, or from any CSV.

    A reader of your own is asked for as module:function.
    """


OUT: Any = {"type": PATH, "default": Path("manifest.csv"), "show_default": True, "help": "Manifest to write."}
out_option = click.option("--out", **OUT)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what is there.")


def _write_manifest(name: str, out: Path, overwrite: bool, as_json: bool, *args: Any, **options: Any) -> None:
    with plain_errors():
        from reelbank import manifests
        from reelbank.manifests.datasets import reader

        made = reader(name)(*args, **{k: v for k, v in options.items() if v not in (None, ())})
        manifests.write(made, out, overwrite=overwrite)
        for note in (*made.notes, *filter(None, [made.warning])):
            say(note, err=True)
        emit(made.to_json() | {"manifest": str(out)}, as_json, lambda: f"{out}: {made.summary()}")


def _rendering_command(name: str, row: RenderedRow) -> click.Command:
    what, folder = row.files

    def command(directory: Path, as_json: bool, **options: Any) -> None:
        with plain_errors():
            module, _, function = row.target.partition(":")
            with progress_bar("render") as show:
                made = getattr(import_module(module), function)(directory, progress=show, **options)
            out = directory / "manifest.csv"
            text = lambda: f"{out}: {made.summary()}\n{what}: {directory / folder}"  # noqa: E731
            emit(made.to_json() | {"manifest": str(out)}, as_json, text)

    decorated: Any = overwrite_option(json_option(command))
    seed = click.IntRange(0, MAX_SEED)
    decorated = click.option("--seed", type=seed, default=0, show_default=True, help="Same seed, same files.")(
        decorated
    )
    for option, count in reversed(list(row.counts.items())):
        limits, flag = click.IntRange(count.least, count.most), f"--{option.replace('_', '-')}"
        decorated = click.option(flag, type=limits, default=count.default, show_default=True, help=count.text)(
            decorated
        )
    decorated = click.argument("directory", type=PATH)(decorated)
    return click.command(name, cls=Command, help=row.text, short_help=row.summary)(decorated)


def _reader_command(name: str, row: ReaderRow) -> click.Command:
    if unknown := sorted(set(row.options) - set(READER_OPTIONS)):
        known = ", ".join(sorted(READER_OPTIONS))
        raise ValueError(f"reader {name!r} ({row.target}): ReaderRow.options has {unknown[0]!r}; choose from {known}")

    def command(source: Path, out: Path, overwrite: bool, as_json: bool, **options: Any) -> None:
        _write_manifest(name, out, overwrite, as_json, source, **options)

    decorated: Any = out_option(overwrite_option(json_option(command)))
    for option in reversed(row.options):
        decorated = READER_OPTIONS[option](decorated)
    decorated = click.argument("source", metavar=row.argument, type=PATH)(decorated)
    made = click.command(name, cls=Command, help=row.layout or row.summary, short_help=row.summary)(decorated)
    made.examples = [("", f"reelbank manifest {name} {row.argument}")]
    return made


for _name, _row in READERS.items():
    manifest.add_command(_reader_command(_name, _row))
for _set, _rendered in RENDERED.items():
    manifest.add_command(_rendering_command(_set, _rendered))

# -- stores ----------------------------------------------------------------------------------------------


@main.group(short_help="Look into, check, mend, join and convert stores.")
def store() -> None:
    """Look into stores; check, repair, compare, join and convert them."""


of_stores = partial(click.argument, cls=NamedArgument, offers="--store", type=PATH)
store_argument = of_stores("path", metavar="STORE")


@store.command(short_help="Taps, shapes, spec, weights, clips.")
@store_argument
@json_option
def info(path: Path, as_json: bool) -> None:
    """What is in a store: taps, shapes, spec, weights, clips done and failed."""
    with plain_errors():
        from reelbank.store.description import describe

        described = describe(path)
        emit(described.to_json(), as_json, described.text)


@store.command(short_help="Check every byte of a store, and mend it.")
@store_argument
@click.option("--repair", is_flag=True, help="Mend what can be mended; mark clips that must be extracted again.")
@json_option
@click.pass_context
def verify(ctx: click.Context, path: Path, repair: bool, as_json: bool) -> None:
    """Check every byte of a store; exit status 1 if anything is wrong, or still is after --repair."""
    with plain_errors():
        import reelbank.store

        with progress_bar("verify") as show:
            found = (reelbank.store.repair if repair else reelbank.store.verify)(path, show)
        emit(found.to_json(), as_json, found.text)
        ctx.exit(OK if found.is_sound else SOME_FAILED)


@store.command(short_help="Add the checksums that an earlier version did not write.")
@store_argument
@json_option
def upgrade(path: Path, as_json: bool) -> None:
    """Put every array and document of a store under a checksum; stores of this version have them."""
    with plain_errors():
        import reelbank.store

        with progress_bar("verify") as show:
            result = reelbank.store.upgrade(path, show)
        emit(result.to_json(), as_json, result.text)


@store.command("export", short_help="As HDF5, .npy files, safetensors or a table.")
@store_argument
@click.argument("out", type=PATH)
@options_of(ExportConfig)
@json_option
def export_(path: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Write a store to OUT as HDF5, .npy files, safetensors or Parquet, for programs that read those."""
    with plain_errors():
        from reelbank.store import export

        with progress_bar("export") as show:
            result = export(path, out, ExportConfig(**options), show)
        emit(result.to_json(), as_json, result.text)


@store.command("import", short_help="A store from HDF5, .npy files or safetensors.")
@click.argument("src", type=PATH)
@store_argument
@options_of(ImportConfig)
@json_option
@click.pass_context
def import_(ctx: click.Context, /, src: Path, path: Path, as_json: bool, **options: Any) -> None:
    """Make a store of the arrays in SRC: an export, or features that another program computed."""
    with plain_errors():
        from reelbank.store import import_store

        with progress_bar("import") as show:
            result = import_store(src, path, ImportConfig(**options), show)
        emit(result.to_json(), as_json, result.text)
        ctx.exit(SOME_FAILED if result.has_failures else OK)


@store.command("diff", short_help="How two stores differ.")
@of_stores("a")
@of_stores("b")
@json_option
@click.pass_context
def diff_(ctx: click.Context, a: Path, b: Path, as_json: bool) -> None:
    """Say how the stores A and B differ: spec, clips, labels, features; exit status 1 if they do."""
    with plain_errors():
        from reelbank.store import diff

        with progress_bar("diff") as show:
            found = diff(a, b, show)
        emit(found.to_json(), as_json, found.text)
        ctx.exit(OK if found.equal else SOME_FAILED)


@store.command("merge", short_help="Several stores of one spec as one.")
@click.argument("out", type=PATH)
@of_stores("stores", nargs=-1, required=True)
@overwrite_option
@json_option
def merge_(out: Path, stores: tuple[Path, ...], overwrite: bool, as_json: bool) -> None:
    """Join STORES of one spec into the new store OUT; of a clip that several have, the done one is taken."""
    with plain_errors():
        from reelbank.store import merge

        with progress_bar("merge") as show:
            result = merge(out, stores, overwrite=overwrite, progress=show)
        emit(result.to_json(), as_json, result.text)


@store.command(short_help="Extract the failed clips again.")
@store_argument
@click.option("--manifest", type=PATH, help="Its manifest.  [default: as featurize finds it]")
@click.option("--weights", help="Weights file or run, if the store was made from one that has moved.")
@click.option("--workers", type=click.IntRange(1, MAX_CPUS), help="Worker processes.  [default: one per core]")
@json_option
@click.pass_context
def retry(
    ctx: click.Context, path: Path, manifest: Path | None, weights: str | None, workers: int | None, as_json: bool
) -> None:
    """Extract the failed clips of a store again, and those that `verify --repair` marked, as the others were."""
    with plain_errors(stopped=GOES_ON):
        from reelbank.extract.run.repeating import retry_config

        config = retry_config(path, manifest=manifest, weights=weights, workers=workers)
        if config is None:
            emit({"stores": []}, as_json, lambda: f"{path}: no clip has failed or is damaged, nothing to do")
            return
        _featurize(ctx, config, as_json)


# -- what there is ---------------------------------------------------------------------------------------


@main.command(short_help="List backbones: taps, shapes, weights.")
@click.argument("name", cls=NamedArgument, offers="--model", required=False, default="")
@json_option
def backbones(name: str, as_json: bool) -> None:
    """List the backbones: taps, shapes, bytes per step, weights, licence. With NAME: those whose name holds it."""
    with plain_errors():
        from reelbank.extract.backbones import listing

        emit(listing.to_json(name), as_json, lambda: listing.text(None if sys.stdout.isatty() else 110, name))


def _listing(kind: str, module: str, table: str) -> click.Command:
    @click.command(kind, cls=Command, help=f"List the {kind}, with what installed packages add.")
    @json_option
    def command(as_json: bool) -> None:
        rows = getattr(import_module(module), table)
        emit(rows.to_json(), as_json, rows.text)

    return command


for _kind, _module, _table in (
    ("analyses", "reelbank.heads.probes", "PROBES"),
    ("losses", "reelbank.heads.losses", "LOSSES"),
    ("metrics", "reelbank.heads.judging.metrics", "METRICS"),
):
    main.add_command(_listing(_kind, _module, _table))


@main.command(short_help="List the heads, or describe one.")
@click.argument("name", cls=NamedArgument, offers="--head", required=False)
@click.option(
    "--outputs", type=click.IntRange(1, 1_000_000), help="With NAME: classes to count numbers for.  [default: 10]"
)
@click.option(
    "--width", type=click.IntRange(1, 1_000_000), help="With NAME: numbers per step that it reads.  [default: 512]"
)
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="With NAME: an option of the head.")
@click.option(
    "--listing",
    is_flag=True,
    help="With NAME: its layers, what each gives, and what they take in memory, for one clip.",
)
@json_option
def heads(
    name: str | None, outputs: int | None, width: int | None, options: tuple[str, ...], listing: bool, as_json: bool
) -> None:
    """List the heads, with what installed packages add. With NAME: its options, stages, and how much each trains."""
    with plain_errors():
        if name is None:
            from reelbank.heads.models import HEADS

            if outputs or width or options or listing:
                raise click.UsageError("--outputs, --width, --option and --listing describe one head: name it")
            emit(HEADS.to_json(), as_json, HEADS.text)
            return
        if listing:
            from reelbank.heads.models.layer_listing import describe_layers, layers_text

            layers = describe_layers(name, options, outputs=outputs or 10, width=width or 512)
            emit(layers, as_json, lambda: layers_text(layers))
            return
        from reelbank.heads.models.listing import describe_head, head_text

        facts = describe_head(name, options, outputs=outputs or 10, width=width or 512)
        emit(facts, as_json, lambda: head_text(facts))


@main.command(short_help="List the recipes: named experiments.")
@click.argument("name", cls=NamedArgument, offers="--recipe", required=False)
@json_option
def recipes(name: str | None, as_json: bool) -> None:
    """List the recipes: experiments that `train-head --recipe NAME` trains row by row. With NAME: the rows of one."""
    with plain_errors():
        from reelbank.heads.recipes import detail_text, listing, listing_text, recipe

        if name is None:
            emit(listing(), as_json, listing_text)
        else:
            emit(recipe(name).to_json(), as_json, lambda: detail_text(name))


@main.command(short_help="Cores, devices, disk and weights here.")
@click.option("--manifest", type=PATH, help="Also look at the clips of this manifest.")
@click.option("--model", cls=GroupedOption, multiple=True, help="Estimate time and needs of this backbone on them.")
@click.option("--sampling", multiple=True, help="With --model: which frames, as for featurize.")
@click.option("--device", default="auto", show_default=True, help="With --model: as for featurize.")
@json_option
def doctor(
    manifest: Path | None, model: tuple[str, ...], sampling: tuple[str, ...], device: str, as_json: bool
) -> None:
    """Say what this machine has: cores, devices, decoder, disk, weights; and what a manifest would need.

    With --model a few clips are extracted and thrown away: about 20 s for an estimate of a run's time, bytes, memory.
    """
    with plain_errors():
        from reelbank.extract.doctor import examine

        if (sampling or device != "auto") and not model:
            raise click.UsageError("--sampling and --device go with --model: of which time and needs are told")
        frames = sampling or (DEFAULT_SAMPLING,)
        run = FeaturizeConfig(model=model, manifest=manifest, device=device, sampling=frames) if model else None
        with progress_bar("doctor") as show:
            found = examine(manifest, run=run, progress=show)
        emit(found.to_json(), as_json, found.text)


@main.command(short_help="What makes the Tab key complete names.")
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
def completion(shell: str, as_json: bool) -> None:
    """Print what SHELL must read for the Tab key to complete commands, models, heads, recipes, stores and taps."""
    emit({"shell": shell, "script": scripts(shell)}, as_json, lambda: scripts(shell))


# The other console scripts. `reelbank` is `main`.
featurize_main = partial(featurize, prog_name="featurize")
train_head_main = partial(train_head, prog_name="train-head")
probe_main = partial(probe, prog_name="probe")

if __name__ == "__main__":  # `python -m reelbank.cli`, where the scripts are not on the path
    main(prog_name="reelbank")
