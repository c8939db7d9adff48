"""Objects by URI on a folder or on S3, their digests, and the work area of a removal."""
