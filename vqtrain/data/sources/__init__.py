"""Sources of images: an index of all images that a user names, or commands that write tars.

Promises that the bytes of an indexed image can be read in any order and any process, and that
unusable files are listed as faults.
"""
