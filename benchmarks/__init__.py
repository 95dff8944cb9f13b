"""Side-by-side runs against peers, and the ledger of their results."""
