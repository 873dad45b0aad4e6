"""Who can be told: one file for each kind of receiver, with its settings beside it."""
