"""How long the idle threads of an operation look for work before they sleep; see docs/decisions/threads.md."""

import os


def spin_briefly() -> None:
    """Have OpenMP's threads look for work for a thousand turns of a loop, unless the environment says otherwise.

    Must be called before torch is imported. GNU's OpenMP by itself spins hundreds of times as long.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
