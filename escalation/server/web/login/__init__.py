"""How people log in on the page: sessions, passwords, passkeys, a provider of identities, the tailnet."""
