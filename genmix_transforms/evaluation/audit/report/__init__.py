"""The report of an audit: one HTML page that needs nothing else, and the same as JSON."""
