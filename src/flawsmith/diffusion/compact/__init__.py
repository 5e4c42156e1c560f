"""The shipped backbone's own parts."""
