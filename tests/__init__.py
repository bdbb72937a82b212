"""The tests. As a rule two run at a time, each with threads for both cores, and a thread that has nothing to do must
sleep then: if it waits awake, as OpenMP's do by default, it takes the core that the other test needs, and both take
three times as long.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when the threads are made
