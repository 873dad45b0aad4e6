"""What people do with an entry besides deciding: own it, put it off, ask, silence."""
