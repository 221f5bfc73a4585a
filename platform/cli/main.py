"""The `crossview` command. Only the chosen command's modules are imported: `--help` needs neither torch nor ray."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO

import tyro

from crossview.errors import NODE_OUT_OF_MEMORY, OUT_OF_MEMORY, DataWarning, UserError
from crossview.platform.cli.evaluate import embed, evaluate
from crossview.platform.cli.jobs import check_cluster, logs, status, stop, submit
from crossview.platform.cli.options import parse, parse_train, parse_tune
from crossview.platform.cli.outputs import check_folder
from crossview.platform.cli.view import view
from crossview.platform.config import Compute, method_names, presets, trainer_names
from crossview.storage import is_file, is_local, named

Run = Annotated[Path, tyro.conf.Positional]
Runs = Annotated[tuple[Path, ...], tyro.conf.Positional]


def train(args: Sequence[str]) -> None:
    """Train a method, or a downstream trainer on top of one."""
    method, launch = parse_train(args)
    from crossview.platform.run_folder import free_folder, named_folder
    from crossview.platform.train.launcher import start, trains_here

    run = named_folder(launch.runs, launch.name) if launch.name else free_folder(launch.runs, method)
    here = launch.debug or trains_here(method, launch.experiment)
    controls = getattr(launch, "controls", False)
    start(run, method, launch.experiment, in_process=here, validation=launch.validation, controls=controls)
    print(f"Training finished. The run is saved to {run}; next: crossview evaluate {run}")


def tune(args: Sequence[str]) -> None:
    """Search a method's options by a downstream metric."""
    if args and args[0] == "--resume":
        parse(_resume_search, args=args[1:], prog="crossview tune --resume")
        return
    method, launch = parse_tune(args)
    from crossview.platform.run_folder import free_folder, named_folder
    from crossview.platform.tune.runner import start

    folder = named_folder(launch.runs, launch.name) if launch.name else free_folder(launch.runs, f"tune-{method}")
    start(folder, method, launch.experiment, launch.settings)


def _resume_search(search: Run, /, runs: Path = Path("runs")) -> None:
    """Resume an interrupted search.

    Args:
        search: Its folder, or its name in --runs.
        runs: Folder of searches.

    """
    from crossview.platform.tune.runner import resume as resume_search

    resume_search(search if search.is_dir() else runs / search)


def resume(run: Run, /, debug: bool = False) -> None:
    """Resume a run from its latest checkpoint.

    Args:
        run: The run folder.
        debug: Run in this process, without Ray.

    """
    from crossview.platform.config import read
    from crossview.platform.run_folder import require
    from crossview.platform.train.launcher import resume as resume_run
    from crossview.platform.train.launcher import trains_here

    resume_run(run, in_process=debug or trains_here(*read(require(run))))
    print(f"Training finished. The run is saved to {run}")


def report(runs: Runs = (), /, out: Path | None = None, serve: Path | None = None, port: int = 8270) -> None:
    """Write the HTML page of a run with its figures, of a search, or of several runs side by side; or serve them all.

    Args:
        runs: A run's folder, a search's, or those of several runs to compare. The first of them, with all that differ
            from it in the seed alone, is what the others are compared with.
        out: The page of a comparison, by default comparison.html beside the first run.
        serve: A folder of runs to show in the browser, on this machine alone, with pages that follow what trains.
        port: Where; 0 takes a free one.

    """
    if serve is not None:
        if runs or out is not None:
            raise UserError("--serve shows all runs of one folder: leave out the runs' names and --out")
        _serve(serve, port)
        return
    from crossview.platform.report.comparison import compare
    from crossview.platform.report.figures import draw
    from crossview.platform.report.run_report import report as write
    from crossview.platform.tune import spec
    from crossview.platform.tune.report import publish

    if not runs:
        raise UserError("name the folder of a run or of a search, or those of several runs to compare")
    first = runs[0]
    if len(runs) > 1:
        print(f"The comparison is saved to {compare(runs, out or first.parent / 'comparison.html')}")
        return
    if out is not None:
        raise UserError(f"--out {out}: one run's page is report.html in its folder; leave --out out, or name more runs")
    if is_file(first / spec.FILE):
        publish(first)
        return
    draw(first)
    print(f"The report is saved to {write(first)}")


def _serve(folder: Path, port: int) -> None:
    from crossview.platform.report.server import Server

    with Server(folder, port) as server:
        print(f"The runs of {folder} are shown at {server.url} until you press Ctrl+C", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def reproduce(
    what: Annotated[str | None, tyro.conf.Positional] = None,
    /,
    list_: Annotated[bool, tyro.conf.arg(name="list")] = False,
    synthetic: bool = False,
    catalog: tuple[str, ...] = (),
    protocol: Annotated[tuple[str, ...], tyro.conf.arg(name="data.protocol")] = (),
    seeds: int | None = None,
    out: Path | None = None,
    jobs: int | None = None,
    compute: Compute = Compute(),  # noqa: B008 - frozen
    train_base: bool = False,
) -> None:
    """Run all that a paper's table or a method's study takes, and print it.

    What was interrupted is resumed.

    Args:
        what: PAPER:TABLE, e.g. byov:ae2, or METHOD:STUDY, e.g. byov:synthetic; bench:synthetic is all methods side by
            side.
        list_: List the tables, what data each takes and how long.
        synthetic: Run a table scaled down, on synthetic exports in its datasets' layouts.
        catalog: Catalogs that a table reads: CATALOG, or NAME=CATALOG for each where it reads several datasets. Of
            the bench: a catalog of videos in place of its synthetic world.
        protocol: Their protocols in place of the table's, given likewise.
        seeds: Seeds of a table; by default 3, or 1 with --synthetic.
        out: Folder of its runs, runs/METHOD-NAME by default.
        jobs: Runs trained side by side, by default one per GPU, or per core without any.
        compute: What each run of a table executes on.
        train_base: Train the base encoder of a study, which some ship, again.

    """
    from crossview.platform.progress import console
    from crossview.platform.reproduce.paper_list import listing, tables

    if list_:
        console.print(listing())
        return
    if what is None:
        raise UserError("name a table or study, such as byov:ae2; `crossview reproduce --list` lists the tables")
    if out is not None:
        _on_a_disk(out)
    if (table := tables().get(what)) is not None:
        from crossview.platform.reproduce.paper_runs import Request, run_table

        if train_base:
            raise UserError(f"--train-base: {what} is a table, which has no base of a study; leave it out")
        folder = out or Path("runs") / f"{what.replace(':', '-')}{'-synthetic' if synthetic else ''}"
        run_table(
            what,
            table,
            Request(
                out=folder.resolve(),
                synthetic=synthetic,
                catalogs=catalog,
                protocols=protocol,
                seeds=seeds,
                jobs=jobs,
                compute=compute,
            ),
        )
        return
    from crossview.platform.reproduce.runner import BENCH
    from crossview.platform.reproduce.runner import reproduce as run_study

    given: dict[str, object] = {"--synthetic": synthetic, "--seeds": seeds}
    if not what.startswith(f"{BENCH}:"):
        given |= {"--catalog": catalog, "--data.protocol": protocol}
    if wrong := [option for option, value in given.items() if value]:
        raise UserError(f"{wrong[0]}: only tables take it, and {what} is none (see --list); leave it out")
    if len(catalog) > 1 or len(protocol) > 1:
        raise UserError(f"{what} reads one catalog; pass --catalog CATALOG and --data.protocol NAME once")
    run_study(
        what,
        out,
        jobs,
        train_base=train_base,
        catalog=Path(catalog[0]) if catalog else None,
        protocol=protocol[0] if protocol else None,
    )


def info() -> None:
    """Print versions, devices, methods and downstream trainers with their presets."""
    import torch

    from crossview.platform.run_folder import provenance

    facts = provenance()
    for name, version in facts["versions"].items():
        print(f"{name} {version}")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"commit {facts['commit']}; {os.cpu_count()} cores; GPUs: {', '.join(gpus) or 'none'}")
    for name in (*method_names(), *trainer_names()):
        print(f"{name}: presets {', '.join(presets(name))}")


def prepare(args: Sequence[str]) -> None:
    """Catalog a dataset, copy its videos, or add teachers' outputs."""
    from crossview.platform.cli.prepare import run

    run(args)


PARSED: dict[str, Callable[..., None]] = {
    "view": view,
    "resume": resume,
    "embed": embed,
    "report": report,
    "reproduce": reproduce,
    "info": info,
    "status": status,
    "logs": logs,
    "stop": stop,
    "check-cluster": check_cluster,
}
BY_HAND: dict[str, Callable[..., None]] = {
    "prepare": prepare,
    "train": train,
    "tune": tune,
    "evaluate": evaluate,
    "submit": submit,
}
COMMANDS: dict[str, Callable[..., None]] = {**BY_HAND, **PARSED}
GROUPS = {
    "Data": ("prepare", "view"),
    "Training": ("train", "resume", "tune"),
    "Evaluation": ("embed", "evaluate", "report", "reproduce"),
    "Clusters": ("check-cluster", "submit", "status", "logs", "stop"),
    "Other": ("info",),
}
"""Of the overview."""
DEFECT = (
    "error: this is a defect of Crossview, not of your input. Please report it with the traceback above, the command, "
    "and what `crossview info` prints."
)
FIXES = {
    errno.EACCES: "you may not read or write there: change its permissions, or name another place",
    errno.EADDRINUSE: "another process listens there: end it, or name another port",
    errno.EDQUOT: "your quota is used up: delete what is not needed, or name another place",
    errno.EISDIR: "name a file",
    errno.ENOENT: "name what exists",
    errno.ENOSPC: "the disk is full: delete what is not needed, or name another place",
    errno.ENOTDIR: "name a folder",
    errno.EROFS: "nothing can be written there: name another place",
}
"""What to do about the errors of the operating system."""


def _storage(error: OSError) -> str:
    """An error of the operating system as a line that begins with the file, and what to do about it."""
    if error.filename is None or error.strerror is None:
        return str(error)
    fix = FIXES.get(error.errno or 0)
    return f"{error.filename}: {error.strerror}{f'; {fix}' if fix else ''}"


def _unknown(what: str, given: str, names: Sequence[str] | dict[str, Any]) -> UserError:
    return UserError(f"{what} {given!r} is unknown; choose from {', '.join(names)}")


def _on_a_disk(out: Path) -> None:
    """A study or table renders videos and links weights in its folder."""
    if not is_local(out):
        raise UserError(f"--out {out}: a study or table must be on a disk or a mounted share; choose such a folder")
    check_folder(out)


def _overview(*, ok: bool) -> None:
    lines = ["usage: crossview COMMAND [options]"]
    for group, names in GROUPS.items():
        lines += ["", f"{group}:"]
        lines += [f"  {name:15} {(COMMANDS[name].__doc__ or '').splitlines()[0].rstrip('.')}" for name in names]
    lines += ["", "Run `crossview COMMAND --help` for the options of a command."]
    print("\n".join(lines), file=sys.stdout if ok else sys.stderr)
    raise SystemExit(0 if ok else 2)


@contextlib.contextmanager
def _sigterm_said(command: str) -> Iterator[None]:
    """Within the block, SIGTERM ends this process at once, as without it, but with a line that says so."""
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    process = os.getpid()

    def end(number: int, _frame: object) -> None:
        if os.getpid() == process:  # and not a forked one
            os.write(2, f"crossview {command}: ended by SIGTERM\n".encode())
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is end:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Meanwhile, warnings about data are printed as such and once, without the line of code that gives them.

    Python itself repeats them, since it forgets what it has shown wherever filters of warnings change.
    """
    others, said = warnings.showwarning, set[str]()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, DataWarning):
            from crossview.platform.progress import warn

            warn({str(message)} - said)
            said.add(str(message))
        else:
            others(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = others


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; bad input ends with status 2 and one line, a defect with status 1 and its traceback."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0].startswith("-"):
        _overview(ok=bool(args) and args[0] in ("--help", "-h"))
    try:
        if args[0] not in COMMANDS:
            raise _unknown("command", args[0], COMMANDS)
        with named(), _sigterm_said(args[0]), _plain_warnings():
            if args[0] in PARSED:
                parse(PARSED[args[0]], args=args[1:], prog=f"crossview {args[0]}")
            else:
                COMMANDS[args[0]](args[1:])
    except BrokenPipeError:  # `crossview ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt as stopped:
        print(f"interrupted; {stopped or 'resume a run with `crossview resume RUN`'}", file=sys.stderr)
        raise SystemExit(130) from None
    except (UserError, OSError) as error:
        if os.environ.get("CROSSVIEW_TRACEBACK"):
            raise
        print(f"error: {error if isinstance(error, UserError) else _storage(error)}", file=sys.stderr)
        raise SystemExit(2) from error
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's or Ray's, which are not imported for every command
            advice = NODE_OUT_OF_MEMORY if type(error).__module__.startswith("ray.") else OUT_OF_MEMORY
            print(f"error: {str(error).split('. ')[0]}; {advice}", file=sys.stderr)
            raise SystemExit(2) from error
        traceback.print_exc()
        print(DEFECT, file=sys.stderr)
        raise SystemExit(1) from error
