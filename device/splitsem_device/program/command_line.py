"""The command line of splitsem-device: run, check and profile a bundle."""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from splitsem_device.bundle import Bundle
from splitsem_device.errors import ConfigError, SplitSemError, coded
from splitsem_device.onnx_half import OnnxHalf
from splitsem_device.program import checking, head_profile
from splitsem_device.program.feeds import feed
from splitsem_device.program.running import FramesRun, WholeHere, in_words
from splitsem_device.this_machine import peak_memory_bytes

COMMANDS = ("run", "check", "profile")


def main(arguments: Sequence[str] | None = None, began: float | None = None) -> int:
    """Run the program; returns the exit status: 0, or 1 with one line about what is wrong.

    Args:
        arguments: of the command line; None: the process's own. Without a command, the command is ``run``.
        began: when the process began, by ``time.perf_counter``; None: now.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] not in (*COMMANDS, "-h", "--help"):
        given.insert(0, "run")
    options = _parser().parse_args(given)
    logging.basicConfig(level=logging.WARNING, format="splitsem-device: %(message)s")
    try:
        return int(options.act(options, time.perf_counter() if began is None else began))
    except (SplitSemError, ValueError) as exc:
        line = coded(exc, exc.code) if isinstance(exc, SplitSemError) else exc
        sys.stderr.write(f"splitsem-device: {line}\n")
        return 1


def _run(options: argparse.Namespace, began: float) -> int:
    from splitsem_device.answers import RemoteTail
    from splitsem_device.fallback import Buffer, LocalFallback
    from splitsem_device.grpc.client import GrpcTail
    from splitsem_device.grpc.connection import Security, host_port, is_loopback
    from splitsem_device.retry import Backoff

    _check_output("--json", options.json)
    _check_output("--answers", options.answers)
    security = Security(options.ca, options.cert, options.key, options.token_file, options.insecure)
    retry = Backoff(patience_s=options.patience, retries=options.retries, deadline_s=options.deadline)
    remote: RemoteTail = GrpcTail(options.target, options.window, retry, security)
    if not options.ca and not options.insecure and not is_loopback(host := host_port(options.target)[0]):
        raise ConfigError(f"refusing to send to {host} without TLS: give --ca (and --cert, --key), or --insecure")
    security.check_edge(options.target)
    bundle = Bundle(options.bundle)
    head = _head(bundle, options)
    source = feed(options.source, bundle)
    answers: list[Any] = []

    def show(number: int, found: Any) -> None:
        if options.answers:
            answers.append(found)
        if not options.quiet:
            sys.stdout.write(f"{number}\t{in_words(found, bundle.facts)}\n")

    run = FramesRun(bundle, head, show)
    has_whole = bool(bundle.facts.whole)
    if options.on_loss == "fallback" and has_whole:
        remote = LocalFallback(remote, WholeHere(bundle, run.waiting, options.threads))
    elif options.on_loss != "stop":
        if not has_whole and options.on_loss == "fallback":
            _note(
                f"the bundle has no whole network (workflow.whole=true): up to {options.buffer} payloads are buffered"
            )
        remote = Buffer(remote, options.buffer)
    samples = (one for _, one in zip(range(options.frames), source, strict=False)) if options.frames else iter(source)
    is_stopped = False
    try:
        run.go(samples, remote)
    except KeyboardInterrupt:
        is_stopped = True
        _note("stopped")
    finally:
        remote.close()
        report = _report(options, run, remote, began)
        if options.json:  # the counters say the most where the server did not come back
            options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.answers:
        _keep(answers, options.answers)
    if not run.times.encode_s:
        _note(f"no frames came from {'standard input' if options.source == '-' else options.source}")
        return int(not is_stopped)
    sys.stdout.write(f"{run.times.table()}\n")
    counted = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in report["counters"].items() if value)
    _note(f"{counted}; {report['payload_bytes']:.0f} bytes a frame; memory {report['rss_bytes'] / 1e6:.0f} MB")
    return 0


def _check_output(option: str, path: Path | None) -> None:
    """Raises ConfigError before any work for a file that could not be written after it."""
    if path is None:
        return
    if os.path.isdir(path):  # Path.is_dir raises where a folder above may not be entered
        raise ConfigError(f"{option}: {path} is a folder; name a file in it")
    if not os.path.isdir(path.parent):
        raise ConfigError(f"{option}: there is no folder {path.parent}; make it, or name another file")
    if not os.access(path if os.path.lexists(path) else path.parent, os.W_OK):
        raise ConfigError(f"{option}: {path} cannot be written here; name another file")


def _report(options: argparse.Namespace, run: FramesRun, remote: Any, began: float) -> dict[str, Any]:
    num = max(1, len(run.times.encode_s))
    first = run.first_payload_s
    return {
        "bundle": str(options.bundle),
        "target": options.target,
        "head": options.head,
        "frames": len(run.times.decode_s),
        "stages": run.times.percentiles(),
        "counters": vars(remote.counters),
        "payload_bytes": run.num_payload_bytes / num,
        "first_payload_s": None if first is None else first - began,
        "rss_bytes": peak_memory_bytes(),
    }


def _keep(answers: list[Any], path: Path) -> None:
    """Answers of one shape as one .npy array; others as .npz, by their numbers."""
    arrays = [np.frombuffer(one, np.uint8) if isinstance(one, bytes) else one for one in answers]
    if all(isinstance(one, np.ndarray) for one in arrays) and len({one.shape for one in arrays}) <= 1:
        with path.open("wb") as file:
            np.save(file, np.stack(arrays) if arrays else np.empty(0))
        return
    named: dict[str, Any] = {}
    for number, one in enumerate(arrays):
        parts = one if isinstance(one, dict) else {"": one}
        named |= {f"{number}{name}": part for name, part in parts.items()}
    with path.open("wb") as file:
        np.savez(file, **named)


def _check(options: argparse.Namespace, began: float) -> int:
    bundle = Bundle(options.bundle)
    heads = [options.head] if options.head else list(bundle.facts.heads)
    found = []
    for finding in checking.findings(bundle, heads, options.threads):
        found.append(finding)
        is_good = finding.is_good and (finding.is_exact or not options.exact)
        sys.stdout.write(f"{'ok  ' if is_good else 'BAD '} {finding.line}\n")
    return int(not all(one.is_good and (one.is_exact or not options.exact) for one in found))


def _profile(options: argparse.Namespace, began: float) -> int:
    _check_output("--output", options.output)
    bundle = Bundle(options.bundle)
    found = head_profile.table(bundle, _head(bundle, options), options.threads, options.repeats, options.pause)
    head_profile.write(found, options.output)
    for point, sides in found["points"].items():
        times = sides["head_s"]
        spread = f"p10 {1e3 * times['p10']:.3f}, p90 {1e3 * times['p90']:.3f}"
        sys.stdout.write(f"up to {point}: median {1e3 * times['median']:.3f} ms ({spread})\n")
    sys.stdout.write(f"{options.output}: for hardware.edge.lut={options.output}\n")
    return 0


def _head(bundle: Bundle, options: argparse.Namespace) -> OnnxHalf:
    facts = bundle.facts
    content = bundle.head(options.head)
    return OnnxHalf(content, facts.heads[options.head], options.threads, facts.versions.get("onnxruntime", ""))


def _note(line: str) -> None:
    sys.stderr.write(f"splitsem-device: {line}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="splitsem-device", description="The edge's half of split inference, from a bundle."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="send frames to a server (workflow=serve) and read its answers; the default")
    check = commands.add_parser(
        "check", help="compare what this machine makes of the bundle's samples with what it must"
    )
    profile = commands.add_parser("profile", help="time the head here, for hardware.edge.lut=FILE")
    for command, act in ((run, _run), (check, _check), (profile, _profile)):
        command.set_defaults(act=act)
        command.add_argument("bundle", type=Path, help="folder or .zip that workflow=bundle made")
        command.add_argument("--threads", type=_count, default=1, help="of one operation (1)")
    for command in (run, profile):
        command.add_argument("--head", default="float32", help="float32, int8 or float16, where the bundle has it")
    check.add_argument("--head", help="check this head only")
    check.add_argument("--exact", action="store_true", help="a head that differs within one quantiser step is bad, too")
    profile.add_argument("--output", type=Path, default=Path("lut.json"), help="the table (lut.json)")
    profile.add_argument("--repeats", type=_count, default=50, help="runs (50)")
    profile.add_argument("--pause", type=float, default=0.002, help="seconds of idleness before each run (0.002)")
    _add_run(run)
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    add = run.add_argument
    add("--target", required=True, help="the server's host:port")
    add("--source", default="samples", help="folder of pictures, video, camera, .npy, .npz, - (stdin), or samples")
    add("--frames", type=_count, help="stop after so many")
    add("--window", type=_count, default=8, help="frames that may be unanswered (8)")
    add("--ca", help="PEM file: the server's certificate must come from it; turns TLS on")
    add("--cert", help="PEM file: this device's certificate")
    add("--key", help="PEM file: its private key")
    add("--token-file", help="file with the secret that the server asks for")
    add("--insecure", action="store_true", help="send beyond this machine without TLS")
    add("--patience", type=float, default=120.0, help="seconds without an answer, then the server is given up (120)")
    add("--retries", type=int, help="at most so many tries after the first; else as many as --patience allows")
    add("--deadline", type=float, default=30.0, help="seconds for an answer (30)")
    add("--on-loss", choices=("stop", "buffer", "fallback"), default="stop", help=(
        "while the server is away: wait, and stop after --patience; make payloads and send them later; or answer here"
    ))  # fmt: skip
    add("--buffer", type=_count, default=64, help="payloads that are kept meanwhile (64)")
    add("--json", type=Path, help="write times and counters here")
    add("--answers", type=Path, help="write the answers here: .npy, or .npz where they differ in shape")
    add("--quiet", action="store_true", help="do not print the answers")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value
