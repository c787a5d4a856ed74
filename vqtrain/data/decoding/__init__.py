"""From the bytes of an image to pixels of one size.

Promises that any bytes, even hostile ones, give the pixels that ``ImageTransform`` describes or a
BadSampleError, and that the same bytes and random numbers always give the same pixels.
"""
