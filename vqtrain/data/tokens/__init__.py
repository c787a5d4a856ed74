"""Images as token ids on disk: shards or one array, written so that a kill costs a batch, read."""
