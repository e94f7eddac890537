"""Measurements, tables and figures that the analyses share. The analyses themselves are one folder up.

Nothing here uses a network, and libraries that would are switched off before they are imported.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
