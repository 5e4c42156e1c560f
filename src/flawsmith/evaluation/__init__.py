"""Judging generated pictures by what they are for: whether a detector trained with them finds real defects."""
