"""How the minis were trained: `pool` renders the clips, `train` learns from them."""
