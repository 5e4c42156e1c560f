"""Does it help? Arms, seeds, networks, and the verdict."""
