"""Seconds that a further job of a sweep costs beyond the job's own evaluation. The bar: at most one second.

python benchmarks/sweep.py
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
BAR_S = 1.0


def main() -> None:
    """Sweep all cuts of the digits network in a process of its own and read the clock off the jobs' folders."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "run.py"), "task=digits", "codec=quant8", "hydra.sweep.dir=sweep", "-m"]
        environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
        subprocess.run(command, cwd=folder, check=True, capture_output=True, env=environment)
        jobs = sorted(Path(folder).glob("sweep/*/metrics.json"), key=lambda path: int(path.parent.name))
        written_s = [path.stat().st_mtime for path in jobs]
        evaluation_s = [json.loads(path.read_text())["evaluation_s"] for path in jobs]
    print(f"{'job':>4} {'evaluation s':>13} {'whole job s':>12} {'beyond s':>9}")
    beyond_s = []
    for i in range(2, len(jobs)):  # the first job pays for the references and the imports of the plots
        whole_s = written_s[i] - written_s[i - 1]
        beyond_s.append(whole_s - evaluation_s[i])
        print(f"{i:>4} {evaluation_s[i]:>13.3f} {whole_s:>12.3f} {beyond_s[-1]:>9.3f}")
    median_s = statistics.median(beyond_s)
    verdict = "met" if median_s <= BAR_S else "MISSED"
    print(f"median beyond the evaluation: {median_s:.2f} s (bar {BAR_S:.0f} s: {verdict}), with MLflow and figures")


if __name__ == "__main__":
    main()
