"""The threads of the tests: TRUING_TEST_THREADS, 1 unless it is set, since small models gain nothing from a second one.

Imported before torch, which reads OMP_NUM_THREADS once; processes that tests start inherit it.
"""

import os

THREADS = int(os.environ.get("TRUING_TEST_THREADS", "1"))
os.environ["OMP_NUM_THREADS"] = str(THREADS)
