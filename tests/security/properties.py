"""The marker that ties a test to a security property; `make generate` makes the reference page from it."""

from __future__ import annotations

import pytest


def security_property(number: str, sentence: str) -> pytest.MarkDecorator:
    """Mark a test as the proof of property `number`; `sentence` says what holds here."""
    return pytest.mark.security_property(number, sentence)
