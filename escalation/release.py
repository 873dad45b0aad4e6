"""Which release this is: read here by the build, and by every program that tells its version.

The metadata of an installed distribution say it too; to read them costs an agent 0.8 MB, as they are read
with parsers of mail and of archives.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
