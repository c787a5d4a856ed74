"""The settings under ``data``, for each kind of samples."""
