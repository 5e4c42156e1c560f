"""The studio: a page to paint masks, make defects, compare, keep and export; extra `flawsmith[studio]`."""
