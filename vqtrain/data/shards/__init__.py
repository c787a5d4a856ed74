"""Shards on disk: written with a journal, continued after a kill, completed by an index.json.

Promises that a shard appears in its folder only when it is complete, that a kill costs one call of
``ShardWriter.add``, and that a folder is never continued with another plan.
"""
