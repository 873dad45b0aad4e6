"""The words for each Xid, for whoever shows one; the sensor's table is not the server's to import."""

from __future__ import annotations

from probes.gpu.xids import XIDS

_HEAD = '''"""What each Xid means, in short. Generated from probes/gpu/xids.py, never edited."""

from __future__ import annotations

from typing import Final

XID_WORDS: Final = {
'''


def module() -> str:
    """Return what escalation/wording/xid_words.py holds."""
    rows = (f'    {xid.number}: "{xid.meaning}",\n' for xid in sorted(XIDS, key=lambda xid: xid.number))
    return f"{_HEAD}{''.join(rows)}}}\n"
