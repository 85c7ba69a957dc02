"""What a data set is made of on disk: samples in tars, commit records, plans, tables."""
