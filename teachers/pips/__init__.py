"""PIPs and PIPs++."""
