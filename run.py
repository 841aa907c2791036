"""Entry point of a checkout: the same as the command `splitsem`. See `python run.py --help`."""

import sys

from splitsem.__main__ import main
from splitsem.workflows.startup import leave

if __name__ == "__main__":
    main()
    if sys._getframe().f_back is None:  # else a profiler or a debugger runs this, and goes on
        leave()
