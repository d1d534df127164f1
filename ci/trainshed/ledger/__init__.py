"""The ledger: verdicts, images, locks and what happened in each environment, on SQLite or PostgreSQL."""
