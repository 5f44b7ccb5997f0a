"""The reaper: expires holds whose lease ran out, closes their requests, and corrects the estimate when a commit comes late. Pure."""
