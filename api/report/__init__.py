"""Makes the nightly report: waits for the stores, reads them, and draws it as one page."""
