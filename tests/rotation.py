"""Seeds that change from day to day, so that a short random test sees other cases each day."""

import os
import time

DAY = 86_400  # seconds
REPEAT = "LLM_FROM_SCRATCH_TEST_SEED"  # set to a number that a failure named, it repeats that day's cases


def seed_of_the_day():
    """Return the number of the day (UTC) since 1970, or what the variable says."""
    return int(os.environ.get(REPEAT, time.time() // DAY))
