"""The same numbers as another commit: a change of structure must leave every metric as it is, to the last digit.

    python scripts/same_numbers.py 28fe07f           # a few minutes; --main runs the whole main job too

Each command runs in a checkout of that commit and in this one, with a cache of its own, on one thread. Metrics that a
clock was read for are left out; bytes, scores and modelled times are compared. Exits with 1 when one differs.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMON = ("device=cpu", "device.num_threads=1", "tracking=none")
RUNS = {
    "split": ("task=disaster", "codec=quant8", "trainer.max_epochs=1", "workflow.num_samples=12", "split.point=enc2"),
    "channel": ("task=digits", "codec=fixed", "transport=bsc", "transport.channel.ber=0.01", "trainer.max_epochs=2"),
    "codec": ("experiment=codec_smoke",),
    "federated": ("workflow=federated", "task=digits", "codec=quant8", "federated.num_clients=3", "federated.rounds=2"),
    "splitfed": ("workflow=splitfed", "task=digits", "codec=quant8", "split.point=stage2", "federated.num_clients=2"),
    "joint": (
        *("workflow=joint", "task=domains", "task@task.base=digits", "task.domain=0", "transport=ethernet"),
        *("trainer.max_epochs=3", "trainer.batch_size=16", "workflow.steps=[train,importance]"),
    ),
    "cuts": (
        *("workflow=joint", "task=netqos", "transport=lte", "trainer.max_epochs=2", "workflow.num_samples=200"),
        *("workflow.times=hardware", "workflow.codecs=[identity,quant8,quant4]"),
    ),
}
MAIN = ("task=disaster", "codec=quant8")
CLOCKED = {"encode_s", "decode_s", "evaluation_s", "train_s", "train_total_s", "solver_s", "table_s", "ablation_s"}
CLOCKED |= {
    "round_s",
    "client_s",
    "codec_s",
    "codec_share",
    "step_s",
    "waited_s",
    "wait_s",
    "local_head_s",
    "local_tail_s",
    "encode_s_ci95",
    "decode_s_ci95",
    "coding_drift",
}
LABELS = {"model"}  # names of options, which may be renamed
CLOCKED_IN = {"cuts": ("_s", "_hz"), "splitfed": ("_s",), "federated": ("_s",)}  # coding takes part, or steps are timed


def run(checkout: Path, folder: Path, name: str, arguments: tuple[str, ...], is_sweep: bool) -> None:
    """One command in a checkout; what it leaves lies in ``folder / name``."""
    where = f"hydra.{'sweep' if is_sweep else 'run'}.dir={folder / name}"
    command = [sys.executable, str(checkout / "run.py"), *arguments, *COMMON, f"cache_dir={folder / 'cache'}", where]
    environment = os.environ | {"PYTHONPATH": str(checkout), "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run([*command, *["-m"] * is_sweep], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed in {checkout}:\n{done.stdout}{done.stderr}")


def differences(name: str, ours: Path, theirs: Path) -> list[str]:
    """One line for each metric that is not the same."""
    found, lines = sorted(theirs.rglob("metrics.json")), []
    if not found:
        lines.append(f"{name}: no metrics.json")
    for path in found:
        old, new = (json.loads(p.read_text()) for p in (path, ours / path.relative_to(theirs)))
        compared = [k for k in old | new if k not in CLOCKED | LABELS and not k.endswith(CLOCKED_IN.get(name, ("\0",)))]
        where = f"{name} {path.parent.relative_to(theirs)}"
        lines += [f"{where}: {k} was {old.get(k)}, is {new.get(k)}" for k in compared if old.get(k) != new.get(k)]
        print(f"{where}: {len(compared)} metrics compared", flush=True)
    return lines


def main() -> None:
    """Compare all runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--main", action="store_true", help="also the whole main job, all cuts of the disaster network")
    parser.add_argument("--only", choices=RUNS, help="one of the runs")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="same-numbers-"))
    checkout, lines = folder / "checkout", []
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", checkout, asked.commit], cwd=ROOT, check=True)
    try:
        runs = {name: (arguments, False) for name, arguments in RUNS.items() if asked.only in (None, name)}
        runs |= {"main": (MAIN, True)} if asked.main else {}
        for name, (arguments, is_sweep) in runs.items():
            for place, tree in (("theirs", checkout), ("ours", ROOT)):
                (folder / place).mkdir(exist_ok=True)
                run(tree, folder / place, name, arguments, is_sweep)
            lines += differences(name, folder / "ours" / name, folder / "theirs" / name)
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", checkout], cwd=ROOT, check=True)
        shutil.rmtree(folder)
    print("\n".join(lines) or "all the same")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
