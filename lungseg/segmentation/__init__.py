"""From a volume to a mask: network, checkpoint and card, segmenter, the one rule for lesions."""
