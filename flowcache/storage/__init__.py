"""The object store: its layout, the commit protocol, media, tables, and the proof that all of it is sound."""
