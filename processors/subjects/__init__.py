"""What events may hold of a person: sealed under the subject's own key, so that destroying the key is erasure. Pure."""
