"""What holds for all tests: they run Python's own form of every module.

Tests that break the engine on purpose replace functions by others, which calls inside
compiled modules would not see. What is compiled is held to the same by
`tests/simulation/test_histories.py`. RAYSAGA_PURE= in the environment runs all tests on
what `raysaga compile` has made.
"""

import os

os.environ.setdefault("RAYSAGA_PURE", "1")
