"""What a run does, in whatever process: segment, prepare, train, evaluate; worker, recorder and heartbeat."""
