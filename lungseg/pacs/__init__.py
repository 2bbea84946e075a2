"""PACS: a DICOMweb client, and a listener for C-STORE."""

import logging

for _name in ("dicomweb_client", "pynetdicom", "urllib3"):  # what they log has addresses, UIDs and names of patients
    logging.getLogger(_name).setLevel(logging.CRITICAL)
