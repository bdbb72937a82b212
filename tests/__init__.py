"""The tests. As a rule two run at a time, each with threads for both cores. So an idle thread must sleep: if it
spins, as OpenMP's threads do by default, it takes the core that the other test needs, and both tests take three times
as long.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when the threads are made
