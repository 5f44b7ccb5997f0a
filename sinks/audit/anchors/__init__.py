"""Anchors: checkpoints kept where who runs the log can't take them back, so that a rewritten log is found out."""
