"""What trains something: the minis that the package ships, and the paper's experiment in small."""
