"""The command: `splitsem`, `python -m splitsem` and, in a checkout, `python run.py`. See `splitsem --help`."""

import sys

from splitsem.workflows.startup import collect_rarely, flags_last, folders_named, spin_briefly

spin_briefly()  # before anything loads torch
collect_rarely()

import hydra

from splitsem import files
from splitsem.workflows import command, mistakes, renamed, sweep
from splitsem_device.program import closed_pipe


@closed_pipe.quiet()
def main() -> None:
    """Compose the configuration that the command line asks for, and run it."""
    command.prepare()
    sys.excepthook = mistakes.report
    sys.argv[1:] = flags_last(folders_named(sys.argv[1:]))
    renamed.check_arguments(sys.argv[1:])
    is_bare = not sys.argv[1:]
    composed = hydra.main(version_base=command.VERSION_BASE, config_path=str(files.CONF), config_name=command.CONFIG)
    with sweep.closing():
        composed(command.job)()
    if is_bare:
        sys.stdout.write(command.NEXT)


if __name__ == "__main__":
    main()
