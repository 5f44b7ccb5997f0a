"""Which records may not be applied, and which must wait behind them: pure rules, the same for every store."""
