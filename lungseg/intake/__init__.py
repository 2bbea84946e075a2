"""From whatever is handed in (folder, archive, files) to scans: unpacking, the series in it, taking one in."""
