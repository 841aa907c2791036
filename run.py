"""Entry point of a checkout: the same as the command `splitsem`. See `python run.py --help`."""

from splitsem.__main__ import main
from splitsem.workflows.startup import leave

if __name__ == "__main__":
    main()
    leave()
