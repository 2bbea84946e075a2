"""What the browser fetches beside the pages: scans, masks, pictures and the viewer's bundle, by signed addresses."""
