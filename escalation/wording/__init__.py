"""Codes, facts and reasons in the words that an operator reads."""
