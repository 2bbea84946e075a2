"""Training: from folders of scans and nodules to a checkpoint with its card.

Read in this order: `presets` (what can be chosen), `sources` (what there is to learn from), `scenes` (what the network
is shown), `batches` (made ahead), `loop` (how it learns), `validation` (how good it is), `recipe` (all of it, one
checkpoint).
"""
