"""Property tests draw the same examples on every machine and have no deadline, so that a slow machine fails nothing.

`python -m pytest --hypothesis-profile=explore` draws new ones.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run side by side; before anything loads torch
os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels are tested on the processor; 0 where a GPU is to be tested


from hypothesis import HealthCheck, settings

settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")
