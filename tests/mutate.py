"""Breaks the code on purpose, one small change at a time, and says which changes no test notices.

    PYTHONPATH=build/types python tests/mutate.py [FILE[:LINE] ...] [--count N] [--seed S] [--workers W] [--json PATH]

Each change ("mutant") is tried in a forked process in which the heavy libraries are already imported: the changed
text takes the place of the module, no file is touched, and the tests that `GUARDS` names for the file run until one
fails. Survivors are printed as a diff; they are either a missing test or a change that makes no difference. Exit
status 1 if there are any. Texts of errors and of f-strings, annotations and docstrings are left as they are.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import gc
import importlib.abc
import importlib.util
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
WARM = (
    "numpy torch torch._dynamo scipy.stats sklearn.metrics sklearn.linear_model sklearn.neighbors sklearn.cluster av "
    "zarr safetensors.torch pytest hypothesis PIL.Image rich.console rich.table matplotlib.figure"
)

_JUDGING = "test_judging_metrics test_judging_intervals test_judging_verdicts test_judging_results test_judging_peers"
_RUNS = "test_runs_judged test_judging_results test_judging_golden"
_SWEEPS = "test_sweeps_choice test_sweeps_stepwise"
_RECIPES = "test_judging_recipes test_recipes_judging test_recipes_studies"
_VIDEO = "test_inputs_sampling_plan test_video_frames test_video_truncation"

# The files whose errors would flatter, and the tests that stand guard over each, quickest first.
GUARDS: dict[str, str] = {
    "heads/judging/metrics.py": _JUDGING,
    "heads/judging/baselines.py": "test_judging_baselines " + _JUDGING,
    "heads/judging/intervals.py": "test_judging_intervals " + _JUDGING,
    "heads/judging/evaluation.py": "test_judging_verdicts test_judging_results test_judging_baselines test_runs_judged",
    "heads/runs/run.py": _RUNS,
    "heads/runs/results.py": _RUNS,
    "heads/runs/directory.py": _RUNS + " test_runs_predicted",
    "heads/runs/recording.py": "test_runs_recording test_runs_judged test_runs_predicted",
    "heads/runs/checkpoints.py": "test_runs_recording test_runs_epochs test_runs_predicted",
    "heads/runs/watching.py": "test_runs_recording",
    "heads/runs/predicting.py": "test_runs_predicted",
    "heads/sweeps/report.py": "test_sweeps_pictures " + _SWEEPS,
    "heads/sweeps/grid.py": "test_sweeps_grid " + _SWEEPS,
    "heads/sweeps/sweep.py": "test_sweeps_stepwise",
    "heads/sweeps/config.py": "test_sweeps_grid",
    "heads/sweeps/stacked.py": "test_sweeps_executors test_sweeps_memory",
    "heads/sweeps/stack.py": "test_sweeps_executors test_sweeps_memory",
    "heads/sweeps/member_pool.py": "test_sweeps_executors",
    "heads/training/trainer.py": "test_runs_epochs test_judging_golden",
    "heads/examples/splits.py": "test_judging_parts test_examples_splits",
    "heads/examples/overlap.py": "test_examples_splits test_judging_parts test_examples_parting",
    "heads/examples/parting.py": "test_examples_parting",
    "manifests/drawing.py": "test_examples_parting test_manifests_held_out",
    "heads/examples/pixel_augment.py": "test_examples_pixel_augment",
    "heads/examples/steps.py": "test_examples_steps test_examples_arrays",
    "heads/examples/labelling.py": "test_judging_parts",
    "heads/examples/normalization.py": "test_judging_parts test_examples_prepared",
    "heads/examples/targets.py": "test_judging_targets test_examples_targets test_losses",
    "heads/recipes/measures.py": _RECIPES,
    "heads/recipes/numbers.py": _RECIPES,
    "heads/recipes/judging.py": _RECIPES,
    "heads/recipes/run.py": "test_judging_recipes test_recipes_run",
    "heads/probes/neighbours.py": "test_judging_probes test_probes_neighbours",
    "heads/probes/cluster_reading.py": "test_judging_probes test_probes_kmeans",
    "extract/inputs/intervals.py": "test_inputs_sampling_rules test_inputs_sampling",
    "extract/inputs/frame_choice.py": "test_inputs_sampling_rules test_inputs_sampling",
    "extract/inputs/sampling.py": "test_inputs_sampling_rules test_inputs_sampling",
    "extract/video/scan.py": _VIDEO,
    "extract/video/plan.py": _VIDEO,
    "extract/video/decode.py": _VIDEO + " test_video_damage",
    "extract/video/counting.py": "test_video_damage " + _VIDEO,
    "extract/video/damage.py": "test_video_damage " + _VIDEO,
    "extract/video/listing.py": "test_video_damage",
    "extract/video/sequential.py": _VIDEO + " test_video_damage",
    "extract/video/timeline.py": "test_video_times test_video_origin " + _VIDEO,
}

_COMPARISONS = (
    "Lt LtE|Lt Gt|LtE Lt|LtE GtE|Gt GtE|Gt Lt|GtE Gt|GtE LtE|Eq NotEq|NotEq Eq|Is IsNot|IsNot Is|In NotIn|NotIn In"
)
_ARITHMETIC = (
    "Add Sub|Sub Add|Mult Div|Div Mult|FloorDiv Mult|Mod FloorDiv|Pow Mult|BitAnd BitOr|BitOr BitAnd|MatMult Mult"
)
_NAMES = (
    "min max|any all|argmin argmax|floor ceil|zeros ones|low high|train test|val test|left right|truth predicted|"
    "best_epoch epochs_run|last_loss best_loss|first last|start end|start stop|best last|isfinite isnan|"
    "minimum maximum|val_loss val_mae|val_accuracy val_loss|fitted judged|queries donors|unknown test|"
    "validation reported-set|median mean|mean max|std mean|sum max|intersect1d union1d|pts dts|fitted choosing|"
    "quantile percentile"
)


def _table(pairs: str) -> dict[str, list[str]]:
    """{name: what stands in its place} of "A B|A C|..."."""
    table: dict[str, list[str]] = {}
    for name, other in (pair.split() for pair in pairs.split("|")):
        table.setdefault(name, []).append(other)
    return table


COMPARISONS, ARITHMETIC = _table(_COMPARISONS), _table(_ARITHMETIC)
SWAPS = _table(_NAMES + "|" + "|".join(" ".join(pair.split()[::-1]) for pair in _NAMES.split("|")))
# Names that exist wherever numpy does; calls whose arguments may change places; calls that are tried without the call.
NUMPY_NAMES = "min max any all argmin argmax floor ceil zeros ones median mean std sum isfinite isnan"
SYMMETRIC = "min max minimum maximum isclose intersect1d union1d correlation macro_f1 whole"
UNWRAPPED = "abs sort sorted unique round floor ceil sqrt set list reversed"


@dataclass(frozen=True)
class Mutant:
    """One change: the text of `path` with `before` at `line` replaced by `after`."""

    path: str
    line: int
    kind: str
    before: str
    after: str
    text: str


def mutants_of(path: str) -> list[Mutant]:
    """Every change that is tried for a file."""
    source = (ROOT / path).read_text("utf-8")
    tree = ast.parse(source)
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    names |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)} | set(NUMPY_NAMES.split())
    names |= {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    names |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    made: dict[str, Mutant] = {}
    for anchor, owner, field, index, kind, new in _sites(tree, names):
        begin = starts[anchor.lineno - 1] + anchor.col_offset
        stop = starts[(anchor.end_lineno or 0) - 1] + (anchor.end_col_offset or 0)
        text = _changed(anchor, owner, field, index, new)
        whole = (source.encode()[:begin] + text.encode() + source.encode()[stop:]).decode()
        before = source.encode()[begin:stop].decode()
        made.setdefault(whole, Mutant(path, anchor.lineno, kind, " ".join(before.split()), text, whole))
    return list(made.values())


def _changed(anchor: ast.AST, owner: ast.AST, field: str, index: int | None, new: ast.AST) -> str:
    """The text of `anchor` with one of the fields of `owner`, which lies in it, replaced; `owner` is left as it was."""
    if owner is anchor and field == "":
        text = ast.unparse(new)
    else:
        held = getattr(owner, field)
        changed = new if index is None else [*held[:index], new, *held[index + 1 :]]
        setattr(owner, field, changed)
        text = ast.unparse(anchor)
        setattr(owner, field, held)
    return text if isinstance(anchor, ast.stmt | ast.JoinedStr) else f"({text})"


Site = tuple[ast.AST, ast.AST, str, int | None, str, ast.AST]


def _sites(tree: ast.Module, names: set[str]) -> Iterator[Site]:
    """(node whose text is replaced, owner, field, index, kind, new node) of every change."""

    def walk(node: ast.AST, anchor: ast.AST | None) -> Iterator[Site]:
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "msg", "format_spec", "op", "ctx"):
                continue
            for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if not isinstance(child, ast.AST) or _is_left(node, child):
                    continue
                if isinstance(child, ast.stmt | ast.expr):
                    for kind, new in _changes(child, node, names):
                        if anchor is None:
                            yield child, child, "", None, kind, new
                        else:
                            yield anchor, node, field, index, kind, new
                inside = child if anchor is None and isinstance(child, ast.JoinedStr) else anchor
                yield from walk(child, inside)

    return walk(tree, None)


def _is_left(parent: ast.AST, node: ast.AST) -> bool:
    """Docstrings, imports, asserts, error texts, and what only type checkers read."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(parent, ast.Raise):
        return True
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return True
    if isinstance(parent, ast.JoinedStr) and isinstance(node, ast.Constant):
        return True
    return isinstance(node, ast.Import | ast.ImportFrom | ast.Assert | ast.AnnAssign) and not (
        isinstance(node, ast.AnnAssign) and node.value is not None
    )


def _changes(node: ast.AST, parent: ast.AST, names: set[str]) -> Iterator[tuple[str, ast.AST]]:
    """(kind, new node) of every change of one node."""
    if isinstance(node, ast.stmt):
        yield from _statement_changes(node)
        return
    if isinstance(parent, ast.If | ast.While) and node is parent.test:
        yield "condition", ast.UnaryOp(ast.Not(), node)
        yield "condition", ast.Constant(False)
    match node:
        case ast.Compare():
            for place, op in enumerate(node.ops):
                for other in COMPARISONS[type(op).__name__]:
                    ops = [*node.ops[:place], getattr(ast, other)(), *node.ops[place + 1 :]]
                    yield "comparison", ast.Compare(node.left, ops, node.comparators)
        case ast.BinOp():
            yield from (("arithmetic", ast.BinOp(node.left, op, node.right)) for op in _other_operators(node.op))
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            if not isinstance(node.operand, ast.Constant):
                yield "unary", node.operand
        case ast.BoolOp():
            yield "and/or", ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
            for place in range(len(node.values)):
                left = [*node.values[:place], *node.values[place + 1 :]]
                yield "operand dropped", left[0] if len(left) == 1 else ast.BoolOp(node.op, left)
        case ast.IfExp():
            yield "branches", ast.IfExp(node.test, node.orelse, node.body)
        case ast.Constant():
            yield from (("constant", ast.Constant(new)) for new in _other_constants(node.value, parent, names))
        case ast.Name(ctx=ast.Load()):
            yield from (("name", ast.Name(new, ast.Load())) for new in SWAPS.get(node.id, []) if new in names)
        case ast.Attribute(ctx=ast.Load()):
            others = [new for new in SWAPS.get(node.attr, []) if new in names]
            yield from (("name", ast.Attribute(node.value, new, ast.Load())) for new in others)
        case ast.Call():
            yield from _call_changes(node)
        case ast.Subscript(slice=ast.Slice() as cut):
            for bound in ("lower", "upper", "step"):
                if getattr(cut, bound) is not None:
                    new = copy.copy(cut)
                    setattr(new, bound, None)
                    yield "slice", ast.Subscript(node.value, new, node.ctx)
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
            for place, loop in enumerate(node.generators):
                if loop.ifs:
                    new_node = copy.copy(node)
                    bare = ast.comprehension(loop.target, loop.iter, [], loop.is_async)
                    new_node.generators = [*node.generators[:place], bare, *node.generators[place + 1 :]]
                    yield "filter", new_node


def _call_changes(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in UNWRAPPED.split() and len(node.args) == 1 and not node.keywords:
        yield "call dropped", node.args[0]
    for place in range(len(node.keywords)):
        yield "keyword", ast.Call(node.func, node.args, [*node.keywords[:place], *node.keywords[place + 1 :]])
    first = node.args[:2]
    if len(first) == 2 and name not in SYMMETRIC.split() and not any(isinstance(arg, ast.Starred) for arg in first):
        yield "arguments", ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
    if name == "sorted" and not any(keyword.arg == "reverse" for keyword in node.keywords):
        backwards = ast.keyword("reverse", ast.Constant(True))
        yield "order", ast.Call(node.func, node.args, [*node.keywords, backwards])


def _other_operators(op: ast.operator) -> list[ast.operator]:
    return [getattr(ast, other)() for other in ARITHMETIC.get(type(op).__name__, [])]


def _other_constants(value: object, parent: ast.AST, names: set[str]) -> list[object]:
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, value - 1]
        case float():
            return [value * 2, value / 2] if value else [1.0]
        case str() if value in SWAPS:
            return [new for new in SWAPS[value] if new in names]
        case str() if value and isinstance(parent, ast.Compare | ast.Subscript):
            return [f"{value}X"]
    return []


def _statement_changes(node: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.AugAssign():
            yield from (("arithmetic", ast.AugAssign(node.target, op, node.value)) for op in _other_operators(node.op))
            yield "deleted", ast.Pass()
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield "returned", ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call() | ast.Yield()) | ast.Raise() | ast.Delete():
            yield "deleted", ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "deleted", ast.Pass()
        case ast.Continue():
            yield "loop", ast.Break()
        case ast.Break():
            yield "loop", ast.Continue()


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Serves one module from a text in memory."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = "reelbank." + mutant.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        self._path, self._text = str(ROOT / mutant.path), mutant.text

    def find_spec(self, fullname: str, path: object, target: ModuleType | None = None) -> object:  # type: ignore[override]
        return importlib.util.spec_from_loader(fullname, self) if fullname == self._name else None

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_data(self, path: str | bytes) -> bytes:
        return self._text.encode()


PYTEST = ("-x", "-q", "--tb=line", "--assert=plain", "-p", "no:cacheprovider")


def _warm_up(folder: Path) -> None:
    """Loads what every run needs, so that a fork has it: a run of no tests loads the inside of pytest."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # looking for plugins takes longer than most tests
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in WARM.split():
            importlib.import_module(name)
    import pytest

    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main([*PYTEST, str(folder)])
    gc.freeze()


def _run_tests(mutant: Mutant | None, guards: str, log: Path) -> None:
    """In a forked process: the exit status is pytest's."""
    os.setpgid(0, 0)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if mutant is not None:
        sys.meta_path.insert(0, _Changed(mutant))
    import hypothesis
    import pytest

    hypothesis.settings.register_profile("mutate", deadline=None, database=None, derandomize=True)
    hypothesis.settings.load_profile("mutate")
    files = [str(ROOT / "tests" / f"{name}.py") for name in guards.split()]
    os._exit(int(pytest.main([*PYTEST, *files])))


def _outcome(mutant: Mutant | None, guards: str, timeout: float, folder: Path) -> tuple[str, float]:
    """('killed' | 'survived' | 'timeout', seconds)."""
    started, log = time.perf_counter(), folder / f"{os.getpid()}.log"
    log.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            _run_tests(mutant, guards, log)
        finally:  # whatever happened, this process is not the one that goes on
            traceback.print_exc()
            os._exit(99)
    while time.perf_counter() - started < timeout:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            survived = os.waitstatus_to_exitcode(status) == 0
            return "survived" if survived else "killed", time.perf_counter() - started
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout", time.perf_counter() - started


def _worker(share: Sequence[Mutant], timeouts: dict[str, float], folder: Path, report: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with report.open("w", encoding="utf-8") as file:
        for mutant in share:
            outcome, seconds = _outcome(mutant, GUARDS[mutant.path], timeouts[mutant.path], folder)
            entry = asdict(mutant) | {"outcome": outcome, "seconds": round(seconds, 2)}
            del entry["text"]
            file.write(json.dumps(entry) + "\n")
            file.flush()
            if outcome == "survived":
                print(
                    f"{mutant.path}:{mutant.line} [{mutant.kind}]\n  - {mutant.before}\n  + {mutant.after}", flush=True
                )
    os._exit(0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Tries the mutants of the files named (all of `GUARDS` by default)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", help="FILE or FILE:LINE of GUARDS")
    parser.add_argument("--count", type=int, default=0, help="mutants of each file, drawn at random; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None, help="write every mutant and its outcome here")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT / "tests"))
    os.chdir(ROOT)
    asked = [name.partition(":")[::2] for name in options.files] or [(name, "") for name in GUARDS]
    with tempfile.TemporaryDirectory(prefix="mutate-") as name:
        folder, todo, timeouts = Path(name), [], {}
        _warm_up(folder)
        for path, line in asked:
            outcome, seconds = _outcome(None, GUARDS[path], 600.0, folder)
            if outcome != "survived":
                log = (folder / f"{os.getpid()}.log").read_text("utf-8")
                raise SystemExit(f"{path}: the tests fail without any change:\n{log}")
            timeouts[path] = 20 + 4 * seconds
            found = [mutant for mutant in mutants_of(path) if not line or mutant.line == int(line)]
            if options.count and options.count < len(found):
                found = random.Random(options.seed).sample(found, options.count)
            print(f"{path}: {len(found)} mutants, {seconds:.1f} s each at most", flush=True)
            todo += found
        reports = [folder / f"{worker}.jsonl" for worker in range(options.workers)]
        children = []
        for worker, report in enumerate(reports):
            child = os.fork()
            if child == 0:
                _worker(todo[worker :: options.workers], timeouts, folder, report)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        entries = [json.loads(line) for report in reports for line in report.read_text("utf-8").splitlines()]
    for path in timeouts:
        own = [entry["outcome"] for entry in entries if entry["path"] == path]
        print(f"{path}: " + ", ".join(f"{own.count(name)} {name}" for name in ("killed", "timeout", "survived")))
    if options.json is not None:
        options.json.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return int(any(entry["outcome"] == "survived" for entry in entries))


if __name__ == "__main__":
    sys.exit(main())
