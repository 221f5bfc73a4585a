"""What the command line knows of clusters and jobs. No ray before a command runs."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import tyro

from crossview.errors import UserError
from crossview.platform.cli.options import parse_train, parse_tune, usage

Job = Annotated[str, tyro.conf.Positional]

SUBMITTED = ("train", "tune", "resume", "embed", "evaluate", "report", "reproduce", "prepare")
"""Commands that leave their results in files, and ask nothing."""


def submit(args: Sequence[str]) -> None:
    """Run a command on a cluster, with this checkout's code."""
    own = argparse.ArgumentParser("crossview submit", add_help=False, allow_abbrev=False)
    own.add_argument("--address")
    own.add_argument("--follow", action="store_true")
    given, command = own.parse_known_args(args)
    if not command or command[0] in ("--help", "-h"):
        line = "crossview submit COMMAND [its options] [--address http://HOST:PORT] [--follow]"
        usage(line, "commands", SUBMITTED, ok=bool(command))
    if command[0] not in SUBMITTED:
        raise UserError(f"{command[0]!r} cannot be submitted; choose from {', '.join(SUBMITTED)}")
    job, command = named(command)
    from crossview.platform.cluster.job_client import Jobs
    from crossview.platform.run_folder import provenance

    jobs = Jobs(given.address)
    jobs.submit(job, shlex.join(["crossview", *command]), {"CROSSVIEW_COMMIT": provenance()["commit"] or "unknown"})
    at = f" --address {given.address}" if given.address else ""
    print(f"Submitted {job}: {shlex.join(['crossview', *command])}")
    print(f"follow: crossview logs {job} --follow{at}\nstop:   crossview stop {job}{at}")
    if given.follow:
        _follow(jobs, job)


def named(command: Sequence[str]) -> tuple[str, list[str]]:
    """The job's name and its command, checked as far as it can be here; a new run is named now, to be found later."""
    verb, rest = command[0], list(command[1:])
    now = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    new = verb in ("train", "tune") and "--resume" not in rest
    # What --from names is on the cluster: only there can its options be read.
    if new and not any(word.split("=")[0] == "--from" for word in rest):
        parse_train(rest) if verb == "train" else parse_tune(rest)
    words = [word for word in rest if not word.startswith("-")]
    if not words:
        raise UserError(f"{verb}: nothing says what to {verb}; see `crossview {verb} --help`")
    if new and not any(word.split("=")[0] == "--name" for word in rest):
        rest += ["--name", f"{words[0]}-{now}"]
    return f"{verb}-{PurePosixPath(words[0]).name}-{now}".replace(":", "-"), [verb, *rest]


def status(job: Annotated[str | None, tyro.conf.Positional] = None, /, address: str | None = None) -> None:
    """List the jobs of a cluster, or show one.

    Args:
        job: Its name; without one, all are listed.
        address: The dashboard, http://HOST:PORT; by default where `ray dashboard` puts it.

    """
    from crossview.platform.cluster.job_client import Jobs

    jobs = Jobs(address)
    if job is not None:
        info = jobs.info(job)
        print(f"{_line(info)}\n{info.message or ''}")
        return
    print("\n".join(map(_line, jobs.all())) or f"no jobs yet at {jobs.address}")


def logs(job: Job, /, follow: bool = False, address: str | None = None) -> None:
    """Print the output of a job.

    Args:
        job: Its name, as `crossview submit` or `crossview status` shows it.
        follow: Keep printing until it ends; the exit status is 1 if it fails.
        address: The dashboard, http://HOST:PORT; by default where `ray dashboard` puts it.

    """
    from crossview.platform.cluster.job_client import Jobs

    jobs = Jobs(address)
    if follow:
        _follow(jobs, job)
    else:
        print(jobs.logs(job), end="")


def stop(job: Job, /, address: str | None = None) -> None:
    """Stop a job; its run keeps its checkpoints.

    Args:
        job: Its name, as `crossview submit` or `crossview status` shows it.
        address: The dashboard, http://HOST:PORT; by default where `ray dashboard` puts it.

    """
    from crossview.platform.cluster.job_client import Jobs

    print(
        f"{job}: {Jobs(address).stop(job)}; resume a run with `crossview submit resume RUN`, a search "
        "with `crossview submit tune --resume SEARCH`"
    )


def check_cluster(file: Annotated[Path, tyro.conf.Positional], /) -> None:
    """Validate a cluster YAML before `ray up`.

    Args:
        file: Such as cluster.yaml; run this where you will run `ray up`.

    """
    from crossview.platform.cluster.validate import check

    check(file)
    print(f"{file} is complete; next: ray up {file}")


def _follow(jobs: Any, job: str) -> None:
    try:
        _require_success(job, jobs.follow(job))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the job keeps running; stop it with `crossview stop {job}`") from None


def _line(info: Any) -> str:
    begun = datetime.fromtimestamp((info.start_time or 0) / 1000, UTC)
    end = datetime.fromtimestamp(info.end_time / 1000, UTC) if info.end_time else datetime.now(UTC)
    lasted = str(end - begun).split(".")[0]
    return f"{info.submission_id}  {info.status.value}  {begun:%Y-%m-%d %H:%M:%S} UTC, {lasted}  {info.entrypoint}"


def _require_success(job: str, last: str) -> None:
    print(f"{job}: {last}")
    if last != "SUCCEEDED":
        raise SystemExit(1)
