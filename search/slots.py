"""How many trials are trained at once and what each is given, from the command line and this machine."""

import argparse
import os

from search.placement import Resources


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where trainings run."""
    add = parser.add_argument
    add("--concurrent", type=int, metavar="N", help="trials trained at once (default: as many as fit this machine)")
    add(
        "--cpus-per-trial",
        type=float,
        metavar="C",
        help="CPU cores and threads of a trial (default: this machine's cores / --concurrent; on a cluster 1)",
    )
    add("--gpus-per-trial", type=float, metavar="G", help="GPUs of a trial (default: 1 where there is one, else 0)")
    add("--address", metavar="auto", help="address of a Ray cluster (default: this machine alone)")


def check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program with exit code 2 if they contradict each other."""
    if args.address and not args.concurrent:
        parser.error("--address needs --concurrent N: a cluster that grows on demand must know how far")
    if args.concurrent is not None and args.concurrent < 1:
        parser.error(f"--concurrent must be 1 or more, not {args.concurrent}")


def resources(args: argparse.Namespace) -> Resources:
    """What was asked for, and where nothing was, what this machine has. Raises PreflightError if it lacks a GPU."""
    from search.preflight import check_gpu

    fitting = default_concurrent(args)
    if not args.address:
        check_gpu(args.gpus_per_trial)
    return Resources(args.concurrent or fitting, args.cpus_per_trial, args.gpus_per_trial, args.address)


def default_concurrent(args: argparse.Namespace) -> int:
    """As many trials at once as this machine has room for; fills in the cores and GPUs of a trial if not given."""
    import torch

    if args.gpus_per_trial is None:
        args.gpus_per_trial = 1.0 if torch.cuda.is_available() or args.address else 0.0
    cores = len(os.sched_getaffinity(0))
    fitting = max(1, int(cores / (args.cpus_per_trial or 1)))
    if args.gpus_per_trial:
        fitting = max(1, int(torch.cuda.device_count() / args.gpus_per_trial))
    if args.cpus_per_trial is None:
        args.cpus_per_trial = 1 if args.address else max(1, cores // (args.concurrent or fitting))
    return fitting
