"""One file per fault class or close family; each is pure and knows no other."""
