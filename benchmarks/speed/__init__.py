"""Time, memory and arithmetic."""
