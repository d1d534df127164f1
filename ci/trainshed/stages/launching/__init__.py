"""The parts of `launch`: what is asked, what is started, what the ledger keeps of it, and how a run is taken up again."""
