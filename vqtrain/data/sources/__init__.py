"""Where images are: an index of every image that a user names, or commands that write tars.

Promises that the bytes of an indexed image can be read in any order and any process, and that what
is unusable is listed as a fault.
"""
