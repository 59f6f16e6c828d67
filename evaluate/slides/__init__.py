"""Every nucleus of a slide embedded, for other programs."""
