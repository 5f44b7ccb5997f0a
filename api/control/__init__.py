"""The control plane towards people: a sitting at it, and limits and rates as they are told."""
