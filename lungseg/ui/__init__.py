"""The pieces of the pages: entry, look, wording, the viewer component."""
