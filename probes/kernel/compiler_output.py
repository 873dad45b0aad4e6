"""What the compiler and the verifier print, caught and cut to what a person needs."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_COMPLAINT_BYTES = 2000


@contextmanager
def captured_output() -> Iterator[Callable[[], str]]:
    """Catch what C code prints on the process's own stderr and stdout; yields a way to read it."""
    with tempfile.TemporaryFile() as file:
        kept = [os.dup(1), os.dup(2)]
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

        def said() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield said
        finally:
            sys.stdout.flush()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            for fd in kept:
                os.close(fd)


def last_words(text: str) -> str:
    """Return the lines that name errors, or else the last ones."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line] or lines[-4:]
    return " | ".join(errors)[:_COMPLAINT_BYTES] or "no message"
