"""Reading and writing files: atomic writes, the file store, gzip, and headers of arrays."""
