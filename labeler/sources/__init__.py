"""Which videos there are: folders, lists, tables, and what their metadata says."""
