"""PACS: a DICOMweb client, and a listener for C-STORE."""
