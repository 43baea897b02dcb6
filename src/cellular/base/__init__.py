"""What every stage stands on: command line, errors, files, parameters, devices."""

import os
import signal
import sys
from pathlib import Path

# A script imports libraries for seconds before `cli.run` can answer an interrupt. There is nothing
# to clean up yet, so it ends at once. Whoever imports this package elsewhere keeps their handler.
_script = getattr(sys.modules["__main__"], "__file__", None) or ""
if (
    Path(_script).resolve().parent == Path(__file__).resolve().parents[2]
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):

    def _leave(*_: object) -> None:
        os.write(2, b"error: interrupted\n")
        os._exit(130)

    signal.signal(signal.SIGINT, _leave)
