"""In which order samples are seen, and the batches of them.

Promises that batch number m of a rank depends on the seed, the sources and the number of ranks
alone (of streams, on the number of workers as well), so that a run continues exactly.
"""
