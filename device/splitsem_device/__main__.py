"""``python -m splitsem_device``, and the console script ``splitsem-device``."""

import signal
import sys
import time

from splitsem_device.program.closed_pipe import quiet

BEGAN = time.perf_counter()


@quiet()
def main() -> int:
    """Run the program, see ``program.command_line.main``."""
    from splitsem_device.allocator import keep_little
    from splitsem_device.program import command_line

    keep_little()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # a service is stopped in order
    return command_line.main(began=BEGAN)


if __name__ == "__main__":
    sys.exit(main())
