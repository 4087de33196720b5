"""How every command meets its shell: errors, notes, signals, answers, progress."""
