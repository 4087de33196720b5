"""What a run measures while it trains: the hint gain (`validation`), when the hint is first
followed (`convergence`), pictures that are read back (`rounds`)."""
