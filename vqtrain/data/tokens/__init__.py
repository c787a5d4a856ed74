"""`vqtrain tokenize`: images as token ids on disk, and their reader.

Promises the same bytes for the same tokenizer, images and settings on the same hardware, with any
number of processes, and a reader that trusts no file.
"""
