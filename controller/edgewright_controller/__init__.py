"""The controller: plans, compiles, signs, rolls out, and keeps the ledger of a fleet."""
