"""The order of samples, and their batches.

Promises that batch number m of a rank depends only on the seed, the sources and the number of ranks
(for streams also on the number of workers), so that a run resumes exactly.
"""
