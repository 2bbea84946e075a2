"""Data sets to train on: what lies in a folder, what is wrong with it, its figures, and its slices made ready.

The way of a data set::

    layout.open_data_set(folder)      which scan belongs to which mask; nothing is read but names
    facts.measure(pair)               one read of scan and mask; all that is told of them later
    lint.lint(data_set, facts)        what is wrong, and what to do about it
    statistics.summarise(...)         the figures
    store.prepare(data_set, folder)   facts and slices on disk, memory-mapped from then on
    split.split_cases(cases)          who is trained on, who is held out

No torch, no database, no pages here.
"""
