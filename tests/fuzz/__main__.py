"""`python -m tests.fuzz`; the runner has a module of its own, for its worker processes to import."""

import sys

from tests.fuzz.runner import main

sys.exit(main())
