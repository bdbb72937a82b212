"""What people run: one page a model. `python -m demos` lists them in teaching order."""

import signal
import sys

# While `python -m demos.NAME` (argv is "-m" until it is found) still imports, there is nothing to save: until
# `demos.run.start`, Ctrl-C ends the process without a traceback.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
