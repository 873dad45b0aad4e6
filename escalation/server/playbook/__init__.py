"""One file per remedy: a typed action with its price, its risk and its proof of recovery."""
