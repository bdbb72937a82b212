"""The demos: one page for each model. `python -m demos` lists them in teaching order."""

import signal
import sys

# While `python -m demos.NAME` is still importing (argv[0] is "-m" until Python has found the module), there is
# nothing to save. So until `demos.run.start`, Ctrl-C ends the process without a traceback.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
