"""Which files of splitsem a split run imports, in order, and how many folders they lie in.

    python benchmarks/places.py                                    # of task=digits split.point=stage2, untrained
    python benchmarks/places.py task=disaster codec=topk           # of any other overrides

A reader of one run passes these places, the configuration's files aside (`python run.py --info defaults`).
"""

import contextlib
import io
import runpy
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
DEFAULT = ("task=digits", "split.point=stage2")


def main() -> None:
    """Run once in this process and list what was imported."""
    overrides = sys.argv[1:] or list(DEFAULT)
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        fixed = ["trainer.max_epochs=0", "tracking=none", f"hydra.run.dir={folder}", f"cache_dir={folder}/cache"]
        sys.argv = ["run.py", *overrides, *fixed]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
    own = [module for name, module in sys.modules.items() if name.partition(".")[0] == "splitsem"]
    files = [Path(module.__file__).relative_to(ROOT) for module in own if module.__file__]
    places = [file for file in files if file.name != "__init__.py"]
    print("\n".join(map(str, places)))
    print(f"{len(places)} files in {len({file.parent for file in files})} folders")


if __name__ == "__main__":
    main()
