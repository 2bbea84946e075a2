"""What a browser fetches beside the pages, by signed addresses; who may ask; and uploads on their way to the disk."""
