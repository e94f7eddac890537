"""What several analyses measure with, and the figures of the longer ones. The analyses are one folder up.

Nothing here needs a network, and libraries that would look for something there are told so before they load.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
