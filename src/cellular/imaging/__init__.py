"""Images, label maps, fields and training sets, on disk and as arrays."""
