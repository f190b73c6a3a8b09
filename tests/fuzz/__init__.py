"""Hostile texts in every text field of the schema, through every verb that reads a config or a run.

    texts.py     what is typed: written kinds, and mutations of them by a seed
    fields.py    where it is typed: every field that takes a text, found by walking the schema at run time
    sandbox.py   a place with canaries in it, one verb called there, and what is wrong with how it ended
    config.py    a text in a field through plan, render and run, and the script in bash
    stored.py    a text in a run that somebody left: resume, status
    warm.py      Hydra's composition of what all cases share, kept
    tally.py     the figures
    pool.py      all of it on several processes

`make fuzz` runs all of it, `make test` a part. A verb is called in the process at hand, with the kept composition; each text also goes
through one that is not kept.
"""
