"""CELLULAR experiments: fields and masks of autophagic cells, Cellpose trained on them, and scores.

Imports go in one direction: the stage scripts in ``src/`` import this package; in here, modules
that run a stage (preparation, training, evaluation, fetching) import those that know one noun
(masks, fields, images, weights, scores), never the other way round.
"""
