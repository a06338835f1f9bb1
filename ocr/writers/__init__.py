"""What was read on a page, as files that other programs open."""
