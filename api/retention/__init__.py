"""Retention: what may go of each class of what is stored, recorded in the log before it goes."""
