"""The reaper: expires holds whose lease ran out, closes their requests, corrects estimates of late commits. Pure."""
