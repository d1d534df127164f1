"""How an environment stands, part by part, against what the ledger believes. Looks only: nothing is started, nothing changed."""
