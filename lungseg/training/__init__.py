"""Training: from a data set to a checkpoint with its card.

Read in this order: `presets` (what can be chosen), `order` (what is to be trained, and who is told), `recipe` (from an
order to a checkpoint), `loop` (epoch by epoch) and `learner` (step by step), `resume` (what a killed run goes on from),
`course` (what the two ways to train have in common). Slices of a store: `slice_course`, `sampling`, `slices`,
`augmentation`, `slice_validation`. Scenes from crops: `scene_course`, `sources`, `scenes`, `validation`. Both give
`batches`.
"""
