"""Files of a known form, of any content."""
