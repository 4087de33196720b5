"""How a step is executed: processes, precision, memory, recordings."""
