"""Why a request went as it did: its events as a story, each with a mark of what the audit log proves of it."""
