"""Logs: the journal and followed files, read for known patterns. Text stays here; ids and captures leave."""
