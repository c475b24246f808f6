"""Text that came from a file, made fit for a terminal: nothing in it may move the cursor, colour, hide or turn around.

The one place for it; the commands print nothing else. Lines and tabs stay, what steers is shown as an escape.
"""

from __future__ import annotations

import re
import sys

# C0, DEL and C1; marks and overrides of direction; line and paragraph separators; halves of surrogate pairs, which
# are how Python keeps bytes of a file name that are not UTF-8.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str, encoding: str | None = None) -> str:
    """`text` with `\\x1b` in place of an escape, and with every sign that `encoding` has not written as an escape."""
    shown = _STEERING.sub(_escape, text)
    return shown.encode(encoding, "backslashreplace").decode(encoding) if encoding else shown


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # one byte of a file name
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


_DRIVE = re.compile(r"(?<![\w.:/\\-])([A-Za-z]):[\\/\w][\w\\/.-]{3,}")


def drive_hint(text: str) -> str:
    """What a drive of Windows is called in WSL, for a sentence that names a path on one; nothing for any other.

    A shell has taken the backslashes away where the path was not quoted: `C:Usersannavideos`.
    """
    if sys.platform == "win32" or (found := _DRIVE.search(text)) is None:
        return ""
    drive = found[1]
    return f" ({drive}:\\ is /mnt/{drive.lower()}/ in WSL: write /mnt/{drive.lower()}/Users/... with forward slashes)"
